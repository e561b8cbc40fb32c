"""Step confidence and its variance: the model hesitates, or is suspiciously sure (ReBalance, arXiv 2603.12372).

Only the paper's diagnosis: what it does about it needs hidden states. A step is the text between blank lines; the token
that completes the blank line closes it and does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from governor.stops.arrays import Array, Namespace, flag
from governor.stops.settings import MAX_STEPS


@dataclass(frozen=True, slots=True)
class Steps:
    """State (rows,): of the step that runs its summed `ln p_max` and tokens; steps done; the last diagnosis."""

    total: Array
    tokens: Array
    done: Array
    hesitant: Array
    sure: Array


@dataclass(frozen=True, slots=True)
class Edges:
    """The quadrant's edges (rows,) and how many steps the variance spans."""

    low_confidence: Array
    high_confidence: Array
    low_variance: Array
    high_variance: Array
    window: Array


def stepped(
    xp: Namespace, steps: Steps, recent: Array, top: Array, closing: Array, counted: Array, edges: Edges, ages: Array
) -> tuple[Steps, Array]:
    """The state one token later, and `recent`: the confidences of the last steps (rows, MAX_STEPS), newest first.

    `top` is `ln p_max` of the token's distribution, `c = exp(mean of it)` over a step (equation 1, geometric mean), `v`
    the variance of c over the last steps (equation 2). `ages` is 0 .. MAX_STEPS - 1.
    """
    closes = closing & (steps.tokens > 0) & (counted > 0)
    c = xp.exp(steps.total / steps.tokens.clip(1.0))
    pushed = xp.concatenate([c[:, None], recent[:, : MAX_STEPS - 1]], 1)
    recent = xp.where(closes[:, None], pushed, recent)
    done = steps.done + flag(xp, closes)
    v = variance(xp, recent, xp.minimum(done, edges.window), ages)
    known = closes & (done >= 2)
    hesitant = flag(xp, known & (c <= edges.low_confidence) & (v >= edges.high_variance))
    sure = flag(xp, known & (c >= edges.high_confidence) & (v <= edges.low_variance))
    running = flag(xp, ~closes)
    adds = counted * flag(xp, ~closing)
    return (
        Steps(
            (steps.total + xp.where(adds > 0, top, 0.0)) * running,
            (steps.tokens + adds) * running,
            done,
            xp.where(closes, hesitant, steps.hesitant),
            xp.where(closes, sure, steps.sure),
        ),
        recent,
    )


def variance(xp: Namespace, recent: Array, count: Array, ages: Array) -> Array:
    """Population variance of the newest `count` of `recent` (of two: a quarter of their squared difference)."""
    among = flag(xp, ages[None, :] < count[:, None])
    number = count.clip(1.0)
    mean = (recent * among).sum(-1) / number
    return (((recent - mean[:, None]) ** 2) * among).sum(-1) / number
