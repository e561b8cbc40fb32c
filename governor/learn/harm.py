"""Does a method do harm? Its own points against random mixing of fixed rungs, without their help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.frontier import hull
from governor.learn.intervals import Interval, Resamples, Spread


@dataclass(frozen=True, slots=True)
class Lead:
    """Points of accuracy over the hull at the same cost, mean over all dials, and its 95 % interval.

    An `area` can't fall below 0, as the fixed rungs are part of every curve; this can.
    """

    points: float
    interval: Interval


def lead(method: Spread, fixed: Spread, resamples: Resamples) -> Lead:
    """Of a method's figures (D, Q) over the fixed rungs' (K, Q); the hull is drawn anew in each resample.

    A dial cheaper than the cheapest rung is held against that rung.
    """
    everyone = Resamples(np.full((1, fixed.cost.shape[1]), 1.0 / fixed.cost.shape[1]))
    (points,) = _leads(method, fixed, everyone).tolist()
    low, high = np.quantile(_leads(method, fixed, resamples), (0.025, 0.975)).tolist()
    return Lead(points, (low, high))


def _leads(method: Spread, fixed: Spread, resamples: Resamples) -> Floats:
    means = (resamples.means(figures) for figures in (method.cost, method.accuracy, fixed.cost, fixed.accuracy))
    return np.array([_lead(*drawn) for drawn in zip(*means, strict=True)])


def _lead(cost: Floats, accuracy: Floats, rung_cost: Floats, rung_accuracy: Floats) -> float:
    bar = hull(rung_cost, rung_accuracy)
    return 100.0 * float((accuracy - np.interp(cost, bar.cost, bar.accuracy)).mean())
