"""A planner that knows what budgets refused the models inside a node, whose own step books nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from governor.errors import Refusal
from governor.protocols import Belief, Planner, Situation
from governor.records import Plan, Stop


@dataclass(frozen=True, slots=True)
class PursePlanner:
    """Plans as `planner` does as long as nothing was refused.

    Afterwards a policy that degrades goes on below the rung that was refused; any other stops.
    """

    planner: Planner
    refused: Callable[[], Refusal | None]

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        refusal = self.refused()
        if refusal is None or not situation.attempts:
            return self.planner.choose(belief, situation)
        if situation.terms.on_exhausted != "degrade":
            return Stop(reason="budget exhausted", refusal=refusal)
        ids = [rung.id for rung in situation.terms.ladder]
        lowest = min(ids.index(one.rung.id) for one in situation.attempts)
        refused = situation.refused | frozenset(ids[lowest:])
        plan = self.planner.choose(belief, replace(situation, refused=refused))
        return replace(plan, refusal=refusal) if isinstance(plan, Stop) else plan
