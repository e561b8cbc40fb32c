"""Output tokens per rung from lengths of which some were cut: a log-normal regression that knows what a cap hides."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from governor.estimate.calibration import Lengths
from governor.estimate.curves import Floats
from governor.learn.table import Flags

_ROUNDS = 40  # cut lengths are filled in slowly: after 8, where 6 of 10 are cut, the mean is still a tenth low
_RIDGE = 20.0
_FEWEST = 20


def fit_lengths(places: Floats, tokens: Floats, finished: Flags) -> Lengths:
    """Accelerated failure time model with normal errors of log tokens (Tobit, Tobin 1958), by EM.

    `places` (Q, D) are what lengths may depend on, `tokens` (Q, K, S) lengths of each sample or NaN, `finished`
    (Q, K, S) False where a length was cut at its cap and so is only a lower bound. A rung with fewer than 20 lengths,
    or with none that is whole, is unknown (spread NaN).
    """
    rungs = tokens.shape[1]
    start, slope = np.zeros(rungs), np.zeros((places.shape[1], rungs))
    spread, whole = np.full(rungs, np.nan), np.ones(rungs)
    centre = places.mean(axis=0) if len(places) else np.zeros(places.shape[1])
    for k in range(rungs):
        question, sample = np.nonzero(~np.isnan(tokens[:, k]))
        done = finished[question, k, sample]
        if len(question) < _FEWEST or not done.any():
            continue
        whole[k] = done.mean()
        log_tokens = np.log(np.maximum(tokens[question, k, sample], 1.0))
        level, slope[:, k], spread[k] = _tobit(places[question] - centre, log_tokens, done)
        start[k] = level - centre @ slope[:, k]
    return Lengths(start=start, slope=slope, spread=spread, whole=whole)


def _tobit(x: Floats, log_tokens: Floats, done: npt.NDArray[np.bool_]) -> tuple[float, Floats, float]:
    """Level, slopes and standard deviation; each round fills in what a cut length would have come to."""
    square = x.T @ x + _RIDGE * np.eye(x.shape[1])
    filled: Floats = log_tokens.copy()
    level, spread = 0.0, 1.0
    slope: Floats = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        level = float(filled.mean())
        slope[:] = np.linalg.solve(square, x.T @ (filled - level))
        mean = level + x @ slope
        hidden = np.where(done, 0.0, spread**2)
        spread = math.sqrt(max(float(((filled - mean) ** 2 + _lost(mean, log_tokens, spread, hidden)).mean()), 1e-6))
        if done.all():
            break
        z = (log_tokens - mean) / spread
        filled[~done] = (mean + spread * _hazard(z))[~done]
    return level, slope, spread


def _lost(mean: Floats, cap: Floats, spread: float, hidden: Floats) -> Floats:
    """Variance left of a length that is known only to exceed its cap: `1 + z h - h^2` of the normal's."""
    z = (cap - mean) / spread
    h = _hazard(z)
    result: Floats = hidden * np.clip(1.0 + z * h - h * h, 0.0, 1.0)
    return result


def _hazard(z: Floats) -> Floats:
    """Density over upper tail of the standard normal (inverse Mills ratio)."""
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2.0)) for v in np.clip(z, -8.0, 8.0).tolist()])
    result: Floats = np.exp(-0.5 * np.clip(z, -8.0, 8.0) ** 2) / math.sqrt(2.0 * math.pi) / np.maximum(tail, 1e-300)
    return result
