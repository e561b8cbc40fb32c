"""Raw log-odds -> calibrated ones: as much of a forecast as held-out outcomes bear out, else the base rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid

POOLING = 60.0
"""Precision with which a rung's slope is held to the slope of all rungs, beside one question a group."""

NOTHING = 2.0
"""Standard errors by which held-out log loss, over all rungs, must beat the base rates'; else nothing is known."""

STEEPEST = 1.5
"""Slopes beyond are not believed: forecasts that are further from the mean than held-out ones ever were."""

_STEPS = 30
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Shrinkage:
    """Calibrated log-odds are `level + slope * (raw - centre)` per rung (K,); slope 0 where nothing is known."""

    centre: Floats
    slope: Floats
    level: Floats

    def applied(self, raw: Floats) -> Floats:
        """Calibrated log-odds of raw ones (..., K)."""
        result: Floats = self.level + self.slope * (raw - self.centre)
        return result


def shrinkage(raw: Floats, y: Floats, weight: Floats, groups: Floats) -> Shrinkage:
    """Fit levels and slopes on held-out forecasts.

    `raw` log-odds, `y` outcomes in 0..1 and `weight` are (Q, K), `groups` (Q,) numbers what must be seen together:
    whether the features carry anything is judged over groups, since questions of one group are alike.
    """
    count = np.maximum(weight.sum(axis=0), 1.0)
    centre = (raw * weight).sum(axis=0) / count
    moved = raw - centre
    alike = len(groups) / max(len(np.unique(groups)), 1)
    level, slope = _fitted(moved, y, weight, POOLING * alike)
    rate = (y * weight).sum(axis=0) / count
    flat = _log_odds((rate * count + 0.5) / (count + 1.0))
    gained = weight * (_log_loss(flat, y) - _log_loss(level + slope * moved, y))
    blind = (gained.sum(axis=0) <= 0.0) | (slope <= 0.0) | (not _tells(gained.sum(axis=1), groups))
    blind |= (rate <= 0.0) | (rate >= 1.0)  # one outcome only: its level has no bound
    return Shrinkage(centre, np.where(blind, 0.0, slope), np.where(blind, flat, level))


def _fitted(moved: Floats, y: Floats, weight: Floats, pooling: float) -> tuple[Floats, Floats]:
    """Newton's method on levels (K,), one shared slope and deviations from it (K,), which a ridge holds to 0."""
    rungs = moved.shape[1]
    theta = np.zeros(2 * rungs + 1)
    theta[rungs] = 1.0
    for _ in range(_STEPS):
        gradient, curvature = np.zeros(2 * rungs + 1), np.diag(np.full(2 * rungs + 1, _RIDGE))
        for k in range(rungs):
            p = sigmoid(theta[k] + (theta[rungs] + theta[rungs + 1 + k]) * moved[:, k])
            x = np.column_stack([np.ones(len(p)), moved[:, k], moved[:, k]])
            at = [k, rungs, rungs + 1 + k]
            gradient[at] += x.T @ (weight[:, k] * (y[:, k] - p))
            curvature[np.ix_(at, at)] += (x * (weight[:, k] * p * (1.0 - p))[:, None]).T @ x
        deviations = slice(rungs + 1, None)
        gradient[deviations] -= pooling * theta[deviations]
        curvature[deviations, deviations] += pooling * np.eye(rungs)
        step = np.linalg.solve(curvature, gradient)
        theta += np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    wanted = theta[rungs] + theta[rungs + 1 :]
    slope = np.clip(wanted, 0.0, STEEPEST)
    return np.where(slope == wanted, theta[:rungs], _levels(moved, y, weight, slope)), slope


def _levels(moved: Floats, y: Floats, weight: Floats, slope: Floats) -> Floats:
    """The levels (K,) that fit best beside given slopes, by Newton's method."""
    level: Floats = np.zeros(len(slope))
    for _ in range(_STEPS):
        p = sigmoid(level + slope * moved)
        curvature = (weight * p * (1.0 - p)).sum(axis=0) + _RIDGE
        level = level + np.clip((weight * (y - p)).sum(axis=0) / curvature, -1.0, 1.0)
    return level


def _tells(gained: Floats, groups: Floats) -> bool:
    """Whether what each question gains (Q,) is more than NOTHING standard errors in all, over groups."""
    each = np.bincount(groups.astype(np.intp), gained)
    return float(each.sum()) > NOTHING * max(float(np.sqrt((each**2).sum())), 1e-12)


def _log_loss(odds: Floats, y: Floats) -> Floats:
    result: Floats = np.logaddexp(0.0, odds) - y * odds
    return result


def _log_odds(p: Floats) -> Floats:
    result: Floats = np.log(p / (1.0 - p))
    return result
