"""Exact one-sided bounds on a rate from failures among n independent trials (Clopper & Pearson 1934, Biometrika 26)."""

from __future__ import annotations

import math

import numpy as np

from governor.estimate.curves import Floats

_HALVINGS = 44  # of the interval in which a bound is sought: to 1e-13
_GROWTH = 1.02  # between numbers of trials tried


def at_most(failures: int, n: int, rate: float) -> float:
    """P(X <= failures) for X ~ Binomial(n, rate): the p-value of "the rate is at least `rate`"."""
    if not (0 <= failures <= n and 0.0 <= rate <= 1.0):
        raise ValueError(f"no binomial tail of {failures} failures in {n} trials at rate {rate}")
    return _tail(_log_choices(failures, n), n, rate)


def upper_bound(failures: int, n: int, delta: float) -> float:
    """The highest rate that the failures do not refute at level delta; 1 without trials or without a success."""
    if failures == n:
        return 1.0
    choices = _log_choices(failures, n)
    low, high = failures / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(choices, n, middle) > delta else (low, middle)
    return high


def most_failures(n: int, rate: float, delta: float) -> int:
    """The most failures among n trials that still certify a rate of at most `rate`; -1 where not even 0 do."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(middle, n, rate) <= delta else (low, middle)
    return low


def trials_needed(share: float, rate: float, delta: float, limit: int = 1_000_000) -> int | None:
    """About how many trials certify `rate` if a share `share` of them fails; None where more than `limit` would."""
    if share >= rate:
        return None
    n = max(1, math.ceil(math.log(delta) / math.log1p(-rate)))
    while n <= limit:
        if at_most(math.ceil(share * n), n, rate) <= delta:
            return n
        n = math.ceil(n * _GROWTH)
    return None


def _log_choices(failures: int, n: int) -> Floats:
    """The logarithm of C(n, i) for i = 0 .. failures."""
    i = np.arange(failures, dtype=np.float64)
    return np.concatenate(([0.0], np.cumsum(np.log((n - i) / (i + 1.0)))))


def _tail(choices: Floats, n: int, rate: float) -> float:
    if choices.size == n + 1 or rate == 0.0:
        return 1.0
    if rate == 1.0:
        return 0.0
    odds = math.log(rate / (1.0 - rate))
    logs = choices + n * math.log1p(-rate) + odds * np.arange(choices.size)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))
