"""What the SQLite store keeps in memory, on disk, and for how long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger, sqlite, sqlite_rows
from governor.protocols import Ledger
from governor.records import Amount, Limit

APP = Limit("app", tokens=100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def two(path: Path) -> Iterator[tuple[Ledger, Ledger]]:
    """Two connections to one file, as two processes have."""
    ledgers = open_ledger(f"sqlite:///{path}"), open_ledger(f"sqlite:///{path}")
    yield ledgers
    for ledger in ledgers:
        ledger.close()


def test_what_one_connection_keeps_in_memory_never_hides_what_another_wrote(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    for number in range(10):
        one.reserve(f"one-{number}", Amount(tokens=6), (APP,))
        other.reserve(f"other-{number}", Amount(tokens=4), (APP,))
    for ledger in two:
        with pytest.raises(BudgetExceededError):
            ledger.reserve("more", Amount(tokens=1), (APP,))
    other.settle("one-0", Amount(tokens=1))
    assert one.settle("one-0", Amount(tokens=1)).state == "settled"
    assert one.extend("other-0", Amount(tokens=5)).amount == Amount(tokens=9)
    assert other.balance("app").reserved == Amount(tokens=9 * 6 + 10 * 4 + 5)


def test_what_one_connection_forgot_the_other_makes_anew(path: Path) -> None:
    now = 1_000.0
    one, other = (open_ledger(f"sqlite:///{path}", clock=lambda: now, keep=10.0) for _ in range(2))
    one.refund(one.reserve("k", Amount(tokens=6), (APP,)).key)
    now += 11
    other.refund(other.reserve("l", Amount(tokens=6), (APP,)).key)
    assert one.reserve("k", Amount(tokens=7), (APP,)).state == "open"
    assert other.balance("app").reserved == Amount(tokens=7)
    for ledger in (one, other):
        ledger.close()


def test_a_failed_write_leaves_nothing_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(f"sqlite:///{path}")
    ledger.reserve("k", Amount(tokens=60), (APP,))

    def fail(self: sqlite_rows.SqliteBooks) -> None:
        raise sqlite3.OperationalError("no space")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite_rows.SqliteBooks, "commit", fail)
        with pytest.raises(LedgerUnavailableError, match="no space"):
            ledger.settle("k", Amount(tokens=50))
    balance = ledger.balance("app")
    assert (balance.spent, balance.reserved) == (Amount(), Amount(tokens=60))
    assert ledger.settle("k", Amount(tokens=50)).state == "settled"
    ledger.close()


def test_a_refusal_does_not_undo_the_booking_of_leases_that_ran_out(path: Path) -> None:
    now = 1_000.0
    ledger = open_ledger(f"sqlite:///{path}", clock=lambda: now, ttl=10.0)
    ledger.reserve("k", Amount(tokens=60), (APP,))
    now += 11
    with pytest.raises(BudgetExceededError) as refused:
        ledger.reserve("l", Amount(tokens=41), (APP,))
    assert refused.value.kind == "budget_exceeded"
    ledger.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT key, state FROM reservations").fetchall() == [("k", "expired")]
    connection.close()


def test_rows_in_memory_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "CACHED", 20)
    ledger = open_ledger(f"sqlite:///{path}")
    for number in range(200):
        ledger.reserve(f"k{number}", Amount(tokens=1), (Limit(f"s{number}"), Limit("all")))
        with ledger._store.transaction() as books:  # type: ignore[attr-defined]
            assert len(books._holds) <= 20 + 1
            assert len(books._sums) <= 20 + 2
    assert ledger.balance("all").reserved == Amount(tokens=200)
    ledger.close()


def test_the_log_is_folded_into_the_file_while_others_write(
    two: tuple[Ledger, Ledger], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOG_BYTES", 100_000)
    log = path.with_name("ledger.db-wal")
    longest = 0
    for number in range(1_500):
        for ledger in two:
            key = f"{number}-{id(ledger)}"
            ledger.settle(ledger.reserve(key, Amount(tokens=1), (Limit("all"),)).key, Amount(tokens=1))
        longest = max(longest, log.stat().st_size)
    assert 100_000 < longest < 100_000 + 2 * sqlite.LOOK_EVERY * 20_000
    assert two[0].balance("all").spent == Amount(tokens=3_000)


def test_a_log_that_can_not_be_folded_costs_no_operation(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOG_BYTES", 0)
    monkeypatch.setattr(sqlite_rows, "FOLD_MILLIS", 1)
    ledger = open_ledger(f"sqlite:///{path}")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM scopes").fetchone()  # its snapshot needs the log from here on
    for number in range(2 * sqlite.LOOK_EVERY):
        ledger.reserve(str(number), Amount(tokens=1), (Limit("all"),))
    assert path.with_name("ledger.db-wal").stat().st_size > 0
    reader.close()
    assert ledger.balance("all").reserved == Amount(tokens=2 * sqlite.LOOK_EVERY)
    ledger.close()
