"""The contract over ledgers that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from governor.drivers import adrive, async_ports
from governor.effects import Reserve, Settle
from governor.ledger import open_ledger
from governor.ledger.threaded import ThreadedLedger
from governor.protocols import Auditable, Balance, Ledger, Reservation
from governor.records import Amount, Limit
from governor.telemetry.spans import NullTracer
from governor.testing import Awaited, LedgerContract, ScriptedBackend


class Slow:
    """A ledger in memory that lets other tasks go first."""

    def __init__(self, clock: Callable[[], float], ttl: float, keep: float) -> None:
        made = open_ledger("memory://", clock=clock, ttl=ttl, keep=keep)
        assert isinstance(made, Auditable)
        self._inner: Any = made

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        await asyncio.sleep(0)
        held: Reservation = self._inner.reserve(key, amount, limits, sent=sent)
        return held

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        await asyncio.sleep(0)
        held: Reservation = self._inner.extend(key, amount, whole=whole, sent=sent)
        return held

    async def settle(self, key: str, spent: Amount) -> Reservation:
        await asyncio.sleep(0)
        closed: Reservation = self._inner.settle(key, spent)
        return closed

    async def refund(self, key: str) -> Reservation:
        await asyncio.sleep(0)
        closed: Reservation = self._inner.refund(key)
        return closed

    async def reservation(self, key: str) -> Reservation | None:
        found: Reservation | None = self._inner.reservation(key)
        return found

    async def balance(self, scope: str) -> Balance:
        found: Balance = self._inner.balance(scope)
        return found

    async def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        found: tuple[Balance, ...] = self._inner.balances(prefix)
        return found

    async def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        found: tuple[Reservation, ...] = self._inner.reservations(prefix)
        return found

    async def reset(self, scope: str, spent: Amount = Amount()) -> Balance:
        found: Balance = self._inner.reset(scope, spent)
        return found

    async def close(self) -> None:
        self._inner.close()


class TestAwaited(LedgerContract):
    keep = 20_000.0

    @pytest.fixture(autouse=True)
    def _closed(self) -> Iterator[None]:
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        self.opened.append(Awaited(Slow(clock, ttl, self.keep)))
        return self.opened[-1]


class InThreads(Slow):
    """The same, its changes made by threads."""

    def __init__(self, clock: Callable[[], float], ttl: float, keep: float) -> None:
        super().__init__(clock, ttl, keep)
        self._threaded = ThreadedLedger(self._inner)

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return await self._threaded.reserve(key, amount, limits, sent=sent)

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return await self._threaded.extend(key, amount, whole=whole, sent=sent)

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return await self._threaded.settle(key, spent)

    async def refund(self, key: str) -> Reservation:
        return await self._threaded.refund(key)

    async def close(self) -> None:
        await self._threaded.close()
        await super().close()


class TestThreaded(TestAwaited):
    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        self.opened.append(Awaited(InThreads(clock, ttl, self.keep)))
        return self.opened[-1]


def test_the_loop_takes_an_awaited_ledger_as_it_is() -> None:
    ledger: Any = Slow(lambda: 0.0, 60.0, 60.0)

    def process() -> Any:
        yield Reserve("k", Amount(tokens=5), (Limit("app", tokens=9),))
        return (yield Settle("k", Amount(tokens=3)))

    ports = async_ports(ScriptedBackend([]), ledger, (), NullTracer())
    assert asyncio.run(adrive(process(), ports.perform)).amount == Amount(tokens=3)
    assert asyncio.run(ledger.balance("app")).spent == Amount(tokens=3)
