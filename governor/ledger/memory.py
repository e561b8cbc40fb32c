"""memory:// - sums in this process, gone with it. Safe between threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from threading import Lock
from types import TracebackType
from typing import Any, TypeAlias

from governor.ledger.admission import NO_PAIRS, Hold
from governor.ledger.book import Page
from governor.ledger.sums import Sums, figures
from governor.records import Amount, Limit

Row: TypeAlias = tuple[Any, ...]
"""A hold that can't change any more: moment, key, state, sent, number of its limits, figures of its amount.

Nothing but texts and numbers, because there are many: what holds objects is walked by the garbage collector again and
again, which was a fourth of all work.
"""

SPARE = 64
"""Entries in the queue of leases, beside twice the open ones, at which the closed ones are taken out."""


@dataclass(slots=True)
class Under:
    """The limits of so many rows."""

    limits: tuple[Limit, ...]
    number: int
    rows: int = 0


class MemoryStore:
    """Implements Store and its Books: every check precedes the first write, so that nothing needs undoing.

    Holds are found by moment through queues with one entry each, which is checked when it comes up: the hold may have
    been touched since, or be gone.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._holds: dict[str, Hold] = {}  # open or expired
        self._rows: dict[str, Row] = {}  # settled or refunded
        self._under: dict[tuple[Limit, ...], Under] = {}
        self._numbered: dict[int, Under] = {}
        self._numbers = count()
        self._sums: dict[str, Sums] = {}
        self._leases: list[tuple[float, str]] = []
        self._leased: dict[str, float] = {}  # when each open lease comes up
        self._closed: deque[Row] = deque()  # the rows, and (moment, key) of expired ones
        self._due: list[tuple[float, str]] = []
        self._waiting: set[str] = set()
        self._pages: dict[str, Page] = {}
        self._versions = 0
        self.sums = self._sums.get

    def transaction(self, limits: Sequence[Limit] = (), /) -> MemoryStore:
        return self

    def __enter__(self) -> MemoryStore:
        self._lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def find(self, key: str) -> Hold | None:
        hold = self._holds.get(key)
        if hold is None and (row := self._rows.get(key)) is not None:
            return self._hold(row)
        return hold

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        if hold is not None:
            key = hold.key
            if hold.state == "open":
                self._holds[key] = hold
                if hold.moment < self._leased.get(key, inf):  # new, or renewed after the clock was turned back
                    self._lease(key, hold.moment)
            elif hold.state == "expired":
                self._closed.append((hold.moment, key))
            else:
                self._close(key, hold)
        for one in sums:
            self._sums[one.scope] = one
            if not one.references:
                self._wait(one)

    def overdue(self, since: float, most: int | None) -> list[Hold]:
        found: list[Hold] = []
        while self._leases and self._leases[0][0] <= since and (most is None or len(found) < most):
            moment, key = heappop(self._leases)
            if self._leased.get(key) != moment:
                continue
            del self._leased[key]
            hold = self._holds.get(key)
            if hold is None or hold.state != "open":
                continue
            if hold.moment > since:
                self._lease(key, hold.moment)
            else:
                found.append(hold)
        return found

    def closed(self, since: float, most: int) -> list[Hold]:
        found: dict[str, Hold] = {}  # by key: one that expired twice may have done so as of the same moment
        while self._closed and self._closed[0][0] <= since and len(found) < most:
            row = self._closed.popleft()
            moment, key = row[:2]
            hold = self._holds.get(key)
            if self._rows.get(key) is row:
                found[key] = self._hold(row)
            elif hold is not None and hold.state == "expired" and hold.moment == moment:
                found[key] = hold
        return list(found.values())

    def idle(self, now: float, most: int) -> list[str]:
        found: list[str] = []
        while self._due and self._due[0][0] <= now and len(found) < most:
            _, scope = heappop(self._due)
            self._waiting.discard(scope)
            sums = self._sums.get(scope)
            due = sums.due if sums else None
            if sums and due is not None and due > now:
                self._wait(sums)
            elif due is not None:
                found.append(scope)
        return found

    def forget(self, keys: Iterable[str], scopes: Iterable[str]) -> None:
        for key in keys:
            row = self._rows.pop(key, None)
            if row is None:
                del self._holds[key]
            else:
                self._drop(row)
        for scope in scopes:
            del self._sums[scope]

    def holds(self, prefix: str) -> list[Hold]:
        closed = [self._hold(row) for key, row in self._rows.items() if key.startswith(prefix)]
        return [*closed, *(hold for key, hold in self._holds.items() if key.startswith(prefix))]

    def booked(self, prefix: str) -> list[Sums]:
        return [sums for scope, sums in self._sums.items() if scope.startswith(prefix)]

    def _lease(self, key: str, moment: float) -> None:
        self._leased[key] = moment
        heappush(self._leases, (moment, key))
        if len(self._leases) > 2 * len(self._leased) + SPARE:
            self._leases = [(moment, key) for key, moment in self._leased.items()]
            heapify(self._leases)

    def _close(self, key: str, hold: Hold) -> None:
        limits = hold.limits
        under = self._under.get(limits)
        if under is None:
            under = self._under[limits] = Under(limits, next(self._numbers))
            self._numbered[under.number] = under
        under.rows += 1
        row = self._rows[key] = (hold.moment, key, hold.state, hold.sent, under.number, *figures(hold.amount))
        self._closed.append(row)
        del self._holds[key]
        self._leased.pop(key, None)

    def _hold(self, row: Row) -> Hold:
        moment, key, state, sent, number, *amount = row
        return Hold(key, Amount(*amount), self._numbered[number].limits, state, sent, moment, NO_PAIRS)

    def _drop(self, row: Row) -> None:
        under = self._numbered[row[4]]
        under.rows -= 1
        if not under.rows:
            del self._under[under.limits], self._numbered[under.number]

    def _wait(self, sums: Sums) -> None:
        due = sums.due
        if due is not None and sums.scope not in self._waiting:
            self._waiting.add(sums.scope)
            heappush(self._due, (due, sums.scope))

    def page(self, key: str) -> Page | None:
        return self._pages.get(key)

    def put(self, key: str, value: bytes, expires: float | None) -> None:
        self._versions += 1
        self._pages[key] = Page(value, self._versions, expires)

    def sweep(self, since: float) -> None:
        for key in [key for key, page in self._pages.items() if page.expired(since)]:
            del self._pages[key]

    def close(self) -> None:
        """Nothing to let go of."""
