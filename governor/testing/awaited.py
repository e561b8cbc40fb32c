"""A ledger whose operations are awaited, made to look like any other: for the contract, and for whoever blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from threading import Thread
from typing import Protocol, TypeVar

from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit

T = TypeVar("T")


class AsyncLedger(Protocol):
    """A Ledger (and Auditable) of which every operation is awaited; `governor.drivers.adrive` takes one as it is."""

    def reserve(
        self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True
    ) -> Awaitable[Reservation]: ...

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Awaitable[Reservation]: ...

    def settle(self, key: str, spent: Amount) -> Awaitable[Reservation]: ...

    def refund(self, key: str) -> Awaitable[Reservation]: ...

    def reservation(self, key: str) -> Awaitable[Reservation | None]: ...

    def balance(self, scope: str) -> Awaitable[Balance]: ...

    def balances(self, prefix: str = "") -> Awaitable[tuple[Balance, ...]]: ...

    def reservations(self, prefix: str = "") -> Awaitable[tuple[Reservation, ...]]: ...

    def reset(self, scope: str, spent: Amount = ...) -> Awaitable[Balance]: ...

    def close(self) -> Awaitable[None]: ...


class Awaited:
    """A Ledger and Auditable over an asynchronous one, whose operations run on an event loop in a thread of its own.

        class TestMyAsyncLedger(LedgerContract):
            def make_ledger(self, clock, ttl):
                return Awaited(MyAsyncLedger("redis://localhost", clock=clock, ttl=ttl))

    Operations of several threads run at the same time on that loop, as tasks do. `close` ends the loop.
    """

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="awaited ledger", daemon=True)
        self._thread.start()

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return self._wait(self._ledger.reserve(key, amount, limits, sent=sent))

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return self._wait(self._ledger.extend(key, amount, whole=whole, sent=sent))

    def settle(self, key: str, spent: Amount) -> Reservation:
        return self._wait(self._ledger.settle(key, spent))

    def refund(self, key: str) -> Reservation:
        return self._wait(self._ledger.refund(key))

    def reservation(self, key: str) -> Reservation | None:
        return self._wait(self._ledger.reservation(key))

    def balance(self, scope: str) -> Balance:
        return self._wait(self._ledger.balance(scope))

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        return self._wait(self._ledger.balances(prefix))

    def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        return self._wait(self._ledger.reservations(prefix))

    def reset(self, scope: str, spent: Amount = Amount()) -> Balance:
        return self._wait(self._ledger.reset(scope, spent))

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._ledger.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, awaited: Awaitable[T]) -> T:
        return asyncio.run_coroutine_threadsafe(_coroutine(awaited), self._loop).result()


def _coroutine(awaited: Awaitable[T]) -> Coroutine[None, None, T]:
    async def whole() -> T:
        return await awaited

    return whole()
