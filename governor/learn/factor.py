"""How far rungs fail on the same questions: loadings of one latent difficulty, by marginal likelihood."""

from __future__ import annotations

import numpy as np

from governor.estimate.curves import Floats
from governor.estimate.learned import WEIGHTS, curves_of

GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Loadings tried; 0 = independent given the forecasts."""

EVIDENCE = 2.0
"""Log-likelihood by which a rung's loading must beat 0: beside rungs that share nothing any loading fits as well."""

_ROUNDS = 2
_QUESTIONS = 3000  # items enough to place a handful of loadings


def loadings(odds: Floats, y: Floats, weight: Floats) -> Floats:
    """Loading b_k of each rung (K,) in `sigmoid(a_k - b_k d)`, d ~ N(0, 1), with means `sigmoid(odds)` kept.

    `odds` (Q, K) are calibrated held-out forecasts, `y` outcomes in 0..1, `weight` 0 where nothing is recorded. One
    common loading first, then each rung's own by coordinate ascent.
    """
    odds, y, weight = odds[:_QUESTIONS], y[:_QUESTIONS], weight[:_QUESTIONS]
    rungs = odds.shape[1]
    if rungs < 2:
        return np.zeros(rungs)
    parts = {b: _by_rung(odds, y, weight, b) for b in GRID}
    best = np.full(rungs, max(GRID, key=lambda b: _likelihood(parts, np.full(rungs, b))))
    for _ in range(_ROUNDS):
        for k in range(rungs):
            tried = {b: _likelihood(parts, np.where(np.arange(rungs) == k, b, best)) for b in GRID}
            tried[0.0] += EVIDENCE
            best[k] = max(tried, key=lambda b: tried[b])
    return best


def _by_rung(odds: Floats, y: Floats, weight: Floats, loading: float) -> Floats:
    """Log-likelihood of each outcome at each difficulty, (K, Q, G)."""
    found = np.empty((odds.shape[1], len(odds), len(WEIGHTS)))
    for k in range(odds.shape[1]):
        p = np.clip(curves_of(odds[:, k], np.full(len(odds), loading)), 1e-6, 1.0 - 1e-6)
        at = y[:, k, None]
        found[k] = weight[:, k, None] * (at * np.log(p) + (1.0 - at) * np.log(1.0 - p))
    return found


def _likelihood(parts: dict[float, Floats], loading: Floats) -> float:
    total = sum((parts[float(b)][k] for k, b in enumerate(loading)), np.zeros(1))
    top = total.max(axis=1, keepdims=True)
    return float((np.log(np.exp(total - top) @ WEIGHTS) + top[:, 0]).sum())
