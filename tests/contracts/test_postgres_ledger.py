"""The contracts and the faults of the ledger in PostgreSQL, against a server of this module's own."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from governor.errors import BudgetExceededError, LedgerError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.ledger.standby import standby
from governor.protocols import Auditable, Ledger, Reservation, Shelf
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock, LedgerContract, ShelfContract
from tests.contracts.ledger_machine import TTL, LedgerMachine
from tests.contracts.postgres_server import PostgresServer, server_folder
from tests.contracts.test_ledger_faults import after, start
from tests.cut_proxy import CutProxy

_NAMES = (f"ledger_{number}" for number in count())


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    programs = server_folder()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    made = PostgresServer(programs)
    PostgresMachine.server = made
    yield made
    made.stop()


@pytest.fixture
def schema() -> str:
    return next(_NAMES)


@pytest.fixture
def uri(server: PostgresServer, schema: str) -> str:
    return server.uri(schema)


@pytest.fixture
def two(uri: str) -> Iterator[tuple[Ledger, Ledger]]:
    """As two processes have them."""
    ledgers = open_ledger(uri), open_ledger(uri)
    yield ledgers
    for ledger in ledgers:
        ledger.close()


# the contracts


class TestPostgres(LedgerContract):
    keep = 20_000.0

    @pytest.fixture(autouse=True)
    def _server(self, server: PostgresServer) -> Iterator[None]:
        self.server = server
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        self.opened.append(open_ledger(self.server.uri(next(_NAMES)), clock=clock, ttl=ttl, keep=self.keep))
        return self.opened[-1]


class TestPostgresShelf(ShelfContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: PostgresServer) -> Iterator[None]:
        self.server = server
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        self.opened.append(open_ledger(self.server.uri(next(_NAMES)), clock=clock))
        return cast("Shelf", self.opened[-1])


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


def test_four_processes_of_a_hundred_attempts_admit_exactly_the_floor(uri: str) -> None:
    workers = [start("race", uri, f"w{number}", 100) for number in range(4)]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    admitted = [int(text) for text in printed]
    assert sum(admitted) == 1_000 // 7
    ledger = open_ledger(uri)
    assert ledger.balance("app").reserved == Amount(tokens=1_000 // 7 * 7)
    assert [ledger.balance(f"step:w{number}").reserved.tokens for number in range(4)] == [7 * n for n in admitted]
    ledger.close()


def test_processes_may_make_one_ledger_at_the_same_time(uri: str) -> None:
    workers = [start("race", uri, f"w{number}", 2) for number in range(4)]
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


def test_many_that_book_overdue_leases_at_once_book_each_once(uri: str) -> None:
    clock = FrozenClock()
    ledgers = [open_ledger(uri, clock=clock, ttl=10.0) for _ in range(3)]
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


def test_only_who_shares_a_scope_waits_for_it(two: tuple[Ledger, Ledger], uri: str) -> None:
    other, mine = (Limit("other"),), (Limit("mine"),)
    waiter = open_ledger(f"{uri}&timeout=0.2")
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


def test_who_books_overdue_leases_waits_for_operations_in_progress(uri: str) -> None:
    clock = FrozenClock()
    holder, waiter = open_ledger(uri, clock=clock, ttl=10.0), open_ledger(f"{uri}&timeout=0.2", clock=clock, ttl=10.0)
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


def test_an_operation_is_two_round_trips(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(uri, clock=FrozenClock())
    ledger.reserve("first", Amount(tokens=1), ())  # it tidies up, which is not due again while the clock stands
    store = cast("Any", ledger)._store
    trips: list[Any] = []
    with store._connections.one() as connection:
        pipeline = connection.pipeline

        def counted() -> Any:
            trips.append(pipeline())
            return trips[-1]

        monkeypatch.setattr(connection, "pipeline", counted)
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


# deaths


SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_killed_between_any_two_operations_loses_and_doubles_nothing(uri: str, seed: int) -> None:
    worker = start("churn", uri, "w", 100_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]  # it runs
    time.sleep(random.Random(seed).uniform(0.0, 0.05))
    worker.send_signal(signal.SIGKILL)
    confirmed += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    worker.wait()
    worker.stdout.close()
    ledger = open_ledger(uri, clock=FrozenClock(time.time() + 10_000))
    assert isinstance(ledger, Auditable)
    held = [(one.key, one.state, one.amount.tokens) for one in ledger.reservations()]
    assert sorted(held) in (after("w", len(confirmed)), after("w", len(confirmed) + 1))
    spent = sum(one.amount.tokens for one in ledger.reservations() if one.state == "settled" or one.sent)
    for scope in ("app", "slid"):
        balance = ledger.balance(scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=spent), Amount())
    ledger.close()


class Insisting:
    """Steps of one thread, every operation repeated until it is confirmed."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger, self._name = ledger, name
        self.steps = self.failures = 0
        self.running = True

    def run(self) -> None:
        limits = (Limit("app", tokens=10**9), Limit("slid", window=Window(sliding=86_400.0)))
        while self.running:
            key = f"{self._name}-{self.steps}"
            self._insist(partial(self._ledger.reserve, key, Amount(tokens=5), limits))
            self._insist(partial(self._ledger.extend, key, Amount(tokens=10), whole=True))
            self._insist(partial(self._ledger.settle, key, Amount(tokens=8)))
            self.steps += 1

    def _insist(self, operation: Callable[[], object]) -> None:
        while True:
            try:
                operation()
            except LedgerUnavailableError:
                self.failures += 1
                time.sleep(0.01)
            else:
                return


def test_what_is_repeated_until_it_is_confirmed_happens_once_through_deaths_of_the_server(
    server: PostgresServer, two: tuple[Ledger, Ledger]
) -> None:
    workers = [Insisting(two[number % 2], f"w{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(worker.run) for worker in workers]
        for pause in (0.2, 0.3, 0.25):
            time.sleep(pause)
            server.kill()
            time.sleep(0.05)
            server.start()
        time.sleep(0.2)
        for worker in workers:
            worker.running = False
        for one in running:
            one.result()
    steps = sum(worker.steps for worker in workers)
    assert steps > 12
    assert sum(worker.failures for worker in workers) > 3
    for scope in ("app", "slid"):
        balance = two[0].balance(scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=8 * steps), Amount())


def test_a_server_that_is_down_is_one_clear_line_at_once_and_found_again_when_it_is_back(
    server: PostgresServer, uri: str
) -> None:
    ledger = open_ledger(uri)
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    server.kill()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(
            LedgerUnavailableError, match=r"ledger postgresql://127\.0\.0\.1:\d+/postgres, schema "
        ) as told:
            ledger.settle("k", Amount(tokens=1))
        assert "\n" not in str(told.value)
    assert time.monotonic() - began < 1.0
    server.start()
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    ledger.close()


def test_a_process_that_starts_while_the_server_is_down_lives_on_its_emergency_cap(
    server: PostgresServer, uri: str
) -> None:
    clock = FrozenClock()
    server.kill()
    ledger = standby(open_ledger(uri, clock=clock), Limit("emergency", tokens=100), clock=clock)
    ledger.reserve("k", Amount(tokens=60), (Limit("app"),))
    with pytest.raises(BudgetExceededError):
        ledger.reserve("l", Amount(tokens=60), (Limit("app"),))
    ledger.settle("k", Amount(tokens=50))
    server.start()
    clock.advance(60.0)
    assert ledger.balance("app").spent == Amount(tokens=50)
    ledger.close()


def test_a_restart_between_two_operations_is_not_even_noticed(server: PostgresServer, uri: str) -> None:
    ledger = open_ledger(uri)
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    server.kill()
    server.start()
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    ledger.close()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[CutProxy]:
    made = CutProxy(server.port)
    yield made
    made.close()


def test_a_network_that_falls_silent_ends_the_wait_and_mends(
    server: PostgresServer, schema: str, proxy: CutProxy
) -> None:
    ledger = open_ledger(server.uri(schema, port=proxy.port, timeout=0.3))
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    proxy.silent = True
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError, match="the server did not answer for"):
        ledger.settle("k", Amount(tokens=1))
    assert 0.3 < time.monotonic() - began < 3.0
    proxy.silent = False
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    assert ledger.balance("app").spent == Amount(tokens=1)
    ledger.close()


def test_an_operation_whose_confirmation_was_lost_has_happened_and_may_be_repeated(
    server: PostgresServer, schema: str, proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.ledger.postgres_rows import PostgresBooks  # here, as it needs psycopg

    ledger = open_ledger(server.uri(schema, port=proxy.port), clock=FrozenClock())
    beside = open_ledger(server.uri(schema), clock=FrozenClock())
    ledger.reserve("first", Amount(), ())  # it tidies up, which is not due again while the clock stands
    commit = PostgresBooks.commit

    def commit_unheard(books: PostgresBooks) -> None:
        proxy.lose = 1
        commit(books)

    operations: tuple[tuple[Callable[[], Reservation], int], ...] = (
        (partial(ledger.reserve, "k", Amount(tokens=60), (Limit("app", tokens=100),)), 60),
        (partial(ledger.extend, "k", Amount(tokens=90), whole=True), 90),
        (partial(ledger.settle, "k", Amount(tokens=80)), 80),
    )
    for number, (ask, tokens) in enumerate(operations):
        with monkeypatch.context() as cut:
            cut.setattr(PostgresBooks, "commit", commit_unheard)
            with pytest.raises(LedgerUnavailableError):
                ask()
        assert proxy.lost == number + 1
        held = beside.reservation("k")
        assert held is not None
        assert held.amount == ask().amount == Amount(tokens=tokens)
    balance = beside.balance("app")
    assert (balance.spent, balance.reserved) == (Amount(tokens=80), Amount())
    ledger.close()
    beside.close()


# forks and threads


def test_a_forked_child_uses_its_own_connection(uri: str) -> None:
    ledger = open_ledger(uri)
    ledger.reserve("parent", Amount(tokens=1), (Limit("app"),))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ledger.settle("parent", Amount(tokens=2))
            ledger.reserve("child", Amount(tokens=4), (Limit("app"),))
            code = 0
        finally:
            os._exit(code)
    for number in range(20):
        ledger.reserve(f"parent-{number}", Amount(tokens=1), (Limit("app"),))
    assert os.waitpid(child, 0)[1] == 0
    balance = ledger.balance("app")
    assert (balance.spent.tokens, balance.reserved.tokens) == (2, 24)
    ledger.close()


def test_a_fork_while_other_threads_use_every_connection_does_not_hang_the_child(uri: str) -> None:
    ledger = open_ledger(uri)
    busy = True

    def keep_busy(name: int) -> None:
        for number in count():
            ledger.reserve(f"{name}-{number}", Amount(tokens=1), (Limit(f"thread-{name}"),))
            if not busy:
                return

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(keep_busy, name) for name in range(6)]
        codes: list[int] = []
        for number in range(6):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                code = 1
                try:
                    ledger.reserve(f"c{number}", Amount(tokens=1), (Limit("children"),))
                    code = 0
                finally:
                    os._exit(code)
            codes.append(os.waitpid(child, 0)[1])
        busy = False
        for one in running:
            one.result()
    assert codes == [0] * 6
    assert ledger.balance("children").reserved.tokens == 6
    ledger.close()


def test_a_closed_ledger_says_so(uri: str) -> None:
    ledger = open_ledger(uri)
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="it was closed"):
        ledger.balance("app")


# whose tables


def test_a_schema_of_another_program_is_refused(server: PostgresServer, schema: str, uri: str) -> None:
    with server.connect(schema) as other:
        other.execute(f'CREATE SCHEMA "{schema}"'.encode())
        other.execute(b"CREATE TABLE guests (name text)")
    with pytest.raises(
        LedgerUnavailableError, match=r"belongs to another program, choose another one with \?schema=NAME"
    ):
        open_ledger(uri).balance("app")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"UPDATE ledger SET version = 2", r"newer version \(schema 2, known is 1\): upgrade compute-governor"),
        (b"UPDATE ledger SET application = 'accounts'", "belongs to another program"),
        (b"ALTER TABLE ledger DROP COLUMN version", "belongs to another program"),
        (b"DELETE FROM ledger", "belongs to another program"),
    ],
)
def test_tables_that_are_not_this_version_s_are_refused(
    server: PostgresServer, schema: str, uri: str, change: bytes, message: str
) -> None:
    ledger = open_ledger(uri)
    ledger.balance("app")
    ledger.close()
    with server.connect(schema) as other:
        other.execute(change)
    with pytest.raises(LedgerUnavailableError, match=message):
        open_ledger(uri).balance("app")


def test_a_user_without_the_right_to_create_uses_a_schema_that_is_there(server: PostgresServer, schema: str) -> None:
    with server.connect("public") as other:
        other.execute(f'CREATE ROLE "{schema}" LOGIN'.encode())
    uri = server.uri(schema).replace("governor@", f"{schema}@")
    with pytest.raises(LedgerUnavailableError, match="the user may not read or write there"):
        open_ledger(uri).balance("app")
    with server.connect("public") as other:
        other.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{schema}"'.encode())
    ledger = open_ledger(uri)
    assert ledger.reserve("k", Amount(tokens=1), ()).state == "open"
    ledger.close()


def test_a_database_that_is_not_there_is_one_clear_line(uri: str) -> None:
    with pytest.raises(LedgerUnavailableError, match='database "nowhere" does not exist'):
        open_ledger(uri.replace("/postgres?", "/nowhere?")).balance("app")


def test_what_the_uri_says_beside_is_the_client_library_s(server: PostgresServer, schema: str) -> None:
    ledger = open_ledger(server.uri(schema, options="-c%20synchronous_commit%3Doff", application_name="a%26b"))
    with ledger._store._connections.one() as connection:  # type: ignore[attr-defined]
        shown = connection.execute("SELECT current_setting('synchronous_commit'), current_setting('application_name')")
        assert shown.fetchone() == ("off", "a&b")
    ledger.close()


def test_a_text_that_the_server_can_not_hold_is_refused_and_nothing_kept(uri: str) -> None:
    ledger = open_ledger(uri)
    assert isinstance(ledger, Auditable)
    with pytest.raises(LedgerError, match="NUL"):
        ledger.reserve("k\0", Amount(tokens=1), (Limit("app"),))
    with pytest.raises(LedgerError, match="NUL"):
        ledger.reserve("k", Amount(tokens=1), (Limit("app\0"),))
    ledger.reserve('k \u00e9\U0001f600"\\', Amount(tokens=1), (Limit('app \u00e9\U0001f600"\\'),))
    assert ledger.extend('k \u00e9\U0001f600"\\', Amount(tokens=1)).amount == Amount(tokens=2)
    assert [(one.scope, one.reserved.tokens) for one in ledger.balances()] == [('app \u00e9\U0001f600"\\', 2)]
    ledger.close()


def test_a_damaged_value_of_the_shelf_is_one_clear_line(server: PostgresServer, schema: str, uri: str) -> None:
    ledger = open_ledger(uri)
    shelf = cast("Shelf", ledger)
    shelf.save("k", b"groats", 0)
    shelf.save("l", b"sound", 0)
    with server.connect(schema) as other:
        other.execute(b"UPDATE shelf SET value = 'gratis' WHERE key = 'k'")
    with pytest.raises(LedgerError, match="shelf value 'k' is damaged: its checksum does not fit"):
        shelf.load("k")
    assert (shelf.load("l") or (b"",))[0] == b"sound"
    ledger.close()
