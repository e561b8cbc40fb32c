"""How sure the figures are: paired bootstraps over questions, the same resamples for every method.

A question is drawn with all its samples and all its rungs, so that what a method shares with the fixed rungs, or with
another method, cancels. Forecasts are not refitted: the intervals speak of the questions, not of the training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.frontier import Curve, Fixed, area_between, c_share, hull

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Resamples:
    """Weights of Q questions in B bootstrap resamples, shape (B, Q); each row sums to 1."""

    weights: Floats

    @classmethod
    def draw(cls, questions: int, count: int = 300, seed: int = 0) -> Resamples:
        """`count` multinomial resamples of so many questions."""
        rng = np.random.default_rng(seed)
        weights = np.empty((count, questions))
        for row in weights:
            row[:] = np.bincount(rng.integers(questions, size=questions), minlength=questions)
        return cls(weights / questions)

    def means(self, figures: Floats) -> Floats:
        """Mean of per-question figures, shape (N, Q), in every resample: (B, N)."""
        means: Floats = self.weights @ figures.T
        return means


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What one method did with each question: cost and accuracy, shape (D, Q), at each of D dials; nothing is NaN.

    A question's figures are means over its samples, so that every question weighs 1.
    """

    cost: Floats
    accuracy: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Percentile intervals (low, high) of a method's figures; None where the figure itself is None."""

    c98: Interval | None
    c100: Interval | None
    area: Interval
    area_vs_rival: Interval | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Resampled fixed rungs of one ladder, ready to judge any number of methods.

    Made by `of` from the rungs' per-question figures, shape (K, Q). Which rung is best and which is cheapest is fixed
    once, on all questions; what they cost and reach is resampled.
    """

    resamples: Resamples
    cost: Floats
    accuracy: Floats
    cheapest: int
    best: int
    hulls: tuple[Curve, ...]

    @classmethod
    def of(cls, rungs: Fixed, fixed: Spread, resamples: Resamples) -> Bootstrap:
        """`rungs` on all questions decides which are best and cheapest; `fixed` is (K, Q)."""
        cost, accuracy = resamples.means(fixed.cost), resamples.means(fixed.accuracy)
        hulls = tuple(hull(c, a) for c, a in zip(cost, accuracy, strict=True))
        return cls(resamples, cost, accuracy, rungs.cheapest, rungs.best, hulls)

    def areas(self, method: Spread) -> Floats:
        """Area over the hull in every resample, (B,): points of accuracy."""
        return self._areas(self._curves(method))

    def intervals(self, method: Spread, rival_areas: Floats | None = None, level: float = 0.95) -> Intervals:
        """Of c98, c100, area, and of the area's lead over a rival's `areas` on the same resamples."""
        curves = self._curves(method)
        areas = self._areas(curves)
        return Intervals(
            c98=_interval(self._shares(curves, 0.98), level),
            c100=_interval(self._shares(curves, 1.0), level),
            area=_percentiles(areas, level),
            area_vs_rival=None if rival_areas is None else _percentiles(areas - rival_areas, level),
        )

    def _curves(self, method: Spread) -> list[Curve]:
        cost = np.concatenate((self.resamples.means(method.cost), self.cost), axis=1)
        accuracy = np.concatenate((self.resamples.means(method.accuracy), self.accuracy), axis=1)
        return [hull(c, a) for c, a in zip(cost, accuracy, strict=True)]

    def _areas(self, curves: list[Curve]) -> Floats:
        low, high = self.cost[:, self.cheapest].tolist(), self.cost[:, self.best].tolist()
        drawn = zip(curves, self.hulls, low, high, strict=True)
        return np.array([area_between(upper, lower, x0, x1) for upper, lower, x0, x1 in drawn])

    def _shares(self, curves: list[Curve], of_best: float) -> list[float | None]:
        reach, pay = of_best * self.accuracy[:, self.best], self.cost[:, self.best]
        drawn = zip(curves, reach.tolist(), pay.tolist(), strict=True)
        return [c_share(curve, target, cost) for curve, target, cost in drawn]


def hull_intervals(bootstrap: Bootstrap) -> Intervals:
    """How sure the hull's own c98 and c100 are; its area over itself is 0."""
    nothing = np.empty((0, bootstrap.resamples.weights.shape[1]))
    return bootstrap.intervals(Spread(nothing, nothing))


def _interval(figures: list[float | None], level: float) -> Interval | None:
    known = [figure for figure in figures if figure is not None]
    return _percentiles(np.array(known), level) if len(known) == len(figures) else None


def _percentiles(figures: Floats, level: float) -> Interval:
    low, high = np.quantile(figures, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return float(low), float(high)
