"""Which earlier step is to blame where a later one failed, and how much that is worth: pure decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from governor.policy import Rewind
from governor.protocols import Terms
from governor.records import Outcome, Price


@dataclass(frozen=True, slots=True)
class Done:
    """A governed step that a run has behind it.

    `checkpoint` is the one before its superstep (later ones are greater) and `task` its own name there, `rung` its
    place in the node's ladder (0 the lowest) and `top` the last one's, `wrong` the posterior probability that its
    result is wrong (of one that was redone, that every result of it was), `cost` what it came to (micro-USD; tokens
    where nothing has a price).
    """

    node: str
    task: str
    checkpoint: str
    rung: int
    top: int
    wrong: float
    cost: int


@dataclass(frozen=True, slots=True)
class Back:
    """A rewind: the step `by` failed, and `node` is redone, on `rung`, from the `checkpoint` before it.

    `doubt` is how probable it was that the node's result was wrong, `rule` the number of the policy's rule that asked
    for the rewind.
    """

    by: str
    node: str
    checkpoint: str
    rung: int
    doubt: float = 1.0
    rule: int = 0

    @property
    def branch(self) -> str:
        """What the history calls the branch that begins here, before its number."""
        return f"{self.node} on rung {self.rung}, blamed by {self.by}"


def priced(terms: Terms) -> bool:
    """Whether what steps cost is counted in money: in tokens where nothing has a price."""
    return any(rung.price != Price() for rung in terms.ladder)


def wrong(outcome: Outcome, sensitivity: float, false_accept: float) -> float:
    """Posterior probability that what a step shipped is wrong, by Bayes' rule on its verdict.

    `sensitivity` is P(accept | correct), `false_accept` P(accept | wrong) of its verifier: 1 and 1 for none.
    """
    attempt = next((one for one in reversed(outcome.attempts) if one.reply is outcome.reply), None)
    if attempt is None:
        return 1.0
    prior = next((one.p_success for one in attempt.forecasts if one.rung == attempt.rung.id), 0.5)
    if attempt.rejected:
        right, mistaken = prior * (1 - sensitivity), (1 - prior) * (1 - false_accept)
    elif attempt.verdict is not None and attempt.verdict.decision == "accept":
        right, mistaken = prior * sensitivity, (1 - prior) * false_accept
    else:
        right, mistaken = prior, 1 - prior
    return mistaken / (right + mistaken) if right + mistaken > 0 else 1 - prior


def blamed(done: Sequence[Done], rewind: Rewind, by: str, rule: int = 0, left: float = math.inf) -> Back | None:
    """Where to go back to after the step `by` failed; None where no step can do better than it did.

    With `rewind.to` that is the latest superstep of that node. Otherwise it is the step whose probability of being
    wrong is highest for what redoing everything from there on costs: one that was redone in vain is the less likely the
    cause, by the probability that its new result is wrong too. A step on the top of its ladder can't be raised, and
    none is redone that with all that follows cost more than is `left` of the budgets: the answer at hand is better than
    a run that ends halfway.
    """
    able = [one for one in done if (rewind.rung == 0 or one.rung < one.top) and _redoing(done, one) <= left]
    if rewind.to is not None:
        latest = max((one.checkpoint for one in done if one.node == rewind.to), default="")
        able = [one for one in able if one.node == rewind.to and one.checkpoint == latest]
    aim = max(able, key=lambda one: (one.wrong / max(1, _redoing(done, one)), one.checkpoint), default=None)
    if aim is None:
        return None
    return Back(by, aim.node, aim.checkpoint, min(aim.rung + rewind.rung, aim.top), aim.wrong, rule)


def _redoing(done: Sequence[Done], first: Done) -> int:
    return sum(one.cost for one in done if one.checkpoint >= first.checkpoint)
