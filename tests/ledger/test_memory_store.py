"""What a ledger in memory costs the process that it lives in."""

from __future__ import annotations

import gc

from governor.ledger.book import BookLedger
from governor.ledger.memory import SPARE, MemoryStore
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock

TTL, KEEP = 60.0, 500.0
HELD, SPENT = Amount(tokens=9, calls=1), Amount(tokens=7, calls=1)
STEPS = 2_000


def session(number: int) -> tuple[Limit, ...]:
    """Made anew each time, as by a policy."""
    return (Limit(f"session:{number}", tokens=10**9, window=Window(idle=5.0)), Limit("app:support", calls=10**9))


def work(ledger: BookLedger, first: int, last: int) -> None:
    """A tenth each is refunded and left open."""
    for number in range(first, last):
        ledger.reserve(f"step:{number}", HELD, session(number % 5))
        if number % 10 == 1:
            ledger.refund(f"step:{number}")
        elif number % 10 != 2:
            ledger.settle(f"step:{number}", SPENT)


def objects() -> int:
    """How many the garbage collector walks, once it has seen which of them are plain."""
    gc.collect()
    return len(gc.get_objects())


def test_closed_reservations_are_no_work_for_the_garbage_collector() -> None:
    ledger = BookLedger(MemoryStore(), FrozenClock(1_000.0), TTL, KEEP)
    work(ledger, 0, 50)
    before = objects()
    work(ledger, 50, STEPS)
    left_open = STEPS // 10
    assert objects() - before < 8 * left_open


def test_closed_reservations_read_as_they_were() -> None:
    ledger = BookLedger(MemoryStore(), FrozenClock(1_000.0), TTL, KEEP)
    answers = [ledger.reserve("a", HELD, session(1)), ledger.reserve("b", HELD, session(2))]
    answers = [ledger.settle("a", SPENT), ledger.refund("b")]
    assert [ledger.reservation(answer.key) for answer in answers] == answers
    assert ledger.reservations() == tuple(answers)


def test_nothing_is_left_of_what_was_forgotten() -> None:
    clock = FrozenClock(1_000.0)
    store = MemoryStore()
    ledger = BookLedger(store, clock, TTL, KEEP)
    work(ledger, 0, STEPS)
    for _ in range(200):
        clock.advance(TTL / 10)
        ledger.reserve("last", HELD, session(0))
    assert [reservation.key for reservation in ledger.reservations()] == ["last"]
    assert not store._under
    assert not store._numbered
    assert {balance.scope for balance in ledger.balances()} == {"app:support", "session:0"}


def test_leases_of_closed_reservations_leave_the_queue() -> None:
    store = MemoryStore()
    ledger = BookLedger(store, FrozenClock(1_000.0), TTL, KEEP)
    for number in range(STEPS):
        ledger.reserve(f"step:{number}", HELD, session(1))
        ledger.settle(f"step:{number}", SPENT)
        assert len(store._leases) <= SPARE + 2
