"""What could not be closed while the store was down is closed once it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from governor.errors import BudgetExceededError, LedgerLostError, LedgerUnavailableError
from governor.ledger import open_awaited, open_ledger
from governor.ledger.late import LateLedger
from governor.protocols import Ledger, Reservation
from governor.records import Amount, Limit
from tests.redis_servers import RedisServer

APP = Limit("app", tokens=1_000)
TEN, THREE = Amount(tokens=10), Amount(tokens=3)


class Flaky:
    """An AwaitedLedger whose store is up or down, or does its work and loses the answer."""

    def __init__(self, inner: Ledger) -> None:
        self.inner, self.state = inner, "up"
        self.fails = self.breaks = ""
        """Keys whose closing is said to meet an outage, or a defect."""
        self.closed = False

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return self._do(lambda: self.inner.reserve(key, amount, limits, sent=sent))

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return self._do(lambda: self.inner.extend(key, amount, whole=whole, sent=sent))

    async def settle(self, key: str, spent: Amount) -> Reservation:
        if key == self.fails:
            raise LedgerUnavailableError("what it asks makes the store fail")
        if key == self.breaks:
            raise RuntimeError("a defect")
        return self._do(lambda: self.inner.settle(key, spent))

    async def refund(self, key: str) -> Reservation:
        return self._do(lambda: self.inner.refund(key))

    async def close(self) -> None:
        self.closed = True

    def _do(self, operation: Callable[[], Reservation]) -> Reservation:
        if self.state == "lost":
            raise LedgerLostError("the books were lost")
        if self.state == "down":
            raise LedgerUnavailableError("the store is down")
        answer = operation()
        if self.state == "mute":
            raise LedgerUnavailableError("the answer was lost")
        return answer


@asynccontextmanager
async def late(ttl: float = 900.0, **options: Any) -> AsyncGenerator[tuple[LateLedger, Flaky], None]:
    store = Flaky(open_ledger("memory://", ttl=ttl, **options))
    ledger = LateLedger(store, unique=True, every=0.01)
    yield ledger, store
    await ledger.close()


async def owing(ledger: LateLedger, store: Flaky, *keys: str) -> None:
    """Let these be reserved, and their settlement meet an outage."""
    for key in keys:
        await ledger.reserve(key, TEN, [APP])
    store.state = "down"
    for key in keys:
        with pytest.raises(LedgerUnavailableError):
            await ledger.settle(key, THREE)


async def paid(ledger: LateLedger) -> None:
    async with asyncio.timeout(10):
        while ledger.owed:  # noqa: ASYNC110 - a count, no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("state", ["down", "mute"])
async def test_a_settlement_that_met_an_outage_is_booked_after_it(state: str) -> None:
    async with late() as (ledger, store):
        await ledger.reserve("a", TEN, [APP])
        store.state = state
        with pytest.raises(LedgerUnavailableError):
            await ledger.settle("a", THREE)
        await asyncio.sleep(0.05)
        assert ledger.owed == 1
        store.state = "up"
        await paid(ledger)
        assert store.inner.balance("app").spent == THREE
        assert store.inner.balance("app").reserved == Amount()


@pytest.mark.parametrize("state", ["down", "mute"])
async def test_a_reservation_without_an_answer_is_given_back(state: str) -> None:
    async with late() as (ledger, store):
        store.state = state
        with pytest.raises(LedgerUnavailableError):
            await ledger.reserve("a", TEN, [APP])
        store.state = "up"
        await paid(ledger)
        assert store.inner.balance("app").reserved == Amount()
        held = store.inner.reservation("a")
        assert held is None or held.state == "refunded"


async def test_a_refund_is_made_later_too_and_a_refusal_owes_nothing() -> None:
    async with late() as (ledger, store):
        await ledger.reserve("a", TEN, [APP])
        with pytest.raises(BudgetExceededError):
            await ledger.reserve("b", Amount(tokens=995), [APP])
        assert ledger.owed == 0
        store.state = "down"
        with pytest.raises(LedgerUnavailableError):
            await ledger.refund("a")
        store.state = "up"
        await paid(ledger)
        assert store.inner.balance("app").reserved == Amount()


async def test_keys_that_may_come_again_are_held_until_they_do() -> None:
    store = Flaky(open_ledger("memory://"))
    ledger = LateLedger(store, every=0.01)
    store.state = "mute"
    with pytest.raises(LedgerUnavailableError):
        await ledger.reserve("a", TEN, [APP])
    store.state = "up"
    await asyncio.sleep(0.05)
    assert store.inner.balance("app").reserved == TEN, "its holder may be a step that is begun again"
    await ledger.reserve("a", TEN, [APP])
    await ledger.extend("a", THREE)
    await ledger.settle("a", TEN)
    assert store.inner.balance("app").spent == TEN
    await ledger.close()


async def test_books_that_were_lost_held_nothing() -> None:
    async with late() as (ledger, store):
        store.state = "lost"
        with pytest.raises(LedgerLostError):
            await ledger.reserve("a", TEN, [APP])
        assert ledger.owed == 0


async def test_one_that_the_store_always_fails_at_holds_up_no_other() -> None:
    async with late() as (ledger, store):
        await owing(ledger, store, "bad", "a", "b")
        store.state, store.fails = "up", "bad"
        async with asyncio.timeout(10):
            while ledger.owed > 1:  # noqa: ASYNC110 - a count, no event
                await asyncio.sleep(0.01)
        assert store.inner.balance("app").spent == Amount(tokens=6)
        store.fails = ""
        await paid(ledger)
        assert store.inner.balance("app").spent == Amount(tokens=9)


async def test_a_defect_of_the_store_neither_ends_the_paying_nor_the_closing(caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky(open_ledger("memory://"))
    ledger = LateLedger(store, every=0.01)
    await owing(ledger, store, "a", "b")
    store.state, store.breaks = "up", "a"
    await paid(ledger)
    assert store.inner.balance("app").spent == THREE
    assert "the reservation a can't be closed" in caplog.text
    await ledger.close()
    assert store.closed


async def test_a_settlement_after_its_lease_takes_the_place_of_what_that_booked() -> None:
    now = [1_000.0]
    async with late(ttl=5.0, clock=lambda: now[0]) as (ledger, store):
        await owing(ledger, store, "a")
        now[0] += 60
        assert store.inner.balance("app").spent == TEN
        store.state = "up"
        await paid(ledger)
        assert store.inner.balance("app").spent == THREE


async def test_one_that_nobody_knows_any_more_is_told_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with late() as (ledger, store):
        store.state = "down"
        with pytest.raises(LedgerUnavailableError):
            await ledger.settle("forgotten", THREE)
        with pytest.raises(LedgerUnavailableError):
            await ledger.refund("never held")
        store.state = "up"
        await paid(ledger)
    (told,) = caplog.messages
    assert "forgotten" in told


async def test_closing_makes_a_last_attempt(caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky(open_ledger("memory://"))
    ledger = LateLedger(store, every=60)
    await owing(ledger, store, "a", "b")
    store.state = "up"
    await ledger.close()
    assert ledger.owed == 0
    assert store.inner.balance("app").spent == Amount(tokens=6)
    assert caplog.messages == []


async def test_closing_tells_what_stays_owed(caplog: pytest.LogCaptureFixture) -> None:
    async with late() as (ledger, store):
        await owing(ledger, store, "a")
    assert "1 reservations could not be closed" in caplog.text


async def test_a_redis_that_was_killed_hears_of_the_settlement_when_it_is_back(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    server = RedisServer(tmp_path, ("--appendonly", "yes", "--appendfsync", "always", "--save", ""))
    server.start()
    ledger = open_awaited(server.uri)
    assert isinstance(ledger, LateLedger)
    try:
        await ledger.reserve("a", TEN, [APP])
        server.kill()
        with pytest.raises(LedgerUnavailableError):
            await ledger.settle("a", THREE)
        server.start()
        await paid(ledger)
        books = open_ledger(server.uri)
        assert books.balance("app").spent == THREE
        books.close()
    finally:
        await ledger.close()
        server.stop()
