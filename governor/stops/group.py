"""Group confidence: a trace whose sliding mean of confidence falls below a threshold (DeepConf, arXiv 2508.15260)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from governor.stops.arrays import Array, Namespace, flag, index

CEILING = 100.0
"""Most that one alternative counts for: a masked token has no finite log-probability."""


@dataclass(frozen=True, slots=True)
class Group:
    """State (rows,): the sum over the window, the tokens that entered it so far, the lowest mean of a full window."""

    total: Array
    entered: Array
    lowest: Array


def confidence(xp: Namespace, logprobs: Array, top: Array, ranks: Array) -> Array:
    """Token confidence `C = -(1/k) sum over the top k of ln p_j` (equation 2). Higher is surer; it depends on k.

    `logprobs` (rows, alternatives) fall from left to right, k is `top` (rows,), `ranks` is 0, 1, ...
    """
    among = flag(xp, ranks[None, :] < top[:, None])
    return -(logprobs.clip(-CEILING) * among).sum(-1) / among.sum(-1)


def entered(xp: Namespace, group: Group, value: Array, leaving: Array, window: Array, counted: Array) -> Group:
    """The window one token later (equation 3). `leaving` is the value that entered `window` tokens ago.

    Rows that are not `counted` (0) stay as they are, even where the value is no number.
    """
    full = flag(xp, group.entered >= window)
    total = group.total + xp.where(counted > 0, value - leaving * full, 0.0)
    count = group.entered + counted
    mean = total / window
    lower = (count >= window) & (mean < group.lowest)
    return Group(total, count, xp.where(lower, mean, group.lowest))


def next_place(xp: Namespace, group: Group, window: Array) -> Array:
    """Where in the window (rows,) the next token's confidence is kept, and the one that leaves stands."""
    return index(xp, group.entered % window)


def low(group: Group, window: Array, threshold: Array) -> Array:
    """Whether a full window's mean is below the threshold s (section 3.3, online thinking)."""
    return (group.entered >= window) & (group.total / window < threshold)


def warm_threshold(lowest: Sequence[float], keep: float = 0.9) -> float:
    """The threshold that this share of warm-up traces would have passed, from each one's lowest group confidence.

    DeepConf-high keeps 0.9, DeepConf-low 0.1, of 16 warm-up traces (section 3.3). ValueError without traces.
    """
    if not lowest or not 0.0 < keep < 1.0:
        raise ValueError("a threshold needs warm-up traces, and a share between 0 and 1 to keep")
    return float(np.percentile(lowest, 100.0 * (1.0 - keep)))
