"""Records against the ledger: what agrees, what differs by one micro-unit, what can't be matched."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governor import Governor, Reply, Usage
from governor.errors import BackendTimeoutError
from governor.ledger import open_ledger
from governor.ledger.sums import DIMENSIONS
from governor.policy import policy_from
from governor.protocols import Auditable, Balance, Ledger, Reservation
from governor.records import Amount, Call, Limit, Step, Window
from governor.telemetry.audit import Audit, audited
from governor.telemetry.records import JsonlSink, RecordShape, read_records, record_of
from governor.testing import FrozenClock, ScriptedBackend
from tests.telemetry.made_records import ATTEMPT, OUTCOME

NOW = 1_763_726_400.0  # 2025-11-21T12:00:00Z
LADDER = [
    {"id": "low", "model": "m/small", "answer_tokens": 100, "price": {"input": 1, "output": 2}},
    {"id": "high", "model": "m/large", "answer_tokens": 100, "price": {"input": 5, "output": 10}},
]
BUDGET: dict[str, Any] = {
    "step": {"usd": 1},
    "session": {"tokens": 100_000},
    "run": {"seconds": 900},
    "node": {"per": "total", "thinking_tokens": 90_000},
    "tenant": {"per": "month", "usd": 3},
    "app": [{"per": "day", "usd": 5}, {"per": "hour", "sliding": True, "calls": 500}],
}


def answer(call: Call) -> Reply | Exception:
    """Right answers, wrong ones, ones that no usage is known of, and failures, by the step's number."""
    number = int(call.step_id.rpartition("-")[2])
    if number % 5 == 4 and call.rung.id == "low":
        return BackendTimeoutError("hung", model="m/small", sent=True)
    text = "204" if call.rung.id == "high" or number % 2 else "214"
    usage = Usage(20 + number, 9, number % 4, 3)
    return Reply(text=text, usage=usage, usage_known=number % 7 != 3, seconds=0.0123 * number)


class Desk:
    """A governor on an SQLite ledger, its records, and an audit of the two."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.clock = FrozenClock(NOW)
        self.path = folder / "records.jsonl"
        self.ledger: Ledger = open_ledger(f"sqlite:///{folder}/b.db", clock=self.clock, ttl=60)
        rules = {"version": 1, "app": "desk", "dial": 0.1, "ladder": LADDER, "budget": BUDGET} | keys
        self.governor = Governor(
            policy_from(rules),
            backend=ScriptedBackend(answer),
            ledger=self.ledger,
            sinks=[JsonlSink(self.path, clock=self.clock)],
            clock=self.clock,
        )

    def step(self, number: int, **fields: Any) -> Step:
        messages = ({"role": "user", "content": "What is 12 * 17?"},)
        named: dict[str, Any] = {
            "node": f"n{number % 2}",
            "session": f"s{number % 3}",
            "run": f"r{number % 2}",
            "tenant": "t@1",
        } | fields
        return Step(id=f"step-{number}", messages=messages, checks=({"arithmetic": "12 * 17"},), **named)

    def records(self) -> list[dict[str, Any]]:
        return [dict(record) for record in read_records(self.path, strict=True)]

    def audit(self, records: list[dict[str, Any]] | None = None, **options: Any) -> Audit:
        assert isinstance(self.ledger, Auditable)
        lines = self.records() if records is None else records
        return audited(lines, self.ledger.balances(), self.ledger.reservations(), self.clock(), **options)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.governor.close()


def run(desk: Desk, numbers: range) -> None:
    for number in numbers:
        desk.governor.run(desk.step(number))
        desk.clock.advance(0.5)


def test_real_runs_agree_in_every_dimension_on_every_scope(desk: Desk) -> None:
    run(desk, range(20))

    async def more() -> None:
        await asyncio.gather(*(desk.governor.arun(desk.step(number)) for number in range(20, 30)))

    asyncio.run(more())
    found = desk.audit()
    assert found.agrees
    assert (found.outcomes, found.unmatched, found.unrecorded, found.unbooked) == (30, (), (), 0)
    rows = {row.scope: row for row in found.rows if not row.scope.startswith("step:")}
    assert set(rows) == {
        *("app:desk@2025-11-21", "app:desk~hour", "tenant:desk/t@1@2025-11", "node:desk/n0", "node:desk/n1"),
        *("session:desk/s0", "session:desk/s1", "session:desk/s2", "run:desk/r0", "run:desk/r1"),
    }
    whole = rows["app:desk@2025-11-21"]
    assert whole.records == whole.ledger
    assert min(getattr(whole.records, name) for name in DIMENSIONS) > 0
    assert {row.compared for row in found.rows} == {DIMENSIONS}
    assert {row.steps for row in found.rows if row.scope.startswith("step:")} == {1}


def test_a_rejected_answer_and_an_unknown_usage_are_part_of_it(desk: Desk) -> None:
    run(desk, range(20))
    lines = desk.records()
    assert any(line.get("usage_known") is False for line in lines)
    assert any(line["kind"] == "attempt" and line["error"] for line in lines)
    assert max(line["attempt"] for line in lines if line["kind"] == "attempt") > 1


@pytest.mark.parametrize("name", DIMENSIONS)
@pytest.mark.parametrize("more", [1, -1])
def test_a_difference_of_one_in_any_dimension_is_found(desk: Desk, name: str, more: int) -> None:
    run(desk, range(3, 6))
    assert isinstance(desk.ledger, Auditable)
    scope = "app:desk@2025-11-21"
    spent = desk.ledger.balance(scope).spent
    desk.ledger.reset(scope, replace(spent, **{name: getattr(spent, name) + more}))
    found = desk.audit()
    assert not found.agrees
    (row,) = [row for row in found.rows if not row.agrees]
    assert (row.scope, row.difference) == (scope, Amount(**{name: more}))


def test_a_record_that_was_altered_is_named(desk: Desk) -> None:
    run(desk, range(3))
    lines = desk.records()
    outcome = next(line for line in lines if line["kind"] == "outcome")
    outcome["spent"]["micros"] += 1
    found = desk.audit(lines)
    assert not found.agrees
    assert {one.key for one in found.unmatched} == {outcome["step_id"]}
    by_attempts, by_ledger = (one.reason for one in found.unmatched)
    assert by_attempts.startswith("its attempts come to")
    assert "where the ledger settled" in by_ledger
    assert {row.difference.micros for row in found.rows if not row.agrees} == {-1}


def test_a_lost_attempt_and_a_broken_line_are_named(desk: Desk) -> None:
    run(desk, range(2))
    lines = desk.records()
    assert desk.audit([*lines, *lines]).agrees, "lines that stand twice count once"
    lost = desk.audit([line for line in lines if line["kind"] == "outcome"])
    assert [one.reason.partition(" 0 ")[0] for one in lost.unmatched] == ["its attempts come to"] * 2
    lines[0]["usage"] = None
    assert "its attempt can't be read" in desk.audit(lines).unmatched[0].reason


def test_a_missing_outcome_is_a_reservation_without_one(desk: Desk) -> None:
    run(desk, range(3))
    lines = [line for line in desk.records() if line["step_id"] != "step-1"]
    found = desk.audit(lines)
    assert not found.agrees
    assert [(one.key, one.reason.rpartition(": ")[2]) for one in found.unrecorded] == [
        ("step-1", "nothing in these records")
    ]
    assert desk.audit(lines, cancelled=True).agrees


async def test_a_cancelled_step_is_trusted_only_on_request(desk: Desk) -> None:
    run(desk, range(2))
    hung = asyncio.Event()

    class Hanging(ScriptedBackend):
        async def acall(self, call: Call) -> Reply:
            hung.set()
            await asyncio.sleep(3600)
            raise AssertionError

    desk.governor.backend = Hanging([])
    task = asyncio.ensure_future(desk.governor.arun(desk.step(7)))
    await hung.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.key for one in desk.audit().unrecorded] == ["step-7"]
    assert not desk.audit().agrees
    assert desk.audit(cancelled=True).agrees


def test_a_lease_that_ran_out_counts_at_its_bound(desk: Desk) -> None:
    run(desk, range(2))
    limits = tuple(desk.governor.terms(desk.step(9)).limits)
    desk.ledger.reserve("step-9", Amount(tokens=900, micros=77), limits)
    assert desk.audit().agrees, "what is held is not spent yet"
    desk.clock.advance(61)
    found = desk.audit()
    assert found.agrees
    assert {row.expired.micros for row in found.rows if row.scope.startswith(("app:", "tenant:"))} == {77}
    desk.ledger.settle("step-9", Amount(tokens=1))
    assert not desk.audit().agrees
    assert [one.key for one in desk.audit().unrecorded] == ["step-9"]


def test_a_step_in_a_later_life_is_one_step(desk: Desk) -> None:
    run(desk, range(1))
    lines = desk.records()
    limits = tuple(desk.governor.terms(desk.step(0)).limits)
    desk.ledger.reserve("step-0~2", Amount(micros=5), limits)
    desk.ledger.settle("step-0~2", Amount(micros=5))
    lines[-1]["spent"]["micros"] += 5
    lines[-2]["micros"] += 5
    assert desk.audit(lines).agrees


@pytest.mark.parametrize("dies_at", [1, 3])
def test_a_run_that_died_without_a_word_and_was_resumed_agrees(tmp_path: Path, dies_at: int) -> None:
    worker = [sys.executable, str(Path(__file__).with_name("audited_worker.py")), str(tmp_path)]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    codes = [subprocess.run([*worker, str(at)], env=paths, timeout=60, check=False).returncode for at in (dies_at, 0)]
    assert codes == [9, 0]
    ledger = open_ledger(f"sqlite:///{tmp_path}/b.db")
    assert isinstance(ledger, Auditable)
    lines = [dict(record) for record in read_records(tmp_path / "r.jsonl", strict=True)]
    found = audited(lines, ledger.balances(), ledger.reservations(), time.time())
    ledger.close()
    assert (found.agrees, found.outcomes) == (True, 3), found
    assert sum("interrupted" in line["error"] for line in lines if line["kind"] == "attempt") == 1


def test_what_was_booked_nowhere_is_counted_apart(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget={})
    run(desk, range(2))
    found = desk.audit()
    desk.governor.close()
    assert (found.unbooked, found.rows, found.agrees) == (2, (), True)


def test_outcomes_and_lines_carry_their_step_s_run_and_parent(desk: Desk) -> None:
    outcome = desk.governor.run(desk.step(1, run="run-3", parent="node-7"))
    assert (outcome.run, outcome.parent) == ("run-3", "node-7")
    assert {(line["run"], line["parent"]) for line in desk.records()} == {("run-3", "node-7")}
    assert desk.audit().agrees


def test_parts_of_a_step_are_booked_with_it_and_counted_apart() -> None:
    inner = [told | {"parent": "s1"} for told in line(2, SPENT, [])]
    both = [*line(1, SPENT, ["app:a"]), *inner]
    found = audited(both, [Balance(scope="app:a", spent=SPENT)], [], NOW)
    assert (found.agrees, found.outcomes, found.parts, found.unbooked) == (True, 2, 1, 0)
    assert [row.steps for row in found.rows] == [1]
    nowhere = audited([*line(1, SPENT, []), *inner], [], [], NOW)
    assert (nowhere.agrees, nowhere.parts, nowhere.unbooked) == (True, 1, 1)


def line(number: int, spent: Amount, scopes: list[str] | None, at: float = NOW) -> list[dict[str, Any]]:
    """An attempt and an outcome of `spent` micro-USD, tokens and calls."""
    usage = Usage(spent.tokens, 0)
    attempt = replace(ATTEMPT, verdict=None, usage=usage, micros=spent.micros, calls=spent.calls)
    outcome = replace(OUTCOME, spent=spent, scopes=tuple(scopes or ()))
    step = Step(id=f"s{number}", messages=())
    lines = [record_of(step, one, RecordShape(), at) for one in (attempt, outcome)]
    if scopes is None:
        del lines[1]["scopes"]
        lines[1]["spent"] = {name: lines[1]["spent"][name] for name in DIMENSIONS[:4]}
    written: list[dict[str, Any]] = json.loads(json.dumps(lines))
    return written


SPENT = Amount(10, 20, 30, 1, 10, 0, 0)


def test_old_records_are_matched_by_what_the_ledger_remembers() -> None:
    lines = line(1, SPENT, None)
    closed = Reservation(key="s1", amount=SPENT, state="settled", limits=(Limit("app:a"),))
    found = audited(lines, [Balance(scope="app:a", spent=SPENT)], [closed], NOW)
    assert found.agrees
    assert found.rows[0].compared == DIMENSIONS[:4]
    forgot = audited(lines, [Balance(scope="app:a", spent=SPENT)], [], NOW)
    assert not forgot.agrees
    assert "does not state its scopes" in forgot.unmatched[0].reason


@pytest.mark.parametrize(
    ("scope", "days", "agrees"),
    [
        ("step:a/1", 0.1, True),
        ("session:a/1", 29, False),
        ("session:a/1", 31, True),
        ("run:a/1", 29, False),
        ("run:a/1", 31, True),
        ("app:a@2025-10-01", 34, False),
        ("app:a@2025-10-01", 36, True),
        ("app:a~hour", 0.01, False),
        ("app:a~hour", 0.1, True),
        ("app:a", 9_000, False),
    ],
)
def test_a_ledger_may_forget_what_is_old_and_nothing_else(scope: str, days: float, agrees: bool) -> None:
    kept = Balance(scope="app:a@x", spent=SPENT)
    found = audited(line(1, SPENT, [scope, "app:a@x"], NOW - days * 86_400), [kept], [], NOW)
    assert found.agrees is agrees
    (row,) = [row for row in found.rows if row.scope == scope]
    assert (row.ledger is None) is agrees


def test_sums_that_a_remembered_reservation_books_on_can_not_be_forgotten() -> None:
    kept, limits = Balance(scope="app:a@x", spent=SPENT), (Limit("step:a/1"), Limit("app:a@x"))
    closed = Reservation(key="s1", amount=SPENT, state="settled", limits=limits)
    lines = line(1, SPENT, ["step:a/1", "app:a@x"], NOW - 60)
    assert audited(lines, [kept], [], NOW).agrees
    found = audited(lines, [kept], [closed], NOW)
    assert [row.scope for row in found.rows if not row.agrees] == ["step:a/1"]


def test_a_lease_under_which_nothing_was_sent_counts_as_nothing(desk: Desk) -> None:
    run(desk, range(2))
    limits = tuple(desk.governor.terms(desk.step(9)).limits)
    desk.ledger.reserve("step-9", Amount(tokens=900, micros=77), limits, sent=False)
    desk.clock.advance(61)
    found = desk.audit()
    assert found.agrees
    assert {row.expired for row in found.rows} == {Amount()}


def test_nothing_left_to_compare_proves_nothing() -> None:
    assert not audited(line(1, SPENT, ["step:a/1"], NOW - 9e6), [], [], NOW).agrees


@pytest.mark.parametrize(("age", "counted"), [(10, True), (3_598, None), (3_700, False)])
def test_a_window_that_slides_counts_what_is_in_it(age: float, counted: bool | None) -> None:
    lines, window = line(1, SPENT, ["app:a~hour"], NOW - age), Window(sliding=3_600.0)
    full = audited(lines, [Balance(scope="app:a~hour", spent=SPENT, window=window)], [], NOW + 58)
    empty = audited(lines, [Balance(scope="app:a~hour", window=window)], [], NOW + 58)
    assert full.agrees is (counted is not False)
    assert empty.agrees is (counted is not True)


def test_other_applications_in_the_store_are_left_alone() -> None:
    lines = line(1, SPENT, ["app:a"])
    balances = [Balance(scope="app:a", spent=SPENT), Balance(scope="app:b", spent=SPENT)]
    others = [Reservation(key="x", amount=SPENT, state="settled", limits=(Limit("app:b"),))]
    assert audited(lines, balances, others, NOW).agrees
    own = [*balances, Balance(scope="session:a/7", spent=Amount(micros=1))]
    found = audited(lines, own, others, NOW)
    assert [row.scope for row in found.rows if not row.agrees] == ["session:a/7"]
    assert audited(lines, own, others, NOW, prefix="app:").agrees


def test_an_id_that_was_used_anew_is_booked_on_both_days() -> None:
    more = Amount(1, 2, 3, 1, 1, 0, 0)
    lines = [*line(1, SPENT, ["app:a@1"]), *line(1, more, ["app:a@2"])]
    balances = [Balance(scope="app:a@1", spent=SPENT), Balance(scope="app:a@2", spent=more)]
    assert audited(lines, balances, [], NOW).agrees
