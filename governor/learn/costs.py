"""What a rung is expected to cost before it is called, in the ladder's own unit, and beliefs that forecast it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from governor.estimate.agreement import Pairs, pairs_of
from governor.estimate.chain import Look, look_of
from governor.estimate.curves import Floats
from governor.estimate.latent import Grid
from governor.learn.ladder import Ladder
from governor.learn.outcomes import known_cost, over_samples
from governor.learn.table import Table
from governor.learn.tabulate import CHARACTERS_A_TOKEN
from governor.protocols import Belief, Estimator, Situation, Terms
from governor.records import Forecast, Rung, Step

MICROS = 1e6
"""Forecasts state costs in millionths of the ladder's unit, as money is stated in micro-USD."""

LOOK = 1.0
"""Tokens that each look at a thought costs before the last one."""


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Expected cost of an attempt on each rung, (K,) in the table's order, its verdict included.

    `rest` is what the question's text does not give away, `per_character` what it does. Where rungs are budgets of
    one thought, `more` (K, K) is the cost of rung k once rung j was reached and did not end the thought.
    """

    rest: Floats
    per_character: Floats
    more: Floats | None = None

    @classmethod
    def of(cls, table: Table, ladder: Ladder) -> Costs:
        """Means on training questions; a rung of which no cost is known there counts as the dearest."""
        calls = 2.0 if ladder.checking.kind == "agreement" else 1.0
        rest = _means(over_samples(table.cost) - known_cost(table, ladder))
        return cls(
            rest=calls * rest + ladder.checking.cost,
            per_character=calls * _per_character(ladder),
            more=_more(table) + ladder.checking.cost if ladder.continues else None,
        )

    def expected(self, text: str) -> Floats:
        """Of a question with this text."""
        expected: Floats = self.rest + len(text) * self.per_character
        return expected


def mean_costs(table: Table) -> Floats:
    """Mean cost of each rung, (K,); a rung of which none is known counts as the dearest."""
    return _means(over_samples(table.cost))


def _means(figures: Floats) -> Floats:
    seen = np.isfinite(figures)
    mean = np.where(seen, figures, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    known: Floats = np.where(seen.any(axis=0), mean, mean.max(initial=0.0))
    return known


def _per_character(ladder: Ladder) -> Floats:
    if ladder.unit != "usd":
        return np.zeros(len(ladder.rungs))
    return np.array([ladder.costs[rung].input_per_million for rung in ladder.rungs]) / 1e6 / CHARACTERS_A_TOKEN


def _more(table: Table) -> Floats:
    """(K, K): mean further tokens from rung j to rung k of thoughts that j did not end, and the look at j."""
    rungs = len(table.rungs)
    more = np.full((rungs, rungs), LOOK)
    for j in range(rungs):
        for k in range(rungs):
            further = (table.cost[:, k] - table.cost[:, j])[~table.finished[:, j]]
            further = further[np.isfinite(further)]
            if further.size:
                more[j, k] = max(float(further.mean()), 0.0) + LOOK
    return more


class Joint(Belief, Protocol):
    """A belief that is joint over rungs and difficulties."""

    def grid(self, situation: Situation) -> Grid: ...

    def after(self, rung: Rung, decision: str, situation: Situation) -> Joint: ...


@dataclass(frozen=True, slots=True)
class Priced:
    """An estimator whose beliefs forecast these costs; `rungs` names their columns. Beliefs must have a grid."""

    inner: Estimator
    rungs: tuple[str, ...]
    costs: Costs

    def estimate(self, step: Step, terms: Terms) -> PricedBelief:
        """The inner belief, and what the rungs cost on this step."""
        micros = dict(zip(self.rungs, (MICROS * self.costs.expected(step.prompt)).tolist(), strict=True))
        going_on = _Thought.of(self.rungs, self.costs, micros)
        return PricedBelief(joint(self.inner.estimate(step, terms)), micros if going_on is None else going_on.micros)


@dataclass(frozen=True, slots=True, eq=False)
class PricedBelief:
    """A belief that forecasts stated costs: a mapping by rung, or what gives one for a situation."""

    inner: Joint
    micros: Mapping[str, float] | Callable[[Situation], Mapping[str, float]]

    @property
    def difficulty(self) -> float:
        return self.inner.difficulty

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.inner.reasons

    def grid(self, situation: Situation) -> Grid:
        return self.inner.grid(situation)

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        micros = self.micros(situation) if callable(self.micros) else self.micros
        return tuple(
            Forecast(
                rung=one.rung,
                p_success=one.p_success,
                p_accept=one.p_accept,
                output_tokens=one.output_tokens,
                micros=micros[one.rung],
                seconds=one.seconds,
                spread=one.spread,
            )
            for one in self.inner.forecasts(situation)
        )

    def look(self, situation: Situation) -> Look | None:
        return look_of(self.inner, situation)

    def pairs(self, situation: Situation) -> Pairs | None:
        return pairs_of(self.inner, situation)

    def after(self, rung: Rung, decision: str, situation: Situation) -> PricedBelief:
        return PricedBelief(self.inner.after(rung, decision, situation), self.micros)


@dataclass(frozen=True, slots=True, eq=False)
class _Thought:
    """Costs of budgets of one thought: whole at first, then what is still to be thought."""

    at: Mapping[str, int]
    more: Floats
    whole: Mapping[str, float]

    @classmethod
    def of(cls, rungs: tuple[str, ...], costs: Costs, whole: Mapping[str, float]) -> _Thought | None:
        if costs.more is None:
            return None
        return cls({rung: k for k, rung in enumerate(rungs)}, MICROS * costs.more, whole)

    def micros(self, situation: Situation) -> Mapping[str, float]:
        looked = [attempt.rung.id for attempt in situation.attempts if attempt.reply is not None]
        if not looked:
            return self.whole
        reached = self.at[max(looked, key=lambda rung: self.whole[rung])]
        left: dict[str, float] = {rung: float(self.more[reached, k]) for rung, k in self.at.items()}
        # What was looked at is not bought again. Forecast as the whole thought, it keeps the unit of cost, and with it
        # what a token is worth, as it was.
        return left | dict.fromkeys(looked, max(self.whole.values()))


def joint(belief: Belief) -> Joint:
    """The belief, if it is joint. Raises TypeError."""
    if not hasattr(belief, "grid"):
        raise TypeError(f"{type(belief).__name__} has no joint grid")
    return belief  # type: ignore[return-value]  # just seen
