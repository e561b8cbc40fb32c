from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from governor.effects import CallModel, Compute, Effect, Now, Process, Reserve
from governor.errors import BackendUnavailableError, RecordError
from governor.ledger import open_ledger
from governor.protocols import Ledger
from governor.records import Amount, Call, Limit, Outcome, Reply
from governor.telemetry.codec import recordable
from governor.telemetry.journal import Journal
from tests.telemetry.journaled_step import COSTS, RUNG, STEP, Cancelled, Killed, World, adrive, drive, interrupted, loop

Stop = tuple[int, str, type[BaseException]]


def live_once(path: Path, ledger: Ledger, stop: Stop | None = None) -> tuple[World, Outcome | None]:
    """One process's life: open the journal, drive the step, and end as `stop` says."""
    world = World(ledger, stop, seconds=7.0)  # each boot's monotonic clock begins anew
    journal = Journal.open(path, policy_digest="d1")
    try:
        return world, drive(loop(), journal.performer(STEP.id, world.perform))
    except (Killed, Cancelled):
        return world, None
    finally:
        journal.close()


def check_books(ledger: Ledger, outcome: Outcome, worlds: list[World]) -> None:
    """Every call was paid once at most, and every call that was sent is booked exactly once."""
    paid = [attempt for world in worlds for attempt in world.paid]
    assert len(paid) == len(set(paid)), "an attempt was paid twice"
    answered = {attempt.number for attempt in outcome.attempts if attempt.reply is not None}
    assert set(paid) >= answered
    cut_off = interrupted(outcome)
    costs = (100 if attempt.number in cut_off else COSTS[attempt.number] or 9 for attempt in outcome.attempts)
    assert outcome.spent == Amount(tokens=sum(costs), calls=len(outcome.attempts))
    balance = ledger.balance("app")
    assert balance.spent == outcome.spent
    assert balance.reserved == Amount()
    for key in set[str]().union(*(world.keys for world in worlds)):
        held = ledger.reservation(key)
        assert held is not None
        assert held.state in ("settled", "refunded")


def undisturbed() -> World:
    world = World(open_ledger("memory://"))
    drive(loop(), world.perform)
    return world


EFFECTS = undisturbed().performed


def test_a_journaled_run_is_the_same_run(tmp_path: Path) -> None:
    plain = World(open_ledger("memory://"))
    expected = drive(loop(), plain.perform)
    ledger = open_ledger("memory://")
    world, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert outcome == expected
    assert (world.paid, world.emitted) == (plain.paid, plain.emitted)
    assert outcome.spent == Amount(tokens=31 + 9 + 57 + 13, calls=4)
    check_books(ledger, outcome, [world])


def test_a_finished_run_is_replayed_without_asking_the_world(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    _, expected = live_once(tmp_path / "j", ledger)
    world, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert outcome == expected
    assert (world.paid, world.emitted) == ([], [])
    assert ledger.balance("app").spent == outcome.spent


@pytest.mark.parametrize("how", [Killed, Cancelled])
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("at", range(1, EFFECTS + 1))
def test_stopped_anywhere_and_resumed(tmp_path: Path, at: int, where: str, how: type[BaseException]) -> None:
    ledger = open_ledger("memory://")
    first, ended = live_once(tmp_path / "j", ledger, (at, where, how))
    assert ended is None
    second, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert len(interrupted(outcome)) <= 1
    check_books(ledger, outcome, [first, second])
    records = [*first.emitted, *second.emitted]
    assert set(records) == {*(attempt.number for attempt in outcome.attempts), "outcome"}
    assert len(records) - len(set(records)) <= 1, "only a record written as the process died may come twice"


@pytest.mark.parametrize("how", [(Killed, Killed), (Cancelled, Cancelled), (Killed, Cancelled), (Cancelled, Killed)])
def test_stopped_twice_anywhere_and_resumed(tmp_path: Path, how: tuple[type[BaseException], ...]) -> None:
    for first_at in range(1, EFFECTS + 1, 2):
        for second_at in range(1, 18, 2):
            path = tmp_path / f"{first_at}-{second_at}"
            ledger = open_ledger("memory://")
            worlds = [live_once(path, ledger, (first_at, "after", how[0]))[0]]
            world, outcome = live_once(path, ledger, (second_at, "before", how[1]))
            worlds.append(world)
            if outcome is None:
                world, outcome = live_once(path, ledger)
                worlds.append(world)
            assert outcome is not None
            check_books(ledger, outcome, worlds)


@pytest.mark.parametrize("at", range(1, EFFECTS + 1))
def test_leases_may_run_out_between_two_lives(tmp_path: Path, at: int) -> None:
    clock = iter(range(0, 10**9, 1_000))
    ledger = open_ledger("memory://", clock=lambda: float(next(clock)), ttl=1.0)
    first, _ = live_once(tmp_path / "j", ledger, (at, "after", Killed))
    ledger.balance("app")  # books the lease as expired
    second, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    check_books(ledger, outcome, [first, second])


@pytest.mark.parametrize("at", range(1, EFFECTS + 1))
def test_a_ledger_in_memory_that_begins_empty_still_lets_a_run_go_on(tmp_path: Path, at: int) -> None:
    live_once(tmp_path / "j", open_ledger("memory://"), (at, "after", Killed))
    ledger = open_ledger("memory://")
    _, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert ledger.balance("app").reserved == Amount()


def test_an_interrupted_call_is_booked_at_its_bound_and_not_sent_again(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    call = next(n for n, line in enumerate(trace(), 1) if line == "CallModel")
    live_once(tmp_path / "j", ledger, (call, "after", Killed))
    world, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert world.paid == [2, 3, 4]
    assert outcome.attempts[0].reply is None
    assert outcome.spent.tokens == 100 + 9 + 57 + 13


def trace() -> list[str]:
    names: list[str] = []
    world = World(open_ledger("memory://"))

    def perform(effect: Effect) -> Any:
        names.append(type(effect).__name__)
        return world.perform(effect)

    drive(loop(), perform)
    return names


def test_a_refusal_is_replayed_even_when_there_is_room_again(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    ledger.reserve("other", Amount(tokens=850), (Limit("app", tokens=1_000),))
    last = len([name for name in trace() if name != "Enter"])
    _, refused = live_once(tmp_path / "j", ledger, (0, "never", Killed))
    assert refused is not None
    assert len(refused.attempts) == 1
    assert "tokens=50" in refused.reason
    ledger.refund("other")
    assert live_once(tmp_path / "j", ledger, (last, "never", Killed))[1] == refused


def test_a_resumed_step_stays_in_the_period_in_which_it_began(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    today, tomorrow = (Limit("app@1", tokens=999),), (Limit("app@2", tokens=999),)
    journal = Journal.open(tmp_path / "j")
    world = World(ledger, (7, "after", Killed), scope="app@1")
    with pytest.raises(Killed):
        drive(loop(limits=today), journal.performer(STEP.id, world.perform))
    journal.close()
    journal = Journal.open(tmp_path / "j")
    outcome = drive(loop(limits=tomorrow), journal.performer(STEP.id, World(ledger, scope="app@1").perform))
    journal.close()
    assert ledger.balance("app@1").spent == outcome.spent
    assert ledger.balance("app@2").spent == Amount()


def test_a_steps_clock_stands_still_while_its_process_is_dead(tmp_path: Path) -> None:
    def timed() -> Process[list[float]]:
        return [(yield Now()), (yield Now()), (yield Now())]

    def run(readings: list[float]) -> list[float]:
        journal = Journal.open(tmp_path / "j")
        perform = journal.performer("s", lambda _: readings.pop(0) if readings else _raise(Killed()))
        try:
            return drive(timed(), perform)
        finally:
            journal.close()

    with pytest.raises(Killed):
        run([5_000.0, 5_003.0])
    assert run([12.0]) == [5_000.0, 5_003.0, 5_003.0]


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("coroutine_function", [True, False])
@pytest.mark.parametrize("at", [4, 5, 9, 12])
async def test_async_performers_are_resumed_alike(tmp_path: Path, at: int, coroutine_function: bool) -> None:
    ledger = open_ledger("memory://")
    live_once(tmp_path / "j", ledger, (at, "after", Killed))
    journal = Journal.open(tmp_path / "j", policy_digest="d1")
    world = World(ledger)

    def awaitable(effect: Effect) -> Any:
        return world.aperform(effect) if world.performed % 2 else world.perform(effect)

    perform = journal.performer(STEP.id, world.aperform if coroutine_function else awaitable)
    if coroutine_function:
        pending = perform(Now())
        assert asyncio.iscoroutine(pending)
        await pending
        perform = journal.performer(STEP.id, world.aperform)
    outcome = await adrive(loop(), perform)
    journal.close()
    assert ledger.balance("app").spent == outcome.spent
    assert outcome.attempts[-1].number == 4


async def test_a_cancelled_task_settles_and_resumes(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    journal = Journal.open(tmp_path / "j", policy_digest="d1")
    world = World(ledger)

    async def perform(effect: Effect) -> Any:
        if isinstance(effect, CallModel) and effect.call.attempt == 3:
            world.paid.append(3)
            await asyncio.sleep(60)
        return world.perform(effect)

    task = asyncio.create_task(adrive(loop(), journal.performer(STEP.id, perform)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    journal.close()
    assert ledger.balance("app").spent.tokens == 31 + 9 + 100
    second, outcome = live_once(tmp_path / "j", ledger)
    assert outcome is not None
    assert (world.paid, second.paid) == ([1, 2, 3], [4])
    assert ledger.balance("app").spent == outcome.spent == Amount(tokens=31 + 9 + 100 + 13, calls=4)


@dataclass(frozen=True)
class Foreign:
    value: int


@recordable
@dataclass(frozen=True)
class Known:
    passed: bool
    output: tuple[str, ...]


@pytest.mark.parametrize(
    ("result", "times"),
    [(True, 1), (0.5, 1), ("text", 1), (None, 1), (Known(True, ("a", "b")), 1), ([1, {"a": (2,)}], 1), (Foreign(3), 2)],
)
def test_computed_results_come_back_or_are_worked_out_again(tmp_path: Path, result: object, times: int) -> None:
    worked: list[str] = []

    def work() -> object:
        worked.append("x")
        return result

    def body() -> Process[Any]:
        first = yield Compute("w", work)
        reply = yield CallModel(Call(step_id="s", rung=RUNG, messages=()))
        return first, reply

    calls: list[Effect] = []

    def perform(effect: Effect) -> Any:
        calls.append(effect)
        return effect.work() if isinstance(effect, Compute) else Reply(text="r", logprobs=(-0.5,))

    results: list[Any] = []
    for _ in range(2):
        journal = Journal.open(tmp_path / "j")
        results.append(drive(body(), journal.performer("s", perform)))
        journal.close()
    assert results == [(result, Reply(text="r", logprobs=(-0.5,)))] * 2
    assert len(worked) == times
    assert sum(isinstance(effect, CallModel) for effect in calls) == 1, "a call after it is not paid again"


def test_a_second_class_of_the_same_name_and_a_plain_class_are_not_recordable() -> None:
    with pytest.raises(ValueError, match="another class named Known"):
        recordable(dataclass(type("Known", (), {})))
    with pytest.raises(TypeError, match="not a dataclass"):
        recordable(int)


def test_a_step_that_asks_for_another_call_than_it_paid_for_is_an_error(tmp_path: Path) -> None:
    def body(prompt: str) -> Process[Reply]:
        reply: Reply = yield CallModel(Call(step_id="s", rung=RUNG, messages=({"role": "user", "content": prompt},)))
        return reply

    for prompt, fails in (("one", False), ("one", False), ("two", True)):
        journal = Journal.open(tmp_path / "j")
        perform = journal.performer("s", lambda _: Reply(text="r"))
        if fails:
            with pytest.raises(RecordError, match=r"step 's' does not match its journal any more .* start afresh"):
                drive(body(prompt), perform)
        else:
            assert drive(body(prompt), perform) == Reply(text="r")
        journal.close()


def test_history_without_paid_calls_gives_way(tmp_path: Path) -> None:
    def body(names: str) -> Process[list[Any]]:
        return [(yield Compute(names[0], str)), (yield Compute(names[1], str)), (yield Compute(names[2], str))]

    for names in ("abc", "axy", "axy"):
        journal = Journal.open(tmp_path / "j")
        seen: list[str] = []

        def perform(effect: Effect, seen: list[str] = seen) -> str:
            assert isinstance(effect, Compute)
            seen.append(effect.name)
            return effect.name

        assert drive(body(names), journal.performer("s", perform)) == list(names)
        journal.close()
    assert seen == []


def test_finished_steps_are_forgotten_and_steps_are_told_apart(tmp_path: Path) -> None:
    ledger = open_ledger("memory://")
    journal = Journal.open(tmp_path / "j")
    for name in ("a", "b"):
        step = replace(STEP, id=name)
        drive(loop(step), journal.performer(name, World(ledger).perform))
    journal.finish("a")
    journal.close()
    journal = Journal.open(tmp_path / "j")
    assert set(journal._histories) == {"b"}
    journal.close()


def test_a_torn_last_line_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    live_once(path, open_ledger("memory://"))
    whole = path.read_bytes()
    for cut in range(1, len(whole), 97):
        path.write_bytes(whole[:cut])
        ledger = open_ledger("memory://")
        _, outcome = live_once(path, ledger)
        assert outcome is not None
        assert live_once(path, ledger)[1] == outcome


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}\n", "not a journal: move it away"),
        ("id,prompt\n", "not a journal"),
        ('{"journal": 2, "policy": "d1"}\n', "journal version 2, known is 1: upgrade"),
        ('{"journal": 1, "policy": "d0"}\n', r"begun under another policy \(digest d0, now d1\)"),
    ],
)
def test_a_file_that_is_not_this_runs_journal_is_left_alone(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "j"
    path.write_text(content)
    with pytest.raises(RecordError, match=message):
        Journal.open(path, policy_digest="d1")
    assert path.read_text() == content


def test_answers_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    Journal.open(tmp_path / "j").close()
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


def test_durable_waits_for_the_disk_before_each_call_and_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "j").read_text().splitlines()[-1]))
    for durable, expected in ((False, 0), (True, 5)):
        (tmp_path / "j").unlink(missing_ok=True)
        journal = Journal.open(tmp_path / "j", durable=durable)
        drive(loop(), journal.performer(STEP.id, World(open_ledger("memory://")).perform))
        journal.close()
        assert len(synced) == expected
    lines = [json.loads(line) for line in synced]
    assert [line.get("effect", "closing") for line in lines] == ["call"] * 4 + ["closing"]
    assert not any("ok" in line for line in lines)


def test_a_call_is_not_sent_when_it_can_not_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(tmp_path / "j")
    sent: list[Effect] = []
    perform = journal.performer("s", sent.append)
    monkeypatch.setattr(os, "write", lambda *_: _raise(OSError(28, "No space left on device")))
    with pytest.raises(RecordError, match="the disk is full"):
        perform(CallModel(Call(step_id="s", rung=RUNG, messages=())))
    assert sent == []
    monkeypatch.undo()
    journal.close()


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from governor.ledger import open_ledger
from governor.telemetry.journal import Journal
from tests.telemetry.journaled_step import STEP, World, drive, loop
folder, at = Path(sys.argv[1]), int(sys.argv[2])
ledger = open_ledger(f"sqlite:///{folder}/l.db")
class Mortal(World):
    def perform(self, effect):
        if type(effect).__name__ == "CallModel":
            with open(folder / "paid", "a") as paid:
                paid.write(f"{effect.call.attempt}\\n")
        try:
            return super().perform(effect)
        finally:
            if self.performed == at:
                os.kill(os.getpid(), signal.SIGKILL)
journal = Journal.open(folder / "j")
outcome = drive(loop(), journal.performer(STEP.id, Mortal(ledger).perform))
balance = ledger.balance("app")
sys.stdout.write(f"{outcome.spent.tokens} {balance.spent.tokens} {balance.reserved.tokens}")
"""


@pytest.mark.parametrize("at", [2, 4, 5, 9, 10, 16, 22, EFFECTS - 2, EFFECTS - 1, EFFECTS])
def test_a_process_killed_for_real_goes_on_where_it_was(tmp_path: Path, at: int) -> None:
    def run(kill_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED_RUN, str(tmp_path), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    assert run(at).returncode == -signal.SIGKILL
    second = run(0)
    assert second.returncode == 0, second.stderr
    total, spent, reserved = map(int, second.stdout.split())
    assert (spent, reserved) == (total, 0)
    paid = (tmp_path / "paid").read_text().split()
    assert len(paid) == len(set(paid)) == 4


def test_backend_errors_come_back_as_they_were(tmp_path: Path) -> None:
    class AdapterError(BackendUnavailableError):
        """An adapter's own kind of error."""

    def body() -> Process[BaseException]:
        try:
            yield CallModel(Call(step_id="s", rung=RUNG, messages=()))
        except BackendUnavailableError as error:
            return error
        raise AssertionError

    errors: list[Any] = []
    perform: Callable[[Effect], Any] = lambda _: _raise(AdapterError("gone", model="m", sent=False, seconds=1.5))  # noqa: E731 - one expression
    for _ in range(2):
        journal = Journal.open(tmp_path / "j")
        errors.append(drive(body(), journal.performer("s", perform)))
        journal.close()
    first, second = errors
    assert (type(first), type(second)) == (AdapterError, BackendUnavailableError)
    told = [(str(error), error.model, error.sent, error.usage, error.seconds) for error in errors]
    assert told == [("gone", "m", False, None, 1.5)] * 2


def test_a_step_without_a_budget_is_journaled_too(tmp_path: Path) -> None:
    def body() -> Process[Reply]:
        reply: Reply = yield CallModel(Call(step_id="s", rung=RUNG, messages=()))
        return reply

    asked: list[type[Effect]] = []
    for _ in range(2):
        journal = Journal.open(tmp_path / "j")

        def perform(effect: Effect) -> Reply:
            asked.append(type(effect))
            return Reply(text="r")

        assert drive(body(), journal.performer("s", perform)) == Reply(text="r")
        journal.close()
    assert asked == [CallModel]
    assert Reserve not in asked
