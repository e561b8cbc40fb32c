"""Where a forecast comes in: what replay asks of whatever learns from records, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

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


@dataclass(frozen=True, slots=True)
class Learned:
    """A Forecaster that fits a calibration (extra `learn`)."""

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        # By name and at call time: fitting loads what no other part needs.
        return _parts(import_module("governor.learn.fit").fit(table, ladder, seed=seed), table, ladder)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Forecaster whose calibration was fitted before."""

    calibration: Any

    @classmethod
    def load(cls, path: Path) -> Fitted:
        """Of a file that `governor fit` wrote. Raises CalibrationError."""
        return cls(import_module("governor.estimate.calibration").load_calibration(path))

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        del seed
        return _parts(self.calibration, table, ladder)


def _parts(calibration: Any, table: Table, ladder: Ladder) -> Parts:
    estimator = import_module("governor.estimate.learned").LearnedEstimator(calibration)
    checked = ladder.checking.cost > 0 or ladder.checking.kind == "agreement"
    if checked or ladder.unit in ("weight", "reported_usd"):  # costs that no price of tokens gives
        estimator = Priced(estimator, table.rungs, Costs.of(table, ladder))
    return Parts(estimator, calibration.prices, calibration.fitted_on)
