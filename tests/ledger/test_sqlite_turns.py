"""How processes take turns at one file: who had a long turn steps back and then gives way, all others insist."""

from __future__ import annotations

import sqlite3
import time

import pytest

from governor.ledger.sqlite_turns import (
    BACK_SECONDS,
    NAP_SECONDS,
    PATIENCE_SECONDS,
    TURN,
    TURN_SECONDS,
    WAY_SECONDS,
    Turns,
)


class Machine:
    """A lock that is free at some moments only, and the clock by which one sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.naps: list[float] = []
        self.refusals = 0
        self.error = "SQLITE_BUSY"

    def attempt(self) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            cause = sqlite3.OperationalError("database is locked")
            cause.sqlite_errorname = self.error
            raise cause

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def _work(turns: Turns, machine: Machine, operations: int, seconds: float = 0.0) -> None:
    for _ in range(operations):
        turns.take(machine.attempt)
        machine.now += seconds


def test_who_meets_nobody_never_sleeps(machine: Machine) -> None:
    _work(Turns(5.0), machine, 3 * TURN)
    assert machine.naps == []


def test_who_had_no_long_turn_insists(machine: Machine) -> None:
    turns = Turns(5.0)
    _work(turns, machine, 10)
    machine.refusals = 3
    turns.take(machine.attempt)
    assert machine.naps == [NAP_SECONDS] * 3


def test_who_had_a_long_turn_steps_back_once_in_it(machine: Machine) -> None:
    turns = Turns(5.0)
    machine.refusals = 1
    _work(turns, machine, TURN + 1)  # the first meets others, which begins the count
    machine.naps.clear()
    for _ in range(2):
        machine.refusals = 2
        turns.take(machine.attempt)
    assert machine.naps == [NAP_SECONDS] * 4
    _work(turns, machine, TURN)
    machine.refusals = 2
    turns.take(machine.attempt)
    assert machine.naps[4:] == [BACK_SECONDS, WAY_SECONDS]


@pytest.fixture
def returned(machine: Machine) -> Turns:
    """Of a process that has stepped back."""
    turns = Turns(5.0)
    for _ in range(2):
        machine.refusals = 1
        _work(turns, machine, TURN)
    machine.refusals = 1
    turns.take(machine.attempt)
    assert machine.naps[-1] == BACK_SECONDS
    machine.naps.clear()
    return turns


def test_who_comes_back_gives_way_till_its_turn_is_half_over(machine: Machine, returned: Turns) -> None:
    for done in (0, TURN // 2 - 2):
        _work(returned, machine, done)
        machine.refusals = 1
        returned.take(machine.attempt)
    assert machine.naps == [WAY_SECONDS, NAP_SECONDS]


def test_giving_way_ends_with_patience(machine: Machine, returned: Turns) -> None:
    machine.refusals = 8
    returned.take(machine.attempt)
    given = machine.naps.count(WAY_SECONDS)
    assert machine.naps == [WAY_SECONDS] * given + [NAP_SECONDS] * (8 - given)
    assert PATIENCE_SECONDS <= given * WAY_SECONDS < PATIENCE_SECONDS + 2 * WAY_SECONDS


def test_who_has_little_to_do_by_now_gives_no_way(machine: Machine, returned: Turns) -> None:
    machine.now += TURN_SECONDS
    machine.refusals = 2
    returned.take(machine.attempt)
    assert machine.naps == [NAP_SECONDS] * 2


def test_who_works_slowly_never_steps_back(machine: Machine) -> None:
    turns = Turns(5.0)
    for _ in range(3):
        _work(turns, machine, TURN, 2 * TURN_SECONDS / TURN)
        machine.refusals = 1
        turns.take(machine.attempt)
    assert machine.naps == [NAP_SECONDS] * 3


@pytest.mark.parametrize("operations", [0, TURN])
def test_it_gives_up_in_time(machine: Machine, operations: int) -> None:
    turns = Turns(0.05)
    _work(turns, machine, operations)
    machine.refusals = 10_000
    begun = machine.now
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        turns.take(machine.attempt)
    assert 0.05 <= machine.now - begun < 0.06


def test_other_errors_are_not_waited_for(machine: Machine) -> None:
    machine.refusals, machine.error = 1, "SQLITE_FULL"
    with pytest.raises(sqlite3.OperationalError):
        Turns(5.0).take(machine.attempt)
    assert machine.naps == []
