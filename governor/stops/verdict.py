"""What the rules together say of a row: hold on, end, end as stuck, or go on thinking."""

from __future__ import annotations

from dataclasses import dataclass

from governor.stops.arrays import Array, Namespace
from governor.stops.phrases import AGAIN, BUDGET, GROUP, HOLD, MARGIN, REPEAT


@dataclass(frozen=True, slots=True)
class Findings:
    """What each rule found (rows,), as truth values.

    `free`: a thought may be ended here at all. `early`: not before the least amount was thought. `turning`: the model
    itself is about to end it, and has a phrase to go on with. `suspicious`: it is too sure, too soon.
    """

    free: Array
    early: Array
    due: Array
    repeating: Array
    low: Array
    sure: Array
    suspicious: Array
    turning: Array


def verdict(xp: Namespace, found: Findings) -> Array:
    """One code of `governor.stops.phrases` a row. A budget wins over doubt, and doubt over confidence.

    A suspicious row may not end as sure; nothing but its budget ends a row early.
    """
    mature = found.free & ~found.early
    code = xp.where(mature & found.sure & ~found.suspicious, MARGIN, HOLD)
    code = xp.where(mature & found.low, GROUP, code)
    code = xp.where(mature & found.repeating, REPEAT, code)
    code = xp.where(found.early & found.turning, AGAIN, code)
    return xp.where(found.free & found.due, BUDGET, code)
