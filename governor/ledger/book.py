"""The ledger over a transactional store: leases and admission here, bytes in the store.

A lease only matters to who looks: until then an overdue hold and its later booking weigh the same on every
limit. So nothing runs in the background; overdue leases are booked when a balance or reservation is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from governor.errors import ReservationError
from governor.ledger import admission
from governor.ledger.admission import Posting
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit
from governor.shelf import check_key, check_value


@dataclass(frozen=True, slots=True)
class Page:
    """One value of the shelf: its version, and when (seconds since the epoch) it counts as gone; None = never."""

    value: bytes
    version: int
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Whether the value counts as gone."""
        return self.expires is not None and self.expires <= now


class Books(Protocol):
    """What can be read and written inside one transaction."""

    def find(self, key: str) -> Reservation | None: ...

    def balance(self, scope: str) -> Balance: ...

    def overdue(self, since: float) -> Iterable[Reservation]:
        """Open reservations last touched at or before `since`."""
        ...

    def post(self, posting: Posting, touched: float) -> None:
        """Keeps the reservation and adds to the sums of its scopes."""
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

    def transaction(self) -> AbstractContextManager[Books]: ...

    def close(self) -> None: ...


class BookLedger:
    """A Ledger and a Shelf (see `governor.protocols`) over any Store.

    `clock` gives seconds since the epoch, shared by all processes; a reservation that is neither extended nor
    reserved again for `ttl` seconds counts as spent at its bound.
    """

    def __init__(self, store: Store, clock: Callable[[], float], ttl: float) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit]) -> Reservation:
        admission.check(amount)
        whole = tuple(limits)
        with self._store.transaction() as books:
            posting = admission.reserve(books.find(key), key, amount, whole, _balances(books, whole))
            books.post(posting, self._clock())
        return posting.after

    def extend(self, key: str, amount: Amount) -> Reservation:
        admission.check(amount)
        with self._store.transaction() as books:
            found = _known(books, key)
            posting = admission.extend(found, amount, _balances(books, found.limits))
            books.post(posting, self._clock())
        return posting.after

    def settle(self, key: str, spent: Amount) -> Reservation:
        admission.check(spent)
        with self._store.transaction() as books:
            posting = admission.settle(_known(books, key), spent)
            books.post(posting, self._clock())
        return posting.after

    def refund(self, key: str) -> Reservation:
        with self._store.transaction() as books:
            posting = admission.refund(_known(books, key))
            books.post(posting, self._clock())
        return posting.after

    def reservation(self, key: str) -> Reservation | None:
        with self._store.transaction() as books:
            self._book_overdue(books)
            return books.find(key)

    def balance(self, scope: str) -> Balance:
        with self._store.transaction() as books:
            self._book_overdue(books)
            return books.balance(scope)

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

    def _book_overdue(self, books: Books) -> None:
        now = self._clock()
        for found in books.overdue(now - self._ttl):
            books.post(admission.expire(found), now)


def _balances(books: Books, limits: Sequence[Limit]) -> dict[str, Balance]:
    return {scope: books.balance(scope) for scope in admission.scopes(limits)}


def _known(books: Books, key: str) -> Reservation:
    found = books.find(key)
    if found is None:
        raise ReservationError(f"reservation '{key}' is unknown: reserve it first")
    return found
