"""Balances that records come to: what a ledger that lost its books is rebuilt from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from governor.ledger.admission import NOTHING
from governor.policy.period import window_of
from governor.protocols import Balance
from governor.records import Amount
from governor.telemetry.spend import Ending, Spend, kept, told_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What every scope has spent by the records, and the steps whose spend they don't place, with the reason."""

    balances: tuple[Balance, ...]
    outcomes: int
    unplaced: tuple[tuple[str, str], ...]


def restored(records: Iterable[Mapping[str, Any]], now: float) -> Restored:
    """Add up record lines per scope, at `now` (seconds since the epoch).

    Scopes that a ledger would have forgotten by now are left out, and what has left a sliding window.
    """
    told = told_by(records)
    spent: dict[str, Amount] = {}
    unplaced: list[tuple[str, str]] = []
    for step in told.steps.values():
        if why := _unplaced(step, told.steps.get(step.parent)):
            unplaced.append((step.key, why))
        for scope, ending in _bookings(step):
            if ending.time + kept(scope) > now and _counts(scope, ending.time, now):
                spent[scope] = spent.get(scope, NOTHING) + ending.spent
    balances = (Balance(scope=scope, spent=spent[scope], window=window_of(scope)) for scope in sorted(spent))
    return Restored(balances=tuple(balances), outcomes=told.outcomes, unplaced=tuple(unplaced))


def _unplaced(step: Spend, whole: Spend | None) -> str:
    """Why some of a step's spend is booked nowhere; empty if all of it is, be it by the step that it is a part of."""
    if step.parent and not any(ending.scopes for ending in step.endings):
        ended = whole is not None and whole.endings
        return step.broken or ("" if ended else f"it is a part of '{step.parent}', which has no outcome")
    if not step.endings and not step.broken:
        used = step.recounted
        return f"no outcome: its attempts used {used.tokens} tokens, {used.micros} micro-USD"
    unstated = any(ending.scopes is None for ending in step.endings)
    return step.apart or ("its outcome does not state its scopes" if unstated else "")


def _bookings(step: Spend) -> Iterable[tuple[str, Ending]]:
    return ((scope, ending) for ending in step.endings for scope in ending.scopes or ())


def _counts(scope: str, time: float, now: float) -> bool:
    """Whether spend of `time` still counts; it counts from `now` on then, so never too short."""
    sliding = window_of(scope).sliding
    return sliding is None or time > now - sliding
