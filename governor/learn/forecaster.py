"""Where a forecast comes in: what replay asks of whatever learns from records, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from governor.estimate import RuleEstimator
from governor.learn.costs import Costs, Priced
from governor.learn.ladder import Ladder
from governor.learn.table import Table
from governor.plan.dial import Prices
from governor.protocols import Estimator


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What was learned: the estimator, and what dial and `keep` mean (None: the map set by hand).

    Its beliefs have a joint `grid` and forecast `micros` in millionths of the ladder's unit (`costs.Priced` sees to
    that). `fitted_on` are digests of the groups that were learned from (`certify.group_digest`).
    """

    estimator: Estimator
    prices: Prices | None = None
    fitted_on: frozenset[str] = frozenset()


class Forecaster(Protocol):
    """Recorded outcomes -> parts that decide. `ladder.checking` says which verifier will judge."""

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts: ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A Forecaster that learns nothing more: parts made before, told only what the ladder's rungs cost."""

    parts: Parts

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        del seed
        priced = Priced(self.parts.estimator, table.rungs, Costs.of(table, ladder))
        return Parts(priced, self.parts.prices, self.parts.fitted_on)


def untrained() -> Ready:
    """What decides where nothing was ever fitted: fixed rules, and ladders assumed to rise from cheap to dear."""
    return Ready(Parts(RuleEstimator()))
