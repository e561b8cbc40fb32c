"""Does a method do harm? Its own points against random mixing of fixed rungs, without their help."""

from __future__ import annotations

from collections.abc import Callable
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
    return _told(lambda drawn: _leads(method, fixed, drawn), resamples)


def lead_over(method: Spread, control: Spread, fixed: Spread, resamples: Resamples) -> Lead:
    """By how much a method's lead exceeds another's, whose dials need not cost the same: each is held against the hull.

    The hull is drawn on the questions that it judges, so that what was learned elsewhere, however rightly, lies below
    it; a control that knows nothing of questions falls short by as much.
    """
    return _told(lambda drawn: _leads(method, fixed, drawn) - _leads(control, fixed, drawn), resamples)


def _told(points: Callable[[Resamples], Floats], resamples: Resamples) -> Lead:
    questions = resamples.weights.shape[1]
    (whole,) = points(Resamples(np.full((1, questions), 1.0 / questions))).tolist()
    low, high = np.quantile(points(resamples), (0.025, 0.975)).tolist()
    return Lead(whole, (low, high))


def _leads(method: Spread, fixed: Spread, resamples: Resamples) -> Floats:
    means = (resamples.means(figures) for figures in (method.cost, method.accuracy, fixed.cost, fixed.accuracy))
    return np.array([_lead(*drawn) for drawn in zip(*means, strict=True)])


def _lead(cost: Floats, accuracy: Floats, rung_cost: Floats, rung_accuracy: Floats) -> float:
    bar = hull(rung_cost, rung_accuracy)
    return 100.0 * float((accuracy - np.interp(cost, bar.cost, bar.accuracy)).mean())
