"""A ledger that stands in, up to a cap, while its store is down - and pays back once the store answers again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Literal, TypeVar, cast

from governor.aside import asks_a_server
from governor.errors import LedgerUnavailableError, ReservationError
from governor.ledger.admission import NOTHING, larger, minus
from governor.ledger.book import BookLedger
from governor.ledger.memory import MemoryStore
from governor.protocols import Auditable, Balance, Ledger, Reservation, Shelf
from governor.records import Amount, Limit

T = TypeVar("T")

RETRY_SECONDS = 1.0
"""How long a store that failed is left alone."""

MOST_DEBTS = 100_000
"""Most closed reservations that wait for the store; after these, settlements fail as the store does."""


def standby(ledger: Ledger, cap: Limit, *, clock: Callable[[], float] = time.time) -> StandbyLedger:
    """`ledger`, for which this process stands in up to `cap` while LedgerUnavailableError is all it says."""
    whole = isinstance(ledger, Shelf) and isinstance(ledger, Auditable)
    return (StandbyStore if whole else StandbyLedger)(ledger, cap, clock)


@dataclass(slots=True)
class _Open:
    """A reservation as this process knows it: `base` is what the store holds, `extra` what is held here."""

    limits: tuple[Limit, ...]
    base: Amount
    extra: Amount = NOTHING
    here: bool = False


@dataclass(slots=True)
class _Books:
    """What this process keeps while the store is down. `debts` maps keys to their limits and what was spent."""

    opened: dict[str, _Open] = field(default_factory=dict)
    debts: dict[str, tuple[tuple[Limit, ...], Amount]] = field(default_factory=dict)
    down_until: float = float("-inf")


class StandbyLedger:
    """A Ledger over another; see `standby`.

    What is reserved here is under the reservation's own limits too, but these see only what this process began since
    the store went down. Settlements and refunds wait for the store, and are booked there in full; `close` makes a last
    attempt.
    """

    def __init__(self, ledger: Ledger, cap: Limit, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._cap = cap
        self._clock = clock
        self._lock = RLock()
        self._books = _Books()
        self._local = self._empty()

    @property
    def remote(self) -> bool:
        """See `governor.aside.asks_a_server`."""
        return asks_a_server(self._ledger)

    @property
    def owed(self) -> int:
        """How many closed reservations wait for the store."""
        return len(self._books.debts)

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        whole = tuple(limits)
        with self._lock:
            known = self._books.opened.get(key)
            if known is None or not known.here:
                try:
                    held = self._asked(lambda: self._ledger.reserve(key, amount, whole, sent=sent))
                except LedgerUnavailableError:
                    known = known or _Open(whole, NOTHING)
                else:
                    self._books.opened[key] = _Open(whole, held.amount)
                    return held
            return self._hold_here(key, known, larger(amount, known.base + known.extra), sent=sent)

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        with self._lock:
            known = self._books.opened.get(key)
            if known is None or not known.here:
                try:
                    held = self._asked(lambda: self._ledger.extend(key, amount, whole=whole, sent=sent))
                except LedgerUnavailableError:
                    if known is None:
                        raise  # another process opened it: nobody here knows its limits
                else:
                    self._books.opened[key] = _Open(held.limits, held.amount)
                    return held
            held_now = known.base + known.extra
            return self._hold_here(key, known, larger(held_now, amount) if whole else held_now + amount, sent=sent)

    def settle(self, key: str, spent: Amount) -> Reservation:
        return self._close(key, spent, lambda: self._ledger.settle(key, spent))

    def refund(self, key: str) -> Reservation:
        return self._close(key, NOTHING, lambda: self._ledger.refund(key))

    def reservation(self, key: str) -> Reservation | None:
        with self._lock:
            known = self._books.opened.get(key)
            if known is not None and known.here:
                return Reservation(key=key, amount=known.base + known.extra, state="open", limits=known.limits)
            return self._asked(lambda: self._ledger.reservation(key))

    def balance(self, scope: str) -> Balance:
        with self._lock:
            return self._asked(lambda: self._ledger.balance(scope))

    def stand_in_to(self, cap: Limit) -> None:
        """From now on up to another cap of the same scope; what was spent under the one before counts."""
        with self._lock:
            self._cap = cap

    def pay(self) -> None:
        """Books what is owed, if the store answers now."""
        with self._lock, suppress(LedgerUnavailableError):
            self._books.down_until = float("-inf")
            self._asked(lambda: None)

    def close(self) -> None:
        """Books what is owed and closes the store; LedgerUnavailableError, after that, if it can't be booked."""
        try:
            with self._lock:
                self._books.down_until = float("-inf")
                self._pay()
        finally:
            self._ledger.close()

    def _asked(self, ask: Callable[[], T]) -> T:
        """The store's answer, after what is owed was paid; LedgerUnavailableError at once while it is left alone."""
        if self._clock() < self._books.down_until:
            raise LedgerUnavailableError(f"the ledger's store did not answer: asked again after {RETRY_SECONDS:g} s")
        try:
            self._pay()
            return ask()
        except LedgerUnavailableError:
            self._books.down_until = self._clock() + RETRY_SECONDS
            raise

    def _hold_here(self, key: str, known: _Open, whole: Amount, *, sent: bool) -> Reservation:
        """Sees that `whole` is held, here what goes beyond the store's hold; BudgetExceededError past the cap."""
        extra = larger(minus(whole, known.base), NOTHING)
        limits = (*known.limits, self._cap)
        if known.here:
            self._local.extend(key, extra, whole=True)
        else:
            self._local.reserve(key, extra, limits)
        self._books.opened[key] = _Open(known.limits, known.base, extra, here=True)
        return Reservation(key=key, amount=known.base + extra, state="open", limits=known.limits, sent=sent)

    def _close(self, key: str, spent: Amount, ask: Callable[[], Reservation]) -> Reservation:
        with self._lock:
            known = self._books.opened.get(key)
            if known is None or not known.here:
                try:
                    closed = self._asked(ask)
                except LedgerUnavailableError:
                    if known is None or self.owed >= MOST_DEBTS:
                        raise  # the lease runs out, and the store books the bound
                else:
                    self._books.opened.pop(key, None)
                    return closed
            del self._books.opened[key]
            if known.here:
                self._local.settle(key, larger(minus(spent, known.base), NOTHING))
            self._books.debts[key] = known.limits, spent
            state: Literal["settled", "refunded"] = "refunded" if spent == NOTHING else "settled"
            return Reservation(key=key, amount=spent, state=state, limits=known.limits)

    def _pay(self) -> None:
        """Books what is owed, the oldest first; once nothing is, the cap is whole again."""
        debts = self._books.debts
        if not debts:
            return
        while debts:
            key = next(iter(debts))
            limits, spent = debts[key]
            if self._ledger.reservation(key) is None:
                # Nothing is asked, so nothing is refused: the settlement books it all, past a limit too.
                self._ledger.reserve(key, NOTHING, limits)
            # Closed before, where the answer had been lost: the first closing stands.
            with suppress(ReservationError):
                self._ledger.settle(key, spent)
            del debts[key]
        if not any(known.here for known in self._books.opened.values()):
            self._local = self._empty()

    @staticmethod
    def _empty() -> BookLedger:
        """Its leases never run out: who holds them is this very process."""
        return BookLedger(MemoryStore(), lambda: 0.0, 1.0)


class StandbyStore(StandbyLedger):
    """The same over a ledger that is a Shelf and Auditable, for which nothing stands in."""

    def load(self, key: str) -> tuple[bytes, int] | None:
        return cast("Shelf", self._ledger).load(key)

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        return cast("Shelf", self._ledger).save(key, value, version, ttl=ttl)

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        return cast("Auditable", self._ledger).balances(prefix)

    def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        return cast("Auditable", self._ledger).reservations(prefix)

    def reset(self, scope: str, spent: Amount = NOTHING) -> Balance:
        return cast("Auditable", self._ledger).reset(scope, spent)
