"""Repetition: the same pattern of tokens again and again at the end of a text, the surest sign of being stuck."""

from __future__ import annotations

from governor.stops.arrays import Array, Namespace, flag


def repeated(xp: Namespace, recent: Array, runs: Array, token: Array, counted: Array) -> tuple[Array, Array]:
    """The last tokens (rows, periods), newest first, and the runs, one token later.

    `runs[row, p - 1]` is for how many tokens each was equal to the one `p` before it. Rows that are not `counted` (0)
    stay as they are: what was forced upon the model is no repetition of its own.
    """
    taken = (counted > 0)[:, None]
    equal = recent == token[:, None]
    longer = (runs + 1.0) * flag(xp, equal)
    pushed = xp.concatenate([token[:, None], recent[:, :-1]], 1)
    return xp.where(taken, pushed, recent), xp.where(taken, longer, runs)


def stuck(xp: Namespace, runs: Array, periods: Array, times: Array, longest: Array, least: Array) -> Array:
    """Whether some pattern of at most `longest` tokens stands there `times` in a row, over `least` tokens or more.

    `periods` is 1, 2, ... for the columns of `runs`. A pattern of p tokens that stands there n times has a run of
    (n - 1) p.
    """
    needed = xp.maximum((times[:, None] - 1.0) * periods, least[:, None] - periods)
    return ((runs >= needed) & (periods <= longest[:, None])).any(-1)
