"""Why limits refuse: spent, held by others, or too small even when empty. The gravest reason of all is the one told."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from governor.errors import BudgetExceededError, RefusalKind
from governor.ledger.sums import DIMENSIONS, Figures, Sums, ceilings
from governor.records import Amount, Limit

UNBOUNDED = sys.maxsize
BUSY_SECONDS = 1.0
"""What a caller is told to wait where others hold the rest: holds of model calls end within seconds, not
milliseconds."""


def left(limits: Sequence[Limit], sums: Mapping[str, Sums]) -> Amount:
    """What could still be held under all limits together; UNBOUNDED in a dimension that none bounds."""
    room = [UNBOUNDED] * len(DIMENSIONS)
    for limit in limits:
        booked = sums[limit.scope]
        for place, ceiling in enumerate(ceilings(limit)):
            if ceiling is not None:
                free = ceiling - booked.spent[place] - booked.reserved[place]
                room[place] = min(room[place], max(0, free))
    return Amount(*room)


def refusal(
    whole: Figures,
    held: Mapping[str, Figures],
    own: bool,
    limits: Sequence[Limit],
    sums: Mapping[str, Sums],
    now: float,
) -> BudgetExceededError:
    """The error for a reservation that is to hold `whole`.

    `held` is what it weighs on each scope by now: on what is reserved where it is its `own` open hold, else on what is
    spent.
    """
    found = [
        _refused(limit, place, whole[place], held[limit.scope][place], own, sums[limit.scope], now)
        for limit in limits
        for place, ceiling in enumerate(ceilings(limit))
        if ceiling is not None and _passes(sums[limit.scope], place, whole[place] - held[limit.scope][place], ceiling)
    ]
    gravest = max(found, key=_gravity)
    gravest.left = left(limits, sums)
    return gravest


def _passes(booked: Sums, place: int, more: int, ceiling: int) -> bool:
    return more > 0 and booked.spent[place] + booked.reserved[place] + more > ceiling


def _refused(
    limit: Limit, place: int, whole: int, held: int, own: bool, booked: Sums, now: float
) -> BudgetExceededError:
    ceiling = ceilings(limit)[place] or 0
    spent_by_others = booked.spent[place] - (0 if own else held)
    kind: RefusalKind = "budget_busy"
    resets: float | None = None
    wait: float | None = BUSY_SECONDS
    if whole > ceiling:
        kind, wait = "too_large", None
    elif spent_by_others + whole > ceiling:
        kind = "budget_exceeded"
        resets = booked.room_at(place, spent_by_others + whole - ceiling)
        wait = None if resets is None else max(0.0, resets - now)
    return BudgetExceededError(
        limit.scope,
        DIMENSIONS[place],
        ceiling,
        whole - held,
        kind=kind,
        resets=resets,
        retry_after=wait,
        others=booked.reserved[place] - (held if own else 0),
    )


_GRAVITY: dict[RefusalKind, int] = {"too_large": 2, "budget_exceeded": 1, "budget_busy": 0}


def _gravity(refused: BudgetExceededError) -> tuple[int, float]:
    never = refused.kind == "budget_exceeded" and refused.resets is None
    return _GRAVITY[refused.kind], float("inf") if never else refused.resets or 0.0
