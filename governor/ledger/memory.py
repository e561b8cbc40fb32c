"""memory:// - sums in this process, gone with it. Safe between threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from math import inf
from threading import Lock
from types import TracebackType

from governor.ledger.admission import Hold
from governor.ledger.book import Page
from governor.ledger.sums import Sums
from governor.records import Limit


class MemoryStore:
    """Implements Store and its Books: every check precedes the first write, so that nothing needs undoing.

    Rows are found by moment through queues with one entry each, which is checked when it comes up: the row may have
    been touched since, or be gone.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._holds: dict[str, Hold] = {}
        self._sums: dict[str, Sums] = {}
        self._leases: list[tuple[float, str]] = []
        self._leased: dict[str, float] = {}  # when each open lease comes up
        self._closed: deque[tuple[float, str]] = deque()
        self._due: list[tuple[float, str]] = []
        self._waiting: set[str] = set()
        self._pages: dict[str, Page] = {}
        self._versions = 0
        self.find = self._holds.get
        self.sums = self._sums.get

    def transaction(self, limits: Sequence[Limit] = (), /) -> MemoryStore:
        return self

    def __enter__(self) -> MemoryStore:
        self._lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        if hold is not None:
            key = hold.key
            self._holds[key] = hold
            if hold.state != "open":
                self._closed.append((hold.moment, key))
            elif hold.moment < self._leased.get(key, inf):  # new, or renewed after the clock was turned back
                self._lease(hold)
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
                self._lease(hold)
            else:
                found.append(hold)
        return found

    def closed(self, since: float, most: int) -> list[Hold]:
        found: dict[str, Hold] = {}  # by key: one that expired and was settled in one moment is queued twice
        while self._closed and self._closed[0][0] <= since and len(found) < most:
            moment, key = self._closed.popleft()
            hold = self._holds.get(key)
            if hold is not None and hold.state != "open" and hold.moment == moment:
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
            del self._holds[key]
        for scope in scopes:
            del self._sums[scope]

    def holds(self, prefix: str) -> list[Hold]:
        return [hold for key, hold in self._holds.items() if key.startswith(prefix)]

    def booked(self, prefix: str) -> list[Sums]:
        return [sums for scope, sums in self._sums.items() if scope.startswith(prefix)]

    def _lease(self, hold: Hold) -> None:
        self._leased[hold.key] = hold.moment
        heappush(self._leases, (hold.moment, hold.key))

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
