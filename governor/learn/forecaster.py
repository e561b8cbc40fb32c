"""Where a forecast comes in: what replay asks of whatever learns from records, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from governor.estimate import RuleEstimator
from governor.estimate.calibration import Calibration, load_calibration
from governor.estimate.learned import LearnedEstimator
from governor.learn.costs import Costs, Priced
from governor.learn.ladder import Ladder
from governor.learn.table import Table
from governor.plan.dial import Prices
from governor.plan.frontier import FrontierPrices


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What was learned: the estimator, and what dial and `keep` mean (None: the map set by hand).

    `fitted_on` are digests of the groups that were learned from (`certify.group_digest`).
    """

    estimator: Priced
    prices: Prices | None = None
    fitted_on: frozenset[str] = frozenset()


class Forecaster(Protocol):
    """Recorded outcomes -> parts that decide. `ladder.checking` says which verifier will judge."""

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts: ...


@dataclass(frozen=True, slots=True)
class Untrained:
    """A Forecaster that learns what rungs cost and nothing else: fixed rules, and ladders that rise with their cost."""

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        del seed
        return Parts(Priced(RuleEstimator(), table.rungs, Costs.of(table, ladder)))


@dataclass(frozen=True, slots=True)
class Learned:
    """A Forecaster that fits a calibration (extra `learn`)."""

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        # By name and at call time: fitting replays held-out questions itself, to say what the dial means.
        fitted: Calibration = import_module("governor.learn.fit").fit(table, ladder, seed=seed)
        return Fitted(fitted).fit(table, ladder, seed=seed)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Forecaster whose calibration was fitted before."""

    calibration: Calibration

    @classmethod
    def load(cls, path: Path) -> Fitted:
        """Of a file that `governor fit` wrote. Raises CalibrationError."""
        return cls(load_calibration(path))

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        """What the rungs cost is learned from this table, all else is known."""
        del seed
        known = self.calibration
        priced = Priced(LearnedEstimator(known), table.rungs, Costs.of(table, ladder))
        prices = FrontierPrices(known.frontier) if len(known.frontier.price) else None
        return Parts(priced, prices, known.fitted_on)
