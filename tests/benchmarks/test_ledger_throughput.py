"""How work of several processes is put together."""

from __future__ import annotations

import pytest

from benchmarks import ledger_throughput
from benchmarks.ledger_throughput import SPENT, Work, book
from governor.ledger import open_ledger


def test_work_side_by_side_is_counted_over_the_time_of_both() -> None:
    both = Work(10.0, 12.0, 30, [0.001]).beside(Work(11.0, 14.0, 50, [0.003, 0.002]))
    assert (both.began, both.ended, both.operations, both.rate) == (10.0, 14.0, 80, 20.0)
    assert (both.wait(0.5), both.wait(0.99)) == (2.0, 3.0)


def test_what_is_counted_was_booked(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_throughput, "ready", lambda: None)
    uri = f"sqlite:///{tmp_path}/ledger.db"
    done = book(0, uri, 0.1)
    steps = len(done.waits)
    refunded = steps // ledger_throughput.REFUND_EVERY
    assert done.operations == 3 * (steps - refunded) + 2 * refunded
    ledger = open_ledger(uri)
    assert ledger.balance(ledger_throughput.LIMITS[0].scope).spent.tokens == (steps - refunded) * SPENT.tokens
    ledger.close()
