"""What a replay found over its seeds: medians, pooled curves, intervals, and how they are written down.

Every figure is the median over the seeds' own. The curve that is shown, the fixed rungs, and the intervals are of each
question's means over the seeds; with one seed these are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, TypeVar

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.frontier import Curve, Deployed, Fixed, Measures, c_share, fixed, hull
from governor.learn.harm import Lead, lead, lead_over
from governor.learn.intervals import Bootstrap, Intervals, Resamples, Spread
from governor.learn.ladder import Ladder
from governor.learn.replay import CONTROL, Detail, Method, Run
from governor.learn.scores import Scores

_RIVAL = "tfidf"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figures:
    """One method over all seeds. `spread` (D, Q) holds means over seeds, whose `intervals` and `lead` these are.

    `over_mixing` is the lead over random mixing learned on the same folds, None where that was not replayed.
    The rest are medians, None as in a run.
    """

    spread: Spread
    measures: Measures
    intervals: Intervals
    lead: Lead
    over_mixing: Lead | None
    deployed: Deployed | None
    scores: Scores | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Everything that a replay says. A method is None where it can't be had on such a ladder."""

    ladder: Ladder
    seeds: tuple[int, ...]
    items: int
    questions: int
    rungs: Fixed
    methods: Mapping[str, Figures | None]
    detail: Detail | None = None
    microseconds: float | None = None

    @property
    def hull(self) -> Curve:
        """Random mixing of the fixed rungs."""
        return hull(self.rungs.cost, self.rungs.accuracy)

    def hull_share(self, of_best: float) -> float | None:
        """Relative cost at which random mixing reaches this share of the best rung's accuracy."""
        best = self.rungs.best
        return c_share(self.hull, of_best * float(self.rungs.accuracy[best]), float(self.rungs.cost[best]))


def report(ladder: Ladder, runs: Iterable[Run], *, timings: bool = False, resamples: int = 300) -> Report:
    """All seeds as one; of each run, taken one at a time, only sums are kept. Raises ValueError for none."""
    pool = _Pool()
    for one in runs:
        pool.add(one)
    rungs = fixed(pool.rungs, pool.fixed.cost, pool.fixed.accuracy)
    draws = Resamples.draw(pool.fixed.cost.shape[1], resamples, pool.seeds[0])
    bootstrap = Bootstrap.of(rungs, pool.fixed, draws)
    areas = bootstrap.areas(pool.spread(_RIVAL)) if _RIVAL in pool.sums else None
    return Report(
        ladder=ladder,
        seeds=tuple(pool.seeds),
        items=pool.items,
        questions=pool.fixed.cost.shape[1],
        rungs=rungs,
        methods={name: pool.figures(name, bootstrap, areas) for name in pool.methods},
        detail=_median_of(Detail, pool.details),
        microseconds=1e6 * median(pool.seconds) if timings else None,
    )


@dataclass(slots=True)
class _Pool:
    """Runs summed up. Mutable, owned by `report`."""

    seeds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    details: list[Detail | None] = field(default_factory=list)
    methods: dict[str, list[Method | None]] = field(default_factory=dict)
    sums: dict[str, Spread] = field(default_factory=dict)
    rungs: tuple[str, ...] = ()
    items: int = 0

    def add(self, run: Run) -> None:
        self.seeds.append(run.seed)
        self.seconds.append(run.seconds)
        self.details.append(run.detail)
        self.rungs, self.items = run.rungs.rungs, run.items
        self._sum(_FIXED, run.fixed)
        for name, method in run.methods.items():
            self.methods.setdefault(name, []).append(None if method is None else replace(method, spread=_NOTHING))
            if method is not None:
                self._sum(name, method.spread)

    def _sum(self, name: str, more: Spread) -> None:
        before = self.sums.get(name)
        if before is not None:
            more = Spread(before.cost + more.cost, before.accuracy + more.accuracy)
        self.sums[name] = more

    @property
    def fixed(self) -> Spread:
        """The fixed rungs, (K, Q)."""
        if not self.seeds:
            raise ValueError("no run to report")
        return self.spread(_FIXED)

    def spread(self, name: str) -> Spread:
        """Means over the seeds."""
        total = self.sums[name]
        return Spread(total.cost / len(self.seeds), total.accuracy / len(self.seeds))

    def figures(self, name: str, bootstrap: Bootstrap, rival_areas: Floats | None) -> Figures | None:
        """The method's medians and intervals; None where any seed could not run it."""
        runs = [method for method in self.methods[name] if method is not None]
        if len(runs) < len(self.seeds):
            return None
        spread, fixed, draws = self.spread(name), self.fixed, bootstrap.resamples
        control = self.spread(CONTROL) if CONTROL in self.sums else None
        return Figures(
            spread=spread,
            measures=_medians(Measures, [method.measures for method in runs]),
            intervals=bootstrap.intervals(spread, None if name == _RIVAL else rival_areas),
            lead=lead(spread, fixed, draws),
            over_mixing=None if control is None else lead_over(spread, control, fixed, draws),
            deployed=_median_of(Deployed, [method.deployed for method in runs]),
            scores=_median_of(Scores, [method.scores for method in runs]),
        )


_FIXED = "fixed"
_NOTHING = Spread(np.empty((0, 0)), np.empty((0, 0)))

T = TypeVar("T")


def _median_of(kind: type[T], values: Sequence[T | None]) -> T | None:
    """Field by field; None where any is None."""
    known = [value for value in values if value is not None]
    return _medians(kind, known) if len(known) == len(values) else None


def _medians(kind: type[T], values: Sequence[T]) -> T:
    """Field by field over dataclasses; a field that is no number is the first one's, None where any is None."""
    return kind(**{name: _median([getattr(value, name) for value in values]) for name in kind.__slots__})  # type: ignore[attr-defined]  # dataclasses with slots


def _median(values: Sequence[Any]) -> Any:
    if any(value is None for value in values):
        return None
    return median(values) if isinstance(values[0], float) else values[0]
