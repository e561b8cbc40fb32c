from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest

from governor.errors import LedgerUnavailableError
from governor.ledger import open_ledger, sqlite
from governor.protocols import Auditable, Ledger
from governor.records import Amount, Limit
from governor.testing import FrozenClock

WORKER = str(Path(__file__).with_name("ledger_worker.py"))


def start(mode: str, uri: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, WORKER, mode, uri, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


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


@pytest.mark.parametrize("round_", range(5))
def test_processes_may_make_one_ledger_at_the_same_time(uri: str, round_: int) -> None:
    workers = [start("race", uri, f"w{number}", 1 + round_) for number in range(4)]
    printed = [worker.communicate()[0] for worker in workers]
    assert printed == [f"{1 + round_}\n"] * 4


SEEDS = [*range(24), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(24, 400))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_killed_between_any_two_operations_loses_and_doubles_nothing(uri: str, seed: int) -> None:
    clock = FrozenClock(time.time() + 10_000)
    worker = start("churn", uri, f"s{seed}", 100_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]  # it runs
    time.sleep(random.Random(seed).uniform(0.0, 0.03))
    worker.send_signal(signal.SIGKILL)
    confirmed += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    worker.wait()
    worker.stdout.close()
    ledger = open_ledger(uri, clock=clock)
    assert isinstance(ledger, Auditable)
    held = [(one.key, one.state, one.amount.tokens) for one in ledger.reservations()]
    # The operation that was cut may have happened whole, or not at all.
    assert sorted(held) in (after(f"s{seed}", len(confirmed)), after(f"s{seed}", len(confirmed) + 1))
    spent = sum(one.amount.tokens for one in ledger.reservations() if one.state == "settled" or one.sent)
    for scope in ("app", "slid"):
        balance = ledger.balance(scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=spent), Amount())
    ledger.close()


def after(name: str, operations: int) -> list[tuple[str, str, int]]:
    """What `churn` leaves behind after so many operations, once the last lease ran out; one that was not sent counts
    0."""
    keys = [f"{name}-{number}" for number in range((operations + 2) // 3)]
    found = [(key, *(("settled", 8) if number % 3 else ("refunded", 0))) for number, key in enumerate(keys)]
    if operations % 3:
        found[-1] = (keys[-1], "expired", 5 * (operations % 3))
    return sorted(found)


def test_a_full_disk_is_one_clear_line_and_mends_once_there_is_space(uri: str, tmp_path: Path) -> None:
    size = 300_000
    output, _ = start("fill", uri, "f", size).communicate(timeout=60)
    message, confirmed = output.splitlines()
    assert message.startswith(f"ledger {tmp_path}/ledger.db: the disk ")
    assert int(confirmed) > 10
    ledger = open_ledger(uri)
    balance = ledger.balance("app")
    assert (balance.spent.tokens, balance.reserved.tokens) == (1, int(confirmed))
    ledger.close()


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
    for number in range(50):
        ledger.reserve(f"parent-{number}", Amount(tokens=1), (Limit("app"),))
    assert os.waitpid(child, 0)[1] == 0
    balance = ledger.balance("app")
    assert (balance.spent.tokens, balance.reserved.tokens) == (2, 54)
    ledger.close()


def test_a_child_loses_nothing_when_its_parent_closes_first(uri: str) -> None:
    """The last connection to close folds the write-ahead log away: the child's locks must keep it from that."""
    ledger = open_ledger(uri)
    ledger.reserve("parent", Amount(tokens=1), (Limit("app"),))
    go_on, closed = os.pipe()
    ready, waiting = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ledger.reserve("before", Amount(tokens=2), (Limit("app"),))
            os.write(waiting, b"x")
            os.read(go_on, 1)
            ledger.reserve("after", Amount(tokens=4), (Limit("app"),))
            code = 0
        finally:
            os._exit(code)
    os.read(ready, 1)
    ledger.balance("app")
    ledger.close()
    os.write(closed, b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (go_on, closed, ready, waiting):
        os.close(end)
    ledger = open_ledger(uri)
    assert ledger.balance("app").reserved.tokens == 7
    ledger.close()


def test_a_fork_while_another_thread_holds_the_store_does_not_hang_the_child(uri: str) -> None:
    ledger = open_ledger(uri)
    busy = True

    def keep_busy() -> None:
        number = 0
        while busy:
            number += 1
            ledger.reserve(f"t{number}", Amount(tokens=1), (Limit("thread"),))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(keep_busy)
        codes: list[int] = []
        for number in range(8):
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
        running.result()
    assert codes == [0] * 8
    assert ledger.balance("children").reserved.tokens == 8
    ledger.close()


def test_a_ledger_that_is_opened_in_the_midst_of_a_fork_stays_the_parents(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(uri)
    others: list[Ledger] = []
    opening = Thread(target=lambda: others.append(open_ledger(f"sqlite:///{tmp_path}/other.db")))
    rest = sqlite.SqliteStore.rest

    def resting(store: sqlite.SqliteStore) -> None:
        if opening.ident is None:
            opening.start()
        opening.join(0.3)  # it may have to wait for the fork, which must not wait for it then
        rest(store)

    with monkeypatch.context() as slow:
        slow.setattr(sqlite.SqliteStore, "rest", resting)
        child = os.fork()
        if child == 0:
            os._exit(sum(store._books is not None for store in sqlite._STORES))
    assert os.waitpid(child, 0)[1] == 0
    opening.join()
    for one in (ledger, *others):
        assert one.reserve("k", Amount(tokens=1), (Limit("app"),)).state == "open"
        one.close()
    assert len(others) == 1


def test_a_ledger_locked_by_another_process_is_one_clear_line(uri: str) -> None:
    holder, waiter = open_ledger(uri), open_ledger(f"{uri}?timeout=0.05")
    store = holder._store  # type: ignore[attr-defined]
    with (
        store.transaction(),
        pytest.raises(LedgerUnavailableError, match=r"ledger\.db: another process kept it locked"),
    ):
        waiter.reserve("k", Amount(tokens=1), ())
    assert waiter.reserve("k", Amount(tokens=1), ()).state == "open"
    holder.close()
    waiter.close()
