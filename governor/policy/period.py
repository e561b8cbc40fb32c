"""The windows of a budget: what a period is called, when it ends, and which spend a limit of it counts."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeAlias, cast

from governor.records import Window

Per: TypeAlias = Literal["minute", "hour", "day", "week", "month", "total"]

SESSION_IDLE = 30 * 86_400.0
"""Seconds after which the sums of a session, or of a run, that nobody went on with may be forgotten."""

PERIOD_IDLE = 35 * 86_400.0
"""Seconds for which the sums of a period are kept after their last booking, for whoever wants to look back."""

_NAMES = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
"""The names of a period, in UTC: 2026-11-21T14:05, 2026-11-21T14, 2026-11-21, 2026-W47 (ISO 8601), 2026-11."""

_SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
"""Widths of the windows that slide: a sliding month has 30 days."""

STEP = Window(idle=0.0)
SESSION = RUN = Window(idle=SESSION_IDLE)
TOTAL = Window()


def span(per: str, when: float) -> tuple[float, float]:
    """When the period that `when` falls into begins and ends, all POSIX seconds: `span("day", 5) == (0, 86_400)`."""
    begun = _begin(per, datetime.fromtimestamp(when // 60 * 60, UTC))
    return begun.timestamp(), _end(per, begun).timestamp()


def window(per: str, when: float) -> str:
    """Name of the period that `when` (POSIX seconds) falls into: `window("day", 0) == "1970-01-01"`."""
    return fixed(per, when)[0]


def placed(scope: str, per: Per, sliding: bool, when: float) -> tuple[str, Window]:
    """The scope's full key and window at `when`: `app:x@2026-11-21`, sliding `app:x~day`, in total `app:x`."""
    if per == "total":
        return scope, TOTAL
    if sliding:
        return f"{scope}~{per}", _sliding(per)
    name, counted = fixed(per, when)
    return f"{scope}@{name}", counted


def fixed(per: str, when: float) -> tuple[str, Window]:
    """Name and window of the period that `when` (POSIX seconds) falls into."""
    return _fixed(per, int(when // 60))


@lru_cache(maxsize=64)
def _fixed(per: str, minutes: int) -> tuple[str, Window]:
    begun = _begin(per, datetime.fromtimestamp(minutes * 60, UTC))
    return begun.strftime(_NAMES[per]), Window(until=_end(per, begun).timestamp(), idle=PERIOD_IDLE)


def period_of(scope: str) -> tuple[Per, float] | None:
    """The calendar period at the end of a scope's key, and when it began (POSIX seconds); None where it has none."""
    name = scope.rpartition("@")[2]
    for per, form in _NAMES.items():
        first = ("-1", "-%u") if per == "week" else ("", "")  # a week is parsed by its Monday
        with suppress(ValueError):
            begun = datetime.strptime(name + first[0], form + first[1]).replace(tzinfo=UTC)
            if begun.strftime(form) == name:
                return cast("Per", per), begun.timestamp()
    return None


def slides(scope: str) -> Per | None:
    """The width of the sliding window at the end of a scope's key; None where it has none."""
    per = scope.rpartition("~")[2] if "~" in scope else ""
    return cast("Per", per) if per in _SECONDS else None


def window_of(scope: str) -> Window:
    """The window that the key of a policy's scope names: the inverse of `placed`."""
    if scope.startswith(("step:", "session:", "run:")):
        return STEP if scope.startswith("step:") else SESSION
    if (per := slides(scope)) is not None:
        return _sliding(per)
    known = period_of(scope)
    return TOTAL if known is None else fixed(*known)[1]


def _begin(per: str, moment: datetime) -> datetime:
    """When the period of a moment, which is a whole minute, began."""
    if per == "minute":
        return moment
    hour = moment.replace(minute=0)
    if per == "hour":
        return hour
    day = hour.replace(hour=0)
    if per == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if per == "week" else day


def _end(per: str, begun: datetime) -> datetime:
    """When the period that began then is over."""
    if per == "month":
        return (begun + timedelta(days=32)).replace(day=1)
    return begun + timedelta(seconds=_SECONDS[per])


@lru_cache(maxsize=8)
def _sliding(per: str) -> Window:
    return Window(sliding=float(_SECONDS[per]))
