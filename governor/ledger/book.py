"""The ledger over a transactional store: leases and admission here, bytes in the store.

A lease only matters to who looks: until then an overdue hold and its later booking weigh the same on every
limit. So nothing runs in the background; overdue leases are booked when a balance or reservation is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from governor.errors import ReservationError
from governor.ledger import admission
from governor.ledger.admission import Posting
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit


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


class Store(Protocol):
    """Keeps reservations and sums. A transaction that ends with an error leaves nothing behind."""

    def transaction(self) -> AbstractContextManager[Books]: ...

    def close(self) -> None: ...


class BookLedger:
    """A Ledger (see `governor.protocols`) over any Store.

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
