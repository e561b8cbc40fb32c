"""What a verifier's score tells of an answer and of the rungs above it, from records."""

from __future__ import annotations

import numpy as np

from governor.estimate.calibration import Scores
from governor.estimate.curves import Floats
from governor.estimate.learned import logit, sigmoid

_RIDGE = 3.0
_STEPS = 25
_FEWEST = 20


def fit_scores(odds: Floats, y: Floats, score: Floats) -> Scores | None:
    """Shifts of log-odds by a score; None where nothing was scored.

    `odds` (Q, K) are calibrated held-out forecasts, `y` and `score` (Q, K, S) outcomes and scores of each sample, NaN
    where unknown. For every pair of rungs a logistic regression with the forecast as offset.
    """
    if np.isnan(score).all():
        return None
    rungs = odds.shape[1]
    z, centre, width = _standard(score)
    base, gain = np.zeros((rungs, rungs)), np.zeros((rungs, rungs))
    seen, passed = np.ones(rungs), np.ones(rungs)
    for i in range(rungs):
        if np.isnan(centre[i]):
            continue
        for j in range(rungs):
            base[i, j], gain[i, j] = _offset_fit(odds[:, j], y[:, j], z[:, i])
        seen[i], passed[i] = _parted(y[:, i], z[:, i])
    return Scores(base=base, gain=gain, centre=centre, width=width, seen=seen, passed=passed)


def _standard(score: Floats) -> tuple[Floats, Floats, Floats]:
    raw = np.where(np.isnan(score), np.nan, logit(np.nan_to_num(score, nan=0.5)))
    rungs = score.shape[1]
    centre, width = np.full(rungs, np.nan), np.ones(rungs)
    for k in range(rungs):
        known = raw[:, k][~np.isnan(raw[:, k])]
        if len(known) >= _FEWEST:
            centre[k], width[k] = known.mean(), max(float(known.std()), 1e-3)
    z: Floats = np.clip((raw - centre[None, :, None]) / width[None, :, None], -3.0, 3.0)
    return z, centre, width


def _offset_fit(odds: Floats, y: Floats, z: Floats) -> tuple[float, float]:
    """Newton's method on `logit P = odds + base + gain z`, a ridge holding both to 0; samples of a question share 1."""
    offset = np.broadcast_to(odds[:, None], y.shape)
    known = ~np.isnan(y) & ~np.isnan(z)
    if known.sum() < _FEWEST:
        return 0.0, 0.0
    share = (1.0 / np.maximum(known.sum(axis=1, keepdims=True), 1) * known)[known]
    o, t, x = offset[known], y[known], np.column_stack([np.ones(int(known.sum())), z[known]])
    theta = np.zeros(2)
    for _ in range(_STEPS):
        p = sigmoid(o + x @ theta)
        gradient = x.T @ (share * (t - p)) - _RIDGE * theta
        curvature = (x * (share * p * (1.0 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        theta += np.clip(step, -1.0, 1.0)
    return float(theta[0]), float(theta[1])


def _parted(y: Floats, z: Floats) -> tuple[float, float]:
    """P(high | correct) and P(high | wrong) at the threshold that parts them best (Youden 1950)."""
    known = ~np.isnan(y) & ~np.isnan(z)
    right, high = y[known] >= 0.5, z[known]
    if right.sum() < _FEWEST or (~right).sum() < _FEWEST:
        return 1.0, 1.0
    best = (1.0, 1.0)
    for threshold in np.quantile(high, np.linspace(0.05, 0.95, 19)).tolist():
        seen = (float((high[right] >= threshold).mean()), float((high[~right] >= threshold).mean()))
        if seen[0] - seen[1] > best[0] - best[1]:
            best = seen
    return best
