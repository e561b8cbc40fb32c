"""A Redis ledger under what happens to servers, networks and clients."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from governor.errors import BudgetExceededError, LedgerError, LedgerLostError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.ledger.redis_calls import KEPT, Call
from governor.ledger.redis_link import AsyncLink, Link
from governor.ledger.redis_store import AsyncRedisLedger, RedisLedger
from governor.protocols import Balance
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock
from tests.contracts.ledger_machine import LedgerMachine
from tests.contracts.test_ledger_faults import after, start
from tests.cut_proxy import CutProxy
from tests.ports import free_port
from tests.redis_servers import RedisServer

APP = Limit("app", tokens=1_000)
PATIENT = 5
"""Seconds for an operation where the limit is not the subject; usual is one."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


@pytest.fixture
def uri(redis_server: RedisServer) -> str:
    return f"{redis_server.uri}?timeout={PATIENT}&tenant={uuid4().hex}"


@pytest.fixture
def own_server(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a server that a test may kill."""
    started: list[RedisServer] = []

    def started_with(*options: str) -> RedisServer:
        started.append(RedisServer(tmp_path, options or DURABLE))
        started[-1].start()
        return started[-1]

    yield started_with
    for server in started:
        server.kill()


def patient(uri: str) -> str:
    return uri if "timeout=" in uri else f"{uri}{'&' if '?' in uri else '?'}timeout={PATIENT}"


def opened(uri: str, clock: Callable[[], float] = time.time) -> RedisLedger:
    ledger = open_ledger(patient(uri), clock=clock)
    assert isinstance(ledger, RedisLedger)
    return ledger


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each time that a server is asked. No try lasts longer than half of its ledger's limit."""
    made: list[str] = []
    evaluate, attempt = Link._evaluate, AsyncLink._attempt

    def blocking(link: Link, client: Any, call: Call) -> list[Any]:
        made.append("blocking")
        return evaluate(link, client, call)

    async def awaited(link: AsyncLink, batch: list[Call]) -> list[Any]:
        made.append("awaited")
        return await attempt(link, batch)

    monkeypatch.setattr(Link, "_evaluate", blocking)
    monkeypatch.setattr(AsyncLink, "_attempt", awaited)
    return made


def limits_of(ledger: RedisLedger | AsyncRedisLedger) -> tuple[float, float]:
    """Seconds for a connection to open, and to answer."""
    link: Any = ledger._link
    known = link._client.connection_pool.connection_kwargs
    return known["socket_connect_timeout"], known["socket_timeout"]


# histories


class RedisMachine(LedgerMachine):
    server: RedisServer

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open_again()
        self.last = None

    @rule()
    def forget_scripts(self) -> None:
        with self.server.client as client:
            client.script_flush()


class DyingRedisMachine(RedisMachine):
    @rule()
    def kill_the_server(self) -> None:
        self.server.kill()
        self.server.start()


def run_machine(kind: type[RedisMachine], server: RedisServer, examples: int, steps: int) -> None:
    machine = type("Machine", (kind,), {"server": server, "uri": f"{server.uri}?timeout={PATIENT}&tenant={{}}"})
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow),
    )


def test_random_histories_agree_with_the_model(redis_server: RedisServer) -> None:
    run_machine(RedisMachine, redis_server, 20, 25)


@pytest.mark.slow
def test_many_random_histories_agree_with_the_model(redis_server: RedisServer) -> None:
    run_machine(RedisMachine, redis_server, 400, 50)


@pytest.mark.slow
def test_random_histories_survive_a_server_that_dies(own_server: Callable[..., RedisServer]) -> None:
    run_machine(DyingRedisMachine, own_server(), 40, 30)


# many at once


def test_fifty_calls_of_half_a_dollar_against_one_admit_exactly_two(uri: str) -> None:
    ledgers = [opened(uri) for _ in range(10)]
    session = Limit("session", micros=1_000_000)

    def attempt(number: int) -> int:
        try:
            ledgers[number % 10].reserve(f"call {number}", Amount(micros=500_000), (session,))
        except BudgetExceededError:
            return 0
        return 1

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(attempt, range(50))) == 2
    assert ledgers[0].balance("session").reserved == Amount(micros=1_000_000)
    for ledger in ledgers:
        ledger.close()


def test_four_processes_of_a_hundred_attempts_admit_exactly_the_floor(uri: str) -> None:
    workers = [start("race", uri, f"w{number}", 100) for number in range(4)]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sum(int(text) for text in printed) == 1_000 // 7
    ledger = opened(uri)
    assert ledger.balance("app").reserved == Amount(tokens=1_000 // 7 * 7)
    ledger.close()


def test_tasks_of_one_loop_share_an_awaited_ledger(uri: str) -> None:
    async def race() -> int:
        ledger = AsyncRedisLedger(uri, time.time, 60.0, 3_600.0)
        holds = [ledger.reserve(f"k{number}", Amount(tokens=7), (APP,)) for number in range(200)]
        answers = await asyncio.gather(*holds, return_exceptions=True)
        await ledger.close()
        return sum(not isinstance(answer, BaseException) for answer in answers)

    assert asyncio.run(race()) == 1_000 // 7


def test_reading_books_more_leases_than_one_call_takes(uri: str) -> None:
    clock = FrozenClock()
    ledger = opened(uri, clock)
    for number in range(1_100):
        ledger.reserve(f"k{number}", Amount(tokens=1), (Limit("many"),))
    clock.advance(1_000.0)
    balance = ledger.balance("many")
    assert (balance.spent, balance.reserved, balance.expired) == (Amount(tokens=1_100), Amount(), 1_100)
    assert len(ledger.reservations("k1")) == 1 + 10 + 100 + 100
    ledger.close()


def test_nothing_is_left_of_what_is_forgotten(redis_server: RedisServer, uri: str) -> None:
    clock = FrozenClock()
    ledger = open_ledger(uri, clock=clock, ttl=60.0, keep=600.0)
    assert isinstance(ledger, RedisLedger)
    for number in range(300):
        key, idle = f"k{number}", Window(idle=0.0)
        ledger.reserve(
            key, Amount(tokens=1), (Limit(f"step:{number}", window=idle), Limit("app")), sent=bool(number % 2)
        )
        if number % 3:
            ledger.settle(key, Amount(tokens=1))
        ledger.save(f"session:{number}", b"x", 0, ttl=10.0)
    for _ in range(12):  # at most 64 rows are forgotten at a time
        clock.advance(700.0)
        ledger.refund(ledger.reserve(f"at {clock()}", Amount(), ()).key)
        _, version = ledger.load("last") or (b"", 0)
        ledger.save("last", b"x", version)
    with redis_server.client as client:
        sizes = {key: size_of(client, f"governor:{{{uri.rpartition('=')[2]}}}:{key}") for key in KEPT}
    assert sizes == {
        "epoch": 5,
        "holds": 1,
        "sums": 1,
        "leases": 0,
        "closed": 1,
        "due": 0,
        "shelf": 1,
        "expiries": 0,
    }
    ledger.close()


def size_of(client: Any, key: str) -> int:
    return int({"hash": client.hlen, "zset": client.zcard, "none": lambda _: 0}[client.type(key).decode()](key))


def test_a_forked_child_uses_its_own_connection(uri: str) -> None:
    ledger = opened(uri)
    ledger.reserve("parent", Amount(tokens=1), (APP,))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ledger.settle("parent", Amount(tokens=2))
            ledger.reserve("child", Amount(tokens=4), (APP,))
            code = 0
        finally:
            os._exit(code)
    for number in range(50):
        ledger.reserve(f"parent-{number}", Amount(tokens=1), (APP,))
    assert os.waitpid(child, 0)[1] == 0
    balance = ledger.balance("app")
    assert (balance.spent.tokens, balance.reserved.tokens) == (2, 54)
    ledger.close()


def test_a_socket_file_does_as_well(own_server: Callable[..., RedisServer], tmp_path: Path) -> None:
    own_server("--save", "", "--unixsocket", str(tmp_path / "r.sock"))
    ledger = opened(f"unix://{tmp_path}/r.sock?db=3&tenant=acme")
    assert ledger.reserve("k", Amount(tokens=1), (APP,)).state == "open"
    ledger.close()


# death

SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 150))]


def check_after_churn(uri: str, name: str, confirmed: int) -> None:
    """All confirmed operations of a worker are there; the one that was cut happened whole, or not at all."""
    ledger = opened(uri, FrozenClock(time.time() + 10_000))
    held = [(one.key, one.state, one.amount.tokens) for one in ledger.reservations()]
    assert held
    assert sorted(held) in (after(name, confirmed), after(name, confirmed + 1))
    spent = sum(one.amount.tokens for one in ledger.reservations() if one.state == "settled" or one.sent)
    for scope in ("app", "slid"):
        balance = ledger.balance(scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=spent), Amount())
    ledger.close()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_killed_between_any_two_operations_loses_and_doubles_nothing(uri: str, seed: int) -> None:
    worker = start("churn", uri, f"s{seed}", 100_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]  # it runs
    time.sleep(random.Random(seed).uniform(0.0, 0.05))
    worker.send_signal(signal.SIGKILL)
    confirmed += lines(worker.stdout.read())
    worker.wait()
    worker.stdout.close()
    check_after_churn(uri, f"s{seed}", len(confirmed))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_killed_in_mid_run_keeps_all_that_it_confirmed(
    own_server: Callable[..., RedisServer], seed: int
) -> None:
    server = own_server()
    worker = start("churn", patient(server.uri), f"s{seed}", 100_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]
    time.sleep(random.Random(seed).uniform(0.0, 0.1))
    server.kill()
    confirmed += lines(worker.stdout.read())
    worker.wait()
    worker.stdout.close()
    server.start()
    check_after_churn(server.uri, f"s{seed}", len(confirmed))


def test_a_ledger_goes_on_by_itself_when_its_server_is_back(
    own_server: Callable[..., RedisServer], tries: list[str]
) -> None:
    server = own_server()
    ledger = opened(server.uri)
    ledger.reserve("k", Amount(tokens=5), (APP,))
    server.kill()
    tries.clear()
    with pytest.raises(LedgerUnavailableError, match="the server can't be reached, or the connection broke") as down:
        ledger.settle("k", Amount(tokens=4))
    assert len(tries) == 2
    assert not isinstance(down.value, LedgerLostError)
    server.start()
    ledger.settle("k", Amount(tokens=4))
    assert ledger.balance("app").spent == Amount(tokens=4)
    ledger.close()


# network


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[CutProxy]:
    made = CutProxy(redis_server.port)
    yield made
    made.close()


def through(proxy: CutProxy, *, timeout: int = 1) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0?timeout={timeout}&tenant={uuid4().hex}"


def test_an_operation_whose_answer_was_lost_happens_once(proxy: CutProxy) -> None:
    ledger = opened(through(proxy, timeout=PATIENT))
    operations: tuple[Callable[[], object], ...] = (
        lambda: ledger.reserve("k", Amount(tokens=10), (APP,)),
        lambda: ledger.extend("k", Amount(tokens=5)),
        lambda: ledger.extend("k", Amount(tokens=5)),
        lambda: ledger.extend("k", Amount(tokens=30), whole=True),
        lambda: ledger.settle("k", Amount(tokens=25)),
        lambda: ledger.save("shelf", b"1", 0),
    )
    held = (10, 15, 20, 30, 0, 0)
    ledger.refund(ledger.reserve("first", Amount(), ()).key)  # the server knows all scripts
    ledger.load("shelf")
    ledger.balance("app")
    for operation, tokens in zip(operations, held, strict=True):
        proxy.lose = 1
        assert operation()
        assert proxy.lose == 0
        assert ledger.balance("app").reserved == Amount(tokens=tokens)
    assert proxy.lost == len(operations)
    assert ledger.balance("app").spent == Amount(tokens=25)
    ledger.close()


def test_a_network_that_falls_silent_is_one_clear_line_within_a_second(proxy: CutProxy, tries: list[str]) -> None:
    ledger = opened(through(proxy))
    ledger.reserve("k", Amount(tokens=10), (APP,))
    proxy.silent = True
    tries.clear()
    with pytest.raises(LedgerUnavailableError, match=rf"ledger redis://127\.0\.0\.1:{proxy.port}/0: no answer in time"):
        ledger.extend("k", Amount(tokens=5))
    assert len(tries) == 2
    assert limits_of(ledger) == (0.5, 0.5)
    proxy.silent = False
    assert ledger.extend("k", Amount(tokens=20), whole=True).amount == Amount(tokens=20)
    ledger.close()


def test_an_awaited_ledger_is_as_patient(proxy: CutProxy) -> None:
    async def history() -> Balance:
        ledger = AsyncRedisLedger(through(proxy), time.time, 60.0, 3_600.0)
        await ledger.reserve("k", Amount(tokens=10), (APP,))
        proxy.lose = 1
        await ledger.extend("k", Amount(tokens=5))
        proxy.silent = True
        with pytest.raises(LedgerUnavailableError, match="no answer in time"):
            await ledger.extend("k", Amount(tokens=5), whole=True)
        proxy.silent = False
        found = await ledger.balance("app")
        await ledger.close()
        return found

    assert asyncio.run(history()).reserved == Amount(tokens=15)


def test_many_tasks_wait_no_longer_than_one(proxy: CutProxy, tries: list[str]) -> None:
    async def history() -> None:
        ledger = AsyncRedisLedger(through(proxy), time.time, 60.0, 3_600.0)
        await ledger.balance("app")
        proxy.silent = True
        tries.clear()
        asked = [ledger.refund(f"k{number}") for number in range(600)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {LedgerUnavailableError}
        assert limits_of(ledger) == (0.5, 0.5)
        await ledger.close()

    asyncio.run(history())
    assert len(tries) == 2


def test_scripts_that_the_server_forgot_are_sent_again(redis_server: RedisServer, uri: str) -> None:
    ledger = opened(uri)
    for number in range(3):
        with redis_server.client as client:
            client.script_flush()
        ledger.reserve(f"k{number}", Amount(tokens=1), (APP,))
    assert ledger.balance("app").reserved == Amount(tokens=3)
    ledger.close()


def test_a_wrong_password_is_one_clear_line_without_it(own_server: Callable[..., RedisServer]) -> None:
    server = own_server("--save", "")
    with server.client as client:
        client.config_set("requirepass", "right")
    for user in (":wrong@", ""):
        ledger = opened(server.uri.replace("redis://", f"redis://{user}"))
        with pytest.raises(LedgerUnavailableError, match="user or password") as refused:
            ledger.balance("app")
        assert "wrong" not in str(refused.value)
        ledger.close()
    ledger = opened(server.uri.replace("redis://", "redis://:right@"))
    assert ledger.reserve("k", Amount(tokens=1), (APP,)).state == "open"
    ledger.close()


def test_a_full_memory_is_one_clear_line(own_server: Callable[..., RedisServer]) -> None:
    server = own_server("--save", "")
    ledger = opened(server.uri)
    ledger.reserve("k", Amount(tokens=1), (APP,))
    with server.client as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(LedgerUnavailableError, match="memory is full"):
            ledger.reserve("l", Amount(tokens=1), (APP,))
        client.config_set("maxmemory", 0)
    assert ledger.balance("app").reserved == Amount(tokens=1)
    ledger.close()


# lost books


def spent(scope: str, tokens: int, window: Window = Window()) -> Balance:
    return Balance(scope=scope, spent=Amount(tokens=tokens), window=window)


@pytest.mark.parametrize("newcomer", [False, True])
def test_flushed_books_admit_nothing_until_they_are_rebuilt(
    redis_server: RedisServer, uri: str, newcomer: bool
) -> None:
    one, other = opened(uri), opened(uri)
    one.settle(one.reserve("k", Amount(tokens=600), (APP,)).key, Amount(tokens=600))
    other.balance("app")
    with redis_server.client as client:
        for key in client.scan_iter(f"governor:{{{uri.rpartition('=')[2]}}}:*"):
            client.delete(key)
    if newcomer:  # whoever knew nothing begins anew, until somebody comes who knows
        opened(uri).reserve("new", Amount(tokens=1), (APP,))
    for ledger in (one, other, opened(uri)):
        with pytest.raises(LedgerLostError, match="its books were lost"):
            ledger.reserve("l", Amount(tokens=500), (APP,))
    sliding = Window(sliding=3_600.0)
    opened(uri).rebuild([spent("app", 600), spent("slid", 30, sliding)])
    for ledger in (one, other, opened(uri)):
        assert ledger.balance("app").spent == Amount(tokens=600)
        with pytest.raises(BudgetExceededError):
            ledger.reserve("l", Amount(tokens=500), (APP, Limit("slid", window=sliding)))
    assert other.reserve("l", Amount(tokens=400), (APP, Limit("slid", tokens=900, window=sliding))).state == "open"
    assert one.balances() == opened(uri).balances()


def test_an_older_state_after_a_restart_is_noticed(own_server: Callable[..., RedisServer]) -> None:
    server = own_server("--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb")
    ledger = opened(server.uri)
    ledger.reserve("k", Amount(tokens=1), (APP,))
    with server.client as client:
        client.save()
    server.kill()
    server.start()
    ledger.settle("k", Amount(tokens=1))  # what the snapshot holds is all there was
    server.kill()
    server.start()
    with pytest.raises(LedgerLostError, match="or are older than what was confirmed"):
        ledger.reserve("l", Amount(tokens=1), (APP,))
    ledger.rebuild([spent("app", 1)])
    assert ledger.balance("app").spent == Amount(tokens=1)
    ledger.close()


def test_a_rebuilding_that_was_cut_short_leaves_the_ledger_closed(redis_server: RedisServer, uri: str) -> None:
    ledger = opened(uri)
    ledger.reserve("k", Amount(tokens=1), (APP,))
    broken = ledger._calls.rebuild([spent("app", 1)])
    ledger._link.ask(next(broken))
    with pytest.raises(LedgerLostError):
        ledger.reserve("l", Amount(tokens=1), (APP,))
    opened(uri).rebuild([spent("app", 7)])
    assert ledger.balance("app").spent == Amount(tokens=7)
    with pytest.raises(LedgerUnavailableError, match="another rebuilding"):
        broken.send(ledger._link.ask(broken.send([1])))


def test_a_ledger_that_must_exist_is_not_begun(uri: str) -> None:
    with pytest.raises(LedgerLostError):
        opened(f"{uri}&create=no").balance("app")
    opened(uri).reserve("k", Amount(tokens=1), (APP,))
    assert opened(f"{uri}&create=no").balance("app").reserved == Amount(tokens=1)


def test_rows_of_another_format_are_left_alone(redis_server: RedisServer, uri: str) -> None:
    opened(uri).reserve("k", Amount(tokens=1), (APP,))
    with redis_server.client as client:
        client.hset(f"governor:{{{uri.rpartition('=')[2]}}}:epoch", "format", 2)
    with pytest.raises(LedgerUnavailableError, match=r"format 2, known is 1"):
        opened(uri).balance("app")


@pytest.mark.parametrize("value", [b"gratis", b"\x83", b"", b"\x80"])
def test_a_damaged_shelf_value_is_one_clear_line(redis_server: RedisServer, uri: str, value: bytes) -> None:
    ledger = opened(uri)
    ledger.save("k", b"groats", 0)
    ledger.save("l", b"sound", 0)
    with redis_server.client as client:
        client.hset(f"governor:{{{uri.rpartition('=')[2]}}}:shelf", "k", value)
    for ask in (lambda: ledger.load("k"), lambda: ledger.save("k", b"new", 0)):
        with pytest.raises(LedgerError, match="shelf value 'k' is damaged"):
            ask()
    found = ledger.load("l")
    assert found is not None
    assert found[0] == b"sound"


# a cluster


def test_a_cluster_keeps_a_tenant_in_one_slot(own_server: Callable[..., RedisServer]) -> None:
    server = own_server("--save", "", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with server.client as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        end = time.monotonic() + 10
        while b"cluster_state:ok" not in _cluster_info(client):
            assert time.monotonic() < end
            time.sleep(0.05)
    for tenant in ("acme", "other"):
        ledger = opened(f"{server.uri}?tenant={tenant}&cluster=yes")
        ledger.reserve("k", Amount(tokens=10), (APP, Limit("session"), Limit(f"tenant:{tenant}")))
        with pytest.raises(BudgetExceededError):
            ledger.reserve("l", Amount(tokens=991), (APP,))
        ledger.settle("k", Amount(tokens=5))
        assert ledger.save("shelf", b"1", 0)
        assert ledger.balance("app").spent == Amount(tokens=5)
        ledger.close()


def _cluster_info(client: Any) -> bytes:
    info: Any = client.execute_command("CLUSTER", "INFO")
    return info if isinstance(info, bytes) else repr(info).replace("': '", ":").encode()
