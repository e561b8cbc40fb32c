"""memory:// - sums in this process, gone with it. Safe between threads."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from governor.ledger.admission import Posting, scopes
from governor.ledger.book import Page
from governor.protocols import Balance, Reservation


class MemoryStore:
    """Implements Store and its Books: every check precedes the first write, so that nothing needs undoing."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._reservations: dict[str, Reservation] = {}
        self._touched: dict[str, float] = {}  # of open reservations only
        self._balances: dict[str, Balance] = {}
        self._pages: dict[str, Page] = {}
        self._versions = 0

    @contextmanager
    def transaction(self) -> Generator[MemoryStore, None, None]:
        with self._lock:
            yield self

    def find(self, key: str) -> Reservation | None:
        return self._reservations.get(key)

    def balance(self, scope: str) -> Balance:
        return self._balances.get(scope) or Balance(scope=scope)

    def overdue(self, since: float) -> list[Reservation]:
        return [self._reservations[key] for key, touched in self._touched.items() if touched <= since]

    def post(self, posting: Posting, touched: float) -> None:
        after = posting.after
        self._reservations[after.key] = after
        if after.state == "open":
            self._touched[after.key] = touched
        else:
            self._touched.pop(after.key, None)
        for scope in scopes(after.limits):
            old = self.balance(scope)
            self._balances[scope] = Balance(
                scope=scope,
                spent=old.spent + posting.spent,
                reserved=old.reserved + posting.reserved,
                overshoot=old.overshoot + posting.overshoot,
            )

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
