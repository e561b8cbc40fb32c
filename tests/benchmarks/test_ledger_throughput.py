"""How work of several processes is put together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import ledger_throughput
from benchmarks.ledger_throughput import SPENT, Work, book, operations
from governor.ledger import open_ledger


def test_work_side_by_side_is_counted_over_the_time_of_both() -> None:
    both = Work(10.0, 12.0, 30, [0.001]).beside(Work(11.0, 14.0, 50, [0.003, 0.002]))
    assert (both.began, both.ended, both.operations, both.rate) == (10.0, 14.0, 80, 20.0)
    assert (both.wait(0.5), both.wait(0.99)) == (2.0, 3.0)


class Counting:
    """A ledger that counts what it is asked."""

    asked = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        def ask(*_: object) -> None:
            self.asked += name in {"reserve", "extend", "settle", "refund"}

        return ask


def test_every_operation_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(ledger_throughput, "ready", lambda: None)
    monkeypatch.setattr(ledger_throughput, "open_ledger", lambda _: counting)
    assert book(0, "memory://", 0.01).operations == counting.asked
    assert [operations(steps) for steps in range(10)] == [0, 3, 5, 7, 9, 12, 14, 16, 18, 21]


def test_what_is_counted_was_booked(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_throughput, "ready", lambda: None)
    uri = f"sqlite:///{tmp_path}/ledger.db"
    done = book(0, uri, 0.1)
    steps = len(done.waits)
    assert steps > 8
    ledger = open_ledger(uri)
    assert ledger.balance(ledger_throughput.LIMITS[0].scope).spent.tokens == (steps - (steps + 1) // 8) * SPENT.tokens
    ledger.close()
