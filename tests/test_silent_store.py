"""A store that takes connections and says nothing: an event loop that governs steps with it is never held up."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from governor import Governor, Outcome, Reply, Usage
from governor.errors import LedgerUnavailableError
from governor.ledger import open_awaited, open_ledger
from governor.policy import Policy, policy_from
from governor.protocols import Balance, Ledger, Reservation
from governor.records import Amount
from governor.testing import ScriptedBackend

LADDER = [{"id": "only", "model": "m/only", "answer_tokens": 100, "price": {"input": 1, "output": 2}}]
DAILY = {"per": "day", "usd": 1}
QUESTION = "What is 12 * 17?"
MOST = 35
"""Ticks of a hundredth of a second. An operation on the store lasts half a second at the least."""

pytestmark = pytest.mark.filterwarnings("ignore::governor.estimate.online.LocalOnlyWarning")


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def policy(**keys: Any) -> Policy:
    return policy_from({"version": 1, "app": "test", "ladder": LADDER, **keys})


def backend() -> ScriptedBackend:
    return ScriptedBackend(lambda _: Reply(text="204", usage=Usage(20, 5), seconds=0.01))


class Beside:
    """A thread that ticks beside an event loop, and counts how often it did while the loop did nothing else.

    Waiting for a store keeps the loop alone from going on; a machine that is busy elsewhere stops both.
    """

    def __init__(self) -> None:
        self.turns = 0
        self.longest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _tick(self) -> None:
        turns = ticks = 0
        while not self._over.wait(0.01):
            turns, ticks = self.turns, ticks + 1 if turns == self.turns else 0
            self.longest = max(self.longest, ticks)


async def held_up(work: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """What the work came to, and the most ticks for which the loop did nothing else."""
    with Beside() as beside:
        running = asyncio.create_task(work)
        while not running.done():
            await asyncio.sleep(0.01)
            beside.turns += 1
    return await running, beside.longest


async def warmed() -> None:
    """Whatever a first step imports is imported."""
    with Governor(policy(budget={"app": DAILY}), backend=backend(), ledger=open_ledger("memory://")) as governor:
        await governor.arun(QUESTION)


BUDGETS: dict[str, dict[str, Any]] = {
    "a limit": {"app": DAILY},
    "a paced limit": {"app": DAILY | {"pace": [1.0]}},
    "a limit that something stands in for": {"app": DAILY, "emergency": {"usd": 1}},
}


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("scheme", ["redis", "redis, awaited", "postgresql"])
async def test_a_step_waits_alone(silent: int, scheme: str, budget: dict[str, Any]) -> None:
    pytest.importorskip("psycopg" if scheme == "postgresql" else "redis")
    await warmed()
    uri = f"{scheme.partition(',')[0]}://127.0.0.1:{silent}/0?timeout=1"
    awaited = open_awaited(uri) if "awaited" in scheme else None
    governor = Governor(policy(budget=budget), backend=backend(), ledger=open_ledger(uri), awaited=awaited)
    began = time.monotonic()
    outcome, longest = await held_up(governor.arun(QUESTION))
    assert time.monotonic() - began > 0.4
    assert longest < MOST
    assert outcome.answer == ("204" if "emergency" in budget else "")
    with suppress(LedgerUnavailableError):  # what stood in owes the store its bookings
        await asyncio.to_thread(governor.close)
    if awaited is not None:
        await awaited.close()


class Learned:
    """A ledger in memory whose shelf is on a server."""

    remote = True

    def __init__(self, shelf: Any, askers: list[str]) -> None:
        self.shelf, self.askers, self.books = shelf, askers, open_ledger("memory://")
        self.save = shelf.save

    def load(self, key: str) -> tuple[bytes, int] | None:
        self.askers.append(threading.current_thread().name)
        found: tuple[bytes, int] | None = self.shelf.load(key)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.books, name)


async def test_nobody_waits_for_what_is_learned(silent: int) -> None:
    pytest.importorskip("redis")
    await warmed()
    shelf: Any = open_ledger(f"redis://127.0.0.1:{silent}/0?timeout=1")
    loads: list[str] = []
    ledger: Any = Learned(shelf, loads)

    async def steps(governor: Governor) -> None:
        for _ in range(40):  # what was learned is handed in every 16
            assert (await governor.arun(QUESTION)).answer == "204"

    governor = Governor(policy(online=True), backend=backend(), ledger=ledger)
    _, longest = await held_up(steps(governor))
    await asyncio.to_thread(governor.close)
    assert longest < MOST
    assert loads, "the shelf was asked"
    assert all(name.startswith(("governor-aside", "asyncio")) for name in loads)


class Slow:
    """A ledger on a server that takes its time."""

    remote = True

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.begun = ledger, threading.Event()

    def reserve(self, *args: Any, **options: Any) -> Reservation:
        self.begun.set()
        time.sleep(0.2)
        return self.ledger.reserve(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)


def test_a_loop_that_ends_in_mid_operation_leaves_nothing_behind() -> None:
    """As `asyncio.run` does at its end, which cancels every task, those of an operation too."""
    books: Any = open_ledger("memory://")
    slow: Any = Slow(books)
    governor = Governor(policy(budget={"app": DAILY}), backend=backend(), ledger=slow)

    async def leaving() -> None:
        running = asyncio.create_task(governor.arun(QUESTION))
        await asyncio.to_thread(slow.begun.wait, 10)
        assert not running.done()

    asyncio.run(leaving())
    governor.close()
    (booked,) = books.balances("app:test")
    assert (booked.reserved, booked.spent) == (Amount(), Amount())


async def test_a_step_that_goes_on_after_its_governor_was_closed_is_settled() -> None:
    books: Any = open_ledger("memory://")
    slow: Any = Slow(books)
    governor = Governor(policy(budget={"app": DAILY}), backend=backend(), ledger=slow, owns_ledger=False)
    running = asyncio.create_task(governor.arun(QUESTION))
    await asyncio.to_thread(slow.begun.wait, 10)
    governor.close()
    outcome: Outcome = await running
    assert outcome.answer == "204"
    booked: Balance = books.balances("app:test")[0]
    assert (booked.spent.calls, booked.reserved) == (1, Amount())
