"""Holds and sums as flat rows of text, integers and seconds: the same in every store that outlives its process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import Any

from governor.ledger.admission import Hold
from governor.ledger.sums import DIMENSIONS, Sums, booking, ceilings
from governor.records import Amount, Limit, Window

HOLD_COLUMNS = ("key", "state", *DIMENSIONS, "limits", "sent", "moment")

SUMMED = tuple(f"{part}_{dimension}" for part in ("spent", "reserved", "overshoot") for dimension in DIMENSIONS)
"""The integers among SUMS_COLUMNS."""

SUMS_COLUMNS = ("scope", *SUMMED, "expired", "refs", "touched", "since", "window", "grains", "due")
"""`window` and `grains` (with `gone`) are JSON; `due` is when the row may be forgotten, the only derived one."""

_SIZE = len(DIMENSIONS)


def sums_of(row: Sequence[Any]) -> Sums:
    """Sums from the values of SUMS_COLUMNS."""
    expired, references, touched, since, window, grains, _ = row[1 + 3 * _SIZE :]
    return Sums(
        row[0],
        _window(window),
        list(row[1 : 1 + _SIZE]),
        list(row[1 + _SIZE : 1 + 2 * _SIZE]),
        list(row[1 + 2 * _SIZE : 1 + 3 * _SIZE]),
        expired,
        references,
        touched,
        float("-inf") if since is None else since,
        *_grains(grains),
    )


def sums_row(sums: Sums) -> tuple[Any, ...]:
    """The values of SUMS_COLUMNS, all but the scope."""
    return (
        *sums.spent,
        *sums.reserved,
        *sums.overshoot,
        sums.expired,
        sums.references,
        sums.touched,
        None if sums.since == float("-inf") else sums.since,
        _window_text(sums.window),
        None if sums.grains is None else json.dumps([sums.gone, sums.grains], separators=(",", ":")),
        None if sums.references else sums.due,
    )


def hold_of(row: Sequence[Any]) -> Hold:
    """A hold from the values of HOLD_COLUMNS."""
    limits, sent, moment = row[2 + _SIZE :]
    held = Amount(*row[2 : 2 + _SIZE])
    return Hold(row[0], held, _limits(limits), row[1], bool(sent), moment, booking(held))


# Whoever asks again asks under the same limits: their texts are made, and read, once.
@lru_cache(maxsize=256)
def limits_text(limits: tuple[Limit, ...]) -> str:
    """The column of a hold's limits: JSON rows of scope, ceilings and window."""
    rows = [[limit.scope, *ceilings(limit), *astuple(limit.window)] for limit in limits]
    return json.dumps(rows, separators=(",", ":"))


@lru_cache(maxsize=256)
def _limits(text: str) -> tuple[Limit, ...]:
    return tuple(_limit(*row) for row in json.loads(text))


def _limit(scope: str, *rest: Any) -> Limit:
    """Rows of version 1 have four ceilings and no window."""
    return Limit(scope, **dict(zip(DIMENSIONS, rest, strict=False)), window=Window(*rest[_SIZE:]))


def _grains(text: str | None) -> tuple[dict[int, list[int]] | None, int | None]:
    if text is None:
        return None, None
    kept = json.loads(text)
    gone, grains = kept if isinstance(kept, list) else (None, kept)  # the latter before `gone` was kept
    return {int(grain): spent for grain, spent in grains.items()}, gone


@lru_cache(maxsize=256)
def _window_text(window: Window) -> str:
    return "" if window == Window() else json.dumps(astuple(window))


@lru_cache(maxsize=256)
def _window(text: str) -> Window:
    return Window(*json.loads(text)) if text else Window()
