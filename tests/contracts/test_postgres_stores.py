"""The ledger in PostgreSQL: the contracts, random histories, and many at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.protocols import Auditable, Ledger, Shelf
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock, LedgerContract, ShelfContract
from tests.contracts.ledger_machine import TTL, LedgerMachine
from tests.contracts.test_ledger_faults import start
from tests.postgres_servers import PostgresServer


class TestPostgres(LedgerContract):
    keep = 20_000.0

    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> Iterator[None]:
        self.server = postgres
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        self.opened.append(open_ledger(self.server.uri(self.server.new_schema()), clock=clock, ttl=ttl, keep=self.keep))
        return self.opened[-1]


class TestPostgresShelf(ShelfContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> Iterator[None]:
        self.server = postgres
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        self.opened.append(open_ledger(self.server.uri(self.server.new_schema()), clock=clock))
        return cast("Shelf", self.opened[-1])


@pytest.fixture(autouse=True)
def machine_server(postgres: PostgresServer) -> None:
    PostgresMachine.server = postgres


class PostgresMachine(LedgerMachine):
    server: ClassVar[PostgresServer]

    def open_again(self) -> Ledger:
        return open_ledger(self.server.uri(self.folder.name), clock=self.clock, ttl=TTL)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open_again()
        self.last = None


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# races


def test_four_processes_of_a_hundred_attempts_admit_exactly_the_floor(postgres_uri: str) -> None:
    workers = [start("race", postgres_uri, f"w{number}", 100) for number in range(4)]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    admitted = [int(text) for text in printed]
    assert sum(admitted) == 1_000 // 7
    ledger = open_ledger(postgres_uri)
    assert ledger.balance("app").reserved == Amount(tokens=1_000 // 7 * 7)
    assert [ledger.balance(f"step:w{number}").reserved.tokens for number in range(4)] == [7 * n for n in admitted]
    ledger.close()


def test_processes_may_make_one_ledger_at_the_same_time(postgres_uri: str) -> None:
    workers = [start("race", postgres_uri, f"w{number}", 2) for number in range(4)]
    assert [worker.communicate()[0] for worker in workers] == ["2\n"] * 4


def test_fifty_calls_at_once_against_a_dollar_admit_two(two: tuple[Ledger, Ledger]) -> None:
    session = Limit("session", micros=1_000_000)
    go = threading.Barrier(50)

    def call(number: int) -> str:
        go.wait()
        try:
            return two[number % 2].reserve(f"call-{number}", Amount(micros=500_000), (session,)).state
        except BudgetExceededError as refusal:
            return refusal.kind

    with ThreadPoolExecutor(50) as pool:
        states = list(pool.map(call, range(50)))
    assert sorted(states) == ["budget_busy"] * 48 + ["open"] * 2
    assert two[0].balance("session").reserved == Amount(micros=1_000_000)


def test_operations_whose_scopes_cross_never_wait_for_each_other(two: tuple[Ledger, Ledger]) -> None:
    scopes = [Limit(f"s{number}", tokens=10**9) for number in range(6)]

    def work(number: int) -> None:
        ledger, limits = two[number % 2], random.Random(number).sample(scopes, 4)
        for step in range(15):
            key = f"{number}-{step}"
            ledger.reserve(key, Amount(tokens=5), limits)
            ledger.extend(key, Amount(tokens=5))
            ledger.settle(key, Amount(tokens=7))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert isinstance(two[0], Auditable)
    assert sum(balance.spent.tokens for balance in two[0].balances()) == 8 * 15 * 4 * 7


def test_many_that_book_overdue_leases_at_once_book_each_once(postgres_uri: str) -> None:
    clock = FrozenClock()
    ledgers = [open_ledger(postgres_uri, clock=clock, ttl=10.0) for _ in range(3)]
    limits = (Limit("app"), Limit("slid", window=Window(sliding=86_400.0)))
    for number in range(40):
        ledgers[0].reserve(f"k{number}", Amount(tokens=3), (*limits, Limit(f"step:{number}")))
    clock.advance(11.0)
    with ThreadPoolExecutor(9) as pool:
        seen = list(pool.map(lambda number: ledgers[number % 3].balance("app").spent.tokens, range(9)))
        list(pool.map(lambda number: ledgers[number % 3].settle(f"k{number}", Amount(tokens=1)), range(30)))
    assert seen == [120] * 9
    assert ledgers[0].balance("app").spent == ledgers[0].balance("slid").spent == Amount(tokens=30 + 10 * 3)
    assert ledgers[0].balance("app").expired == 40
    for ledger in ledgers:
        ledger.close()


def test_only_who_shares_a_scope_waits_for_it(two: tuple[Ledger, Ledger], postgres_uri: str) -> None:
    other, mine = (Limit("other"),), (Limit("mine"),)
    waiter = open_ledger(f"{postgres_uri}&timeout=0.2")
    with two[0]._store.transaction(mine) as books:  # type: ignore[attr-defined]
        books.find("held")
        assert waiter.reserve("k", Amount(tokens=1), other).state == "open"
        with pytest.raises(LedgerUnavailableError, match="another process kept it locked"):
            waiter.reserve("l", Amount(tokens=1), (*other, *mine))
        with pytest.raises(LedgerUnavailableError, match="another process kept it locked"):
            waiter.refund("held")
    assert waiter.reserve("l", Amount(tokens=1), (*other, *mine)).state == "open"
    assert waiter.balance("other").reserved == Amount(tokens=2)
    waiter.close()


def test_who_books_overdue_leases_waits_for_operations_in_progress(postgres_uri: str) -> None:
    clock = FrozenClock()
    holder, waiter = (
        open_ledger(postgres_uri, clock=clock, ttl=10.0),
        open_ledger(f"{postgres_uri}&timeout=0.2", clock=clock, ttl=10.0),
    )
    holder.reserve("k", Amount(tokens=3), (Limit("app"),))
    clock.advance(11.0)
    with holder._store.transaction() as books:  # type: ignore[attr-defined]
        books.find("k")
        for look in (partial(waiter.balance, "app"), partial(waiter.reservation, "k")):
            with pytest.raises(LedgerUnavailableError, match="another process kept it locked"):
                look()
    balance = waiter.balance("app")
    assert (balance.spent, balance.reserved, balance.expired) == (Amount(tokens=3), Amount(), 1)
    holder.close()
    waiter.close()


def test_an_operation_is_two_round_trips(postgres_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(postgres_uri, clock=FrozenClock())
    ledger.reserve("first", Amount(tokens=1), ())  # it tidies up, which is not due again while the clock stands
    trips: list[Any] = []
    with cast("Any", ledger)._store._connections.one() as connection:
        ask = connection.ask

        def counted(statements: Any) -> Any:
            trips.append(statements)
            return ask(statements)

        monkeypatch.setattr(connection, "ask", counted)
    operations: tuple[Callable[[], object], ...] = (
        partial(ledger.reserve, "k", Amount(tokens=1), (Limit("app"), Limit("session"), Limit("step"))),
        partial(ledger.extend, "k", Amount(tokens=1)),
        partial(ledger.settle, "k", Amount(tokens=2)),
    )
    for operation in operations:
        trips.clear()
        operation()
        assert len(trips) == 2
    ledger.close()
