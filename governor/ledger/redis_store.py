"""redis://, rediss://, unix:// - one server (or cluster) shared by any number of machines.

Each operation is one script in the server, which runs alone: nothing is left half done by whoever dies. What survives
the death of the server is a matter of its persistence; what did not survive is noticed (`redis_calls.Epoch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from governor.ledger.redis_calls import Asking, Calls
from governor.ledger.redis_link import AsyncLink, Link, address
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit

T = TypeVar("T")


class RedisLedger:
    """A Ledger, Auditable and a Shelf whose operations block; safe between threads. Connects when first asked."""

    remote = True

    def __init__(
        self, uri: str, clock: Callable[[], float] = time.time, ttl: float = 900.0, keep: float = 86_400.0
    ) -> None:
        at = address(uri)
        self._calls = Calls(at.where, clock, ttl, keep, create=at.create)
        self._link = Link(at)

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return self._run(self._calls.reserve(key, amount, limits, sent))

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return self._run(self._calls.extend(key, amount, whole, sent))

    def settle(self, key: str, spent: Amount) -> Reservation:
        return self._run(self._calls.settle(key, spent))

    def refund(self, key: str) -> Reservation:
        return self._run(self._calls.refund(key))

    def reservation(self, key: str) -> Reservation | None:
        return self._run(self._calls.reservation(key))

    def balance(self, scope: str) -> Balance:
        return self._run(self._calls.balance(scope))

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        return self._run(self._calls.balances(prefix))

    def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        return self._run(self._calls.reservations(prefix))

    def reset(self, scope: str, spent: Amount = Amount()) -> Balance:
        return self._run(self._calls.reset(scope, spent))

    def load(self, key: str) -> tuple[bytes, int] | None:
        return self._run(self._calls.load(key))

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        return self._run(self._calls.save(key, value, version, ttl))

    def rebuild(self, balances: Iterable[Balance]) -> None:
        """Begins new books with these sums as spent (and overshoot); ledgers that are open go on with them.

        What was held is dropped. A sliding window counts its whole spend as of now. The shelf stays as it is.
        """
        self._run(self._calls.rebuild(balances))

    def close(self) -> None:
        self._link.close()

    def _run(self, asking: Asking[T]) -> T:
        try:
            call = next(asking)
            while True:
                call = asking.send(self._link.ask(call))
        except StopIteration as done:
            found: T = done.value
            return found


class AsyncRedisLedger:
    """The same ledger, awaited: every operation is a coroutine. For one event loop."""

    def __init__(
        self, uri: str, clock: Callable[[], float] = time.time, ttl: float = 900.0, keep: float = 86_400.0
    ) -> None:
        at = address(uri)
        self._calls = Calls(at.where, clock, ttl, keep, create=at.create)
        self._link = AsyncLink(at)

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return await self._run(self._calls.reserve(key, amount, limits, sent))

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return await self._run(self._calls.extend(key, amount, whole, sent))

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return await self._run(self._calls.settle(key, spent))

    async def refund(self, key: str) -> Reservation:
        return await self._run(self._calls.refund(key))

    async def reservation(self, key: str) -> Reservation | None:
        return await self._run(self._calls.reservation(key))

    async def balance(self, scope: str) -> Balance:
        return await self._run(self._calls.balance(scope))

    async def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        return await self._run(self._calls.balances(prefix))

    async def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        return await self._run(self._calls.reservations(prefix))

    async def reset(self, scope: str, spent: Amount = Amount()) -> Balance:
        return await self._run(self._calls.reset(scope, spent))

    async def load(self, key: str) -> tuple[bytes, int] | None:
        return await self._run(self._calls.load(key))

    async def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        return await self._run(self._calls.save(key, value, version, ttl))

    async def rebuild(self, balances: Iterable[Balance]) -> None:
        """As `RedisLedger.rebuild`."""
        await self._run(self._calls.rebuild(balances))

    async def close(self) -> None:
        await self._link.close()

    async def _run(self, asking: Asking[T]) -> T:
        try:
            call = next(asking)
            while True:
                call = asking.send(await self._link.ask(call))
        except StopIteration as done:
            found: T = done.value
            return found
