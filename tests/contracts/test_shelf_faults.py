from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.protocols import Shelf
from governor.shelf import update

WORKER = str(Path(__file__).with_name("shelf_worker.py"))


def start(mode: str, uri: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, WORKER, mode, uri, str(number)], stdout=subprocess.PIPE, text=True)


def number_of(value: bytes) -> int:
    """The number that a worker's value holds; AssertionError for a value of which only a part was written."""
    number, _, padding = value.partition(b" ")
    assert padding == number[-1:] * 5_000
    return int(number)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


def shelf_of(uri: str) -> Shelf:
    return cast("Shelf", open_ledger(uri))


def test_processes_that_update_one_value_lose_nothing(uri: str) -> None:
    workers = [start("count", uri, 150) for _ in range(3)]
    printed = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3
    assert sorted(int(number) for numbers in printed for number in numbers) == list(range(1, 451))
    found = shelf_of(uri).load("n")
    assert found is not None
    assert number_of(found[0]) == 450


@pytest.mark.parametrize("seed", range(6))
def test_a_process_killed_at_random_loses_no_confirmed_save_and_tears_none(uri: str, seed: int) -> None:
    worker = start("count", uri, 1_000_000)
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline()]  # it runs
    time.sleep(random.Random(seed).uniform(0.0, 0.03))
    worker.send_signal(signal.SIGKILL)
    confirmed += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    worker.wait()
    worker.stdout.close()
    found = shelf_of(uri).load("n")
    assert found is not None
    assert number_of(found[0]) - int(confirmed[-1]) in (0, 1)


def test_a_full_disk_is_one_clear_line_and_mends_once_there_is_space(uri: str, tmp_path: Path) -> None:
    output, _ = start("fill", uri, 300_000).communicate(timeout=60)
    message, kept = output.splitlines()
    assert message.startswith(f"ledger {tmp_path}/ledger.db: the disk ")
    shelf = shelf_of(uri)
    found = shelf.load("n")
    assert found is not None
    assert number_of(found[0]) == 2
    assert int(kept) > 1
    assert shelf.load(f"k{int(kept) - 1}") is not None
    assert shelf.load(f"k{kept}") is None


@pytest.mark.parametrize("value", [b"gratis", "text", 7])
def test_a_damaged_value_is_one_clear_line_and_the_others_stay_readable(
    uri: str, tmp_path: Path, value: object
) -> None:
    shelf = shelf_of(uri)
    shelf.save("k", b"groats", 0)
    shelf.save("l", b"sound", 0)
    connection = sqlite3.connect(tmp_path / "ledger.db")
    with connection:
        connection.execute("UPDATE shelf SET value = ? WHERE key = 'k'", (value,))
    connection.close()
    with pytest.raises(LedgerError, match="shelf value 'k' is damaged: its checksum does not fit"):
        shelf.load("k")
    with pytest.raises(LedgerError, match="shelf value 'k' is damaged"):
        shelf.save("k", b"new", 0)
    found = shelf.load("l")
    assert found is not None
    assert found[0] == b"sound"


def test_a_file_of_before_there_was_a_shelf_gets_one(uri: str, tmp_path: Path) -> None:
    open_ledger(uri).close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    with connection:
        connection.execute("DROP TABLE shelf")
    connection.close()
    assert shelf_of(uri).save("k", b"1", 0)


def test_a_locked_store_is_one_clear_line(uri: str) -> None:
    holder, waiter = open_ledger(uri), shelf_of(f"{uri}?timeout=0.05")
    with (
        holder._store.transaction(),  # type: ignore[attr-defined]
        pytest.raises(LedgerUnavailableError, match=r"ledger\.db: another process kept it locked"),
    ):
        waiter.save("k", b"1", 0)
    holder.close()


class _AlwaysLate:
    """A shelf on which some other writer always comes first."""

    def load(self, key: str) -> tuple[bytes, int] | None:
        return None

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        return False


def test_an_update_gives_up_after_its_tries_with_growing_pauses() -> None:
    pauses: list[float] = []
    with pytest.raises(LedgerUnavailableError, match="'k': other writers came first 12 times in a row"):
        update(_AlwaysLate(), "k", lambda _: b"1", attempts=12, pause=pauses.append)
    assert len(pauses) == 12
    assert all(0.0 <= pause <= min(0.001 * 2**at, 0.1) for at, pause in enumerate(pauses))


def test_an_error_of_the_change_leaves_the_value_alone() -> None:
    shelf = cast("Shelf", open_ledger("memory://"))
    update(shelf, "k", lambda _: b"1")

    def refuse(old: bytes | None) -> bytes:
        raise ValueError(old)

    with pytest.raises(ValueError, match="b'1'"):
        update(shelf, "k", refuse)
    found = shelf.load("k")
    assert found is not None
    assert found[0] == b"1"
