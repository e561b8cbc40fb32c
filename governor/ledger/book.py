"""The ledger over a transactional store: leases, retention and admission here, bytes in the store.

Nothing runs in the background: leases that ran out are booked, and what may be forgotten is dropped, a few at a time
by whatever operation comes next, and all of them when somebody reads a balance or a reservation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from governor.aside import asks_a_server
from governor.errors import LedgerError, ReservationError
from governor.ledger import admission
from governor.ledger.admission import NOTHING, Hold
from governor.ledger.sums import Sums, empty
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit
from governor.shelf import check_key, check_value

BATCH = 64
"""Most overdue leases, and most forgotten rows, that one operation sees to: more than it can add, so that none pile
up."""

TIDY_SECONDS = 0.25
"""How often operations look for such rows at most, unless there were more than one could see to."""


@dataclass(frozen=True, slots=True)
class Page:
    """One value of the shelf: its version, and when (seconds since the epoch) it counts as gone; None = never."""

    value: bytes
    version: int
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Whether the value counts as gone."""
        return self.expires is not None and self.expires <= now


class Rows(Protocol):
    """What an operation reads."""

    def find(self, key: str, /) -> Hold | None: ...

    def sums(self, scope: str, /) -> Sums | None: ...


class Books(Rows, Protocol):
    """What can be read and written inside one transaction. Rows are handed out to be changed, and kept by `keep`."""

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        """Keeps rows as they are now, new ones too."""
        ...

    def overdue(self, since: float, most: int | None) -> Sequence[Hold]:
        """Open reservations last touched at or before `since`, the longest untouched first."""
        ...

    def closed(self, since: float, most: int) -> Sequence[Hold]:
        """Reservations closed or expired at or before `since`, the oldest first."""
        ...

    def idle(self, now: float, most: int) -> Sequence[str]:
        """Scopes whose `Sums.due` is at or before `now`."""
        ...

    def forget(self, keys: Iterable[str], scopes: Iterable[str]) -> None:
        """Drops rows."""
        ...

    def holds(self, prefix: str) -> Sequence[Hold]:
        """Every reservation whose key begins so."""
        ...

    def booked(self, prefix: str) -> Sequence[Sums]:
        """The sums of every scope that begins so."""
        ...

    def page(self, key: str) -> Page | None:
        """The shelf's value under this key, expired or not; LedgerError if it is damaged."""
        ...

    def put(self, key: str, value: bytes, expires: float | None) -> None:
        """Keeps a value on the shelf under a version that was never given out before."""
        ...

    def sweep(self, since: float) -> None:
        """Drops the shelf's values that expired at or before `since`."""
        ...


class Store(Protocol):
    """Keeps reservations and sums. A transaction that ends with an error leaves nothing behind."""

    def transaction(self, limits: Sequence[Limit] = (), /) -> AbstractContextManager[Books]:
        """One that leaves all or nothing; `limits` are those of a reservation that may be opened in it.

        A store may lock or read what it will be asked for before it is: the hold that is found first, its scopes, and
        those of `limits`.
        """
        ...

    def close(self) -> None: ...


class BookLedger:
    """A Ledger, Auditable and a Shelf (see `governor.protocols`) over any Store.

    `clock` gives seconds since the epoch, shared by all processes. A reservation that is neither extended nor reserved
    again for `ttl` seconds counts as spent at its bound; a closed or expired one is remembered for `keep` seconds.
    """

    def __init__(self, store: Store, clock: Callable[[], float], ttl: float, keep: float = 86_400.0) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._keep = keep
        self._tidied = float("-inf")
        self._tidy_again = float("-inf")

    @property
    def remote(self) -> bool:
        """See `governor.aside.asks_a_server`."""
        return asks_a_server(self._store)

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        whole = tuple(limits)
        self._tidy()
        with self._store.transaction(whole) as books:
            now = self._clock()
            found = books.find(key)
            booked = booked_on(books, whole, now)
            if found is None:
                found = admission.opened(key, amount, whole, booked, now, sent=sent)
            else:
                admission.taken_up(found, amount, whole, booked, now, sent=sent)
            books.keep(found, booked.values())
            return found.record

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        self._tidy()
        with self._store.transaction() as books:
            now = self._clock()
            found, booked = known(books, key, now)
            admission.extend(found, amount, booked, now, whole=whole, sent=sent)
            books.keep(found, booked.values())
            return found.record

    def settle(self, key: str, spent: Amount) -> Reservation:
        self._tidy()
        with self._store.transaction() as books:
            now = self._clock()
            found, booked = known(books, key, now)
            if admission.settle(found, spent, booked, now):
                books.keep(found, booked.values())
            return found.record

    def refund(self, key: str) -> Reservation:
        self._tidy()
        with self._store.transaction() as books:
            now = self._clock()
            found, booked = known(books, key, now)
            if admission.refund(found, booked, now):
                books.keep(found, booked.values())
            return found.record

    def reservation(self, key: str) -> Reservation | None:
        with self._store.transaction() as books:
            self._book_overdue(books, self._clock(), None)
            found = books.find(key)
            return found.record if found else None

    def balance(self, scope: str) -> Balance:
        with self._store.transaction() as books:
            now = self._clock()
            self._book_overdue(books, now, None)
            found = books.sums(scope)
            if found is None:
                return Balance(scope=scope)
            if found.slide(now):
                books.keep(None, (found,))
            return found.balance

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        with self._store.transaction() as books:
            now = self._clock()
            self._book_overdue(books, now, None)
            found = sorted(books.booked(prefix), key=lambda sums: sums.scope)
            books.keep(None, [sums for sums in found if sums.slide(now)])
            return tuple(sums.balance for sums in found)

    def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        with self._store.transaction() as books:
            self._book_overdue(books, self._clock(), None)
            return tuple(hold.record for hold in sorted(books.holds(prefix), key=lambda hold: hold.key))

    def reset(self, scope: str, spent: Amount = NOTHING) -> Balance:
        admission.checked(spent)
        with self._store.transaction() as books:
            now = self._clock()
            self._book_overdue(books, now, None)
            found = books.sums(scope) or empty(Limit(scope))
            found.reset(spent, now)
            books.keep(None, (found,))
            return found.balance

    def load(self, key: str) -> tuple[bytes, int] | None:
        check_key(key)
        with self._store.transaction() as books:
            page = books.page(key)
        return None if page is None or page.expired(self._clock()) else (page.value, page.version)

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(key, value)
        now = self._clock()
        with self._store.transaction() as books:
            books.sweep(now)
            page = books.page(key)
            if version != (page.version if page else 0):
                return False
            books.put(key, value, None if ttl is None else now + ttl)
        return True

    def close(self) -> None:
        self._store.close()

    def _tidy(self) -> None:
        """Now and then, books overdue leases and forgets rows of long ago.

        In a transaction of its own, so that the refusal of what comes next does not undo it.
        """
        if self._tidied <= (now := self._clock()) < self._tidy_again:
            return
        with self._store.transaction() as books:
            seen_to = max(self._book_overdue(books, now, BATCH), self._forget(books, now))
        self._tidied, self._tidy_again = now, now + min(TIDY_SECONDS, self._ttl / 4)
        if seen_to >= BATCH:
            self._tidy_again = now

    def _forget(self, books: Books, now: float) -> int:
        old = books.closed(now - self._keep, BATCH)
        for found in old:
            booked = booked_on(books, found.limits, now)
            for sums in booked.values():
                sums.references -= 1
            books.keep(None, booked.values())
        idle = books.idle(now, BATCH)
        books.forget([found.key for found in old], idle)
        return max(len(old), len(idle))

    def _book_overdue(self, books: Books, now: float, most: int | None) -> int:
        overdue = books.overdue(now - self._ttl, most)
        for found in overdue:
            booked = booked_on(books, found.limits, now)
            admission.expire(found, booked, self._ttl, now)
            books.keep(found, booked.values())
        return len(overdue)


def booked_on(rows: Rows, limits: Sequence[Limit], now: float) -> dict[str, Sums]:
    """The sums of the limits' scopes, each once."""
    found: dict[str, Sums] = {}
    for limit in limits:
        if limit.scope in found:
            continue
        sums = rows.sums(limit.scope) or empty(limit)
        found[limit.scope] = sums
        if sums.window is not limit.window and sums.window != limit.window:
            _rewindow(sums, limit)
        if sums.grains is not None:
            sums.slide(now)
    return found


def _rewindow(sums: Sums, limit: Limit) -> None:
    """A policy may change how long sums are kept, not what they are the sums of."""
    if sums.window.sliding != limit.window.sliding:
        raise LedgerError(f"scope '{limit.scope}' is summed over another window already: name the new one otherwise")
    sums.window = limit.window


def known(rows: Rows, key: str, now: float) -> tuple[Hold, dict[str, Sums]]:
    """A reservation and the sums of its scopes, or ReservationError."""
    found = rows.find(key)
    if found is None:
        raise ReservationError(f"reservation '{key}' is unknown: reserve it first")
    return found, booked_on(rows, found.limits, now)
