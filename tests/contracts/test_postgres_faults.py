"""The ledger in PostgreSQL through deaths of processes, forks, servers that die and networks that fail."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import pytest

from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.ledger.standby import standby
from governor.protocols import Auditable, Ledger, Reservation
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock, raised
from tests.contracts.test_ledger_faults import after, start
from tests.cut_proxy import CutProxy
from tests.postgres_servers import PostgresServer

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_killed_between_any_two_operations_loses_and_doubles_nothing(postgres_uri: str, seed: int) -> None:
    worker = start("churn", postgres_uri, "w", 100_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]  # it runs
    time.sleep(random.Random(seed).uniform(0.0, 0.05))
    worker.send_signal(signal.SIGKILL)
    confirmed += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    worker.wait()
    worker.stdout.close()
    ledger = open_ledger(postgres_uri, clock=FrozenClock(time.time() + 10_000))
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
    postgres: PostgresServer, two: tuple[Ledger, Ledger]
) -> None:
    workers = [Insisting(two[number % 2], f"w{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(worker.run) for worker in workers]
        for pause in (0.2, 0.3, 0.25):
            time.sleep(pause)
            postgres.kill()
            time.sleep(0.05)
            postgres.start()
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
    postgres: PostgresServer, postgres_uri: str
) -> None:
    ledger = open_ledger(postgres_uri)
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    postgres.kill()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(
            LedgerUnavailableError, match=r"ledger postgresql://127\.0\.0\.1:\d+/postgres, schema "
        ) as told:
            ledger.settle("k", Amount(tokens=1))
        assert "\n" not in str(told.value)
    assert time.monotonic() - began < 1.0
    postgres.start()
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    ledger.close()


def test_a_process_that_starts_while_the_server_is_down_lives_on_its_emergency_cap(
    postgres: PostgresServer, postgres_uri: str
) -> None:
    clock = FrozenClock()
    postgres.kill()
    ledger = standby(open_ledger(postgres_uri, clock=clock), Limit("emergency", tokens=100), clock=clock)
    ledger.reserve("k", Amount(tokens=60), (Limit("app"),))
    with pytest.raises(BudgetExceededError):
        ledger.reserve("l", Amount(tokens=60), (Limit("app"),))
    ledger.settle("k", Amount(tokens=50))
    postgres.start()
    clock.advance(60.0)
    assert ledger.balance("app").spent == Amount(tokens=50)
    ledger.close()


def test_a_restart_between_two_operations_is_not_even_noticed(postgres: PostgresServer, postgres_uri: str) -> None:
    ledger = open_ledger(postgres_uri)
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    postgres.kill()
    postgres.start()
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    ledger.close()


def test_a_client_that_falls_silent_in_mid_operation_loses_its_turn_and_writes_nothing(
    postgres: PostgresServer, schema: str
) -> None:
    other, silent = open_ledger(postgres.uri(schema)), open_ledger(postgres.uri(schema, timeout=0.1))
    other.reserve("k", Amount(tokens=1), (Limit("app"),))  # it has the time to make the tables

    def renew_late() -> None:
        with silent._store.transaction() as books:  # type: ignore[attr-defined]
            held = books.find("k")
            assert other.settle("k", Amount(tokens=1)).state == "settled"  # once the server has ended the other's turn
            books.keep(held, ())

    raised(LedgerUnavailableError, renew_late)
    settled = other.reservation("k")
    assert settled is not None
    assert settled.state == "settled"
    assert silent.balance("app").spent == Amount(tokens=1)
    silent.close()
    other.close()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CutProxy]:
    made = CutProxy(postgres.port)
    yield made
    made.close()


def test_a_network_that_falls_silent_ends_the_wait_and_mends(
    postgres: PostgresServer, schema: str, proxy: CutProxy
) -> None:
    patient = open_ledger(postgres.uri(schema))
    patient.reserve("k", Amount(tokens=1), (Limit("app"),))
    ledger = open_ledger(postgres.uri(schema, port=proxy.port, timeout=0.3))
    assert ledger.balance("app").reserved == Amount(tokens=1)  # it is connected
    proxy.silent = True
    with pytest.raises(LedgerUnavailableError, match=r"the server did not answer for 1\.3 s"):
        ledger.settle("k", Amount(tokens=1))
    proxy.silent = False
    assert ledger.settle("k", Amount(tokens=1)).state == "settled"
    assert patient.balance("app").spent == Amount(tokens=1)
    ledger.close()
    patient.close()


def test_an_operation_whose_confirmation_was_lost_has_happened_and_may_be_repeated(
    postgres: PostgresServer, schema: str, proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.ledger.postgres_rows import PostgresBooks  # here, as it needs psycopg

    ledger = open_ledger(postgres.uri(schema, port=proxy.port), clock=FrozenClock())
    beside = open_ledger(postgres.uri(schema), clock=FrozenClock())
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


def test_a_forked_child_uses_its_own_connection(postgres_uri: str) -> None:
    ledger = open_ledger(postgres_uri)
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


def test_a_fork_while_other_threads_use_every_connection_does_not_hang_the_child(postgres_uri: str) -> None:
    ledger = open_ledger(postgres_uri)
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


def test_a_closed_ledger_says_so(postgres_uri: str) -> None:
    ledger = open_ledger(postgres_uri)
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="it was closed"):
        ledger.balance("app")
