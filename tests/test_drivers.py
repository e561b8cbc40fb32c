"""drive and adrive: results go in, errors go in, cancellation never leaves a hold unknown or half-closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from governor.drivers import Ports, adrive, async_ports, drive, sync_ports
from governor.effects import Compute, Effect, Emit, Enter, Exit, Now, Process, Reserve, Settle
from governor.errors import BackendTimeoutError, BudgetExceededError, RecordError, VerifierError
from governor.ledger import open_ledger
from governor.records import Amount, Limit, Outcome, Step
from governor.telemetry.spans import NullTracer
from governor.testing import ScriptedBackend

LIMITS = (Limit("app:x", tokens=100),)


def adding() -> Process[float]:
    first = yield Now()
    second = yield Now()
    return float(first + second)


def reserving(log: list[str]) -> Process[str]:
    yield Reserve("s1", Amount(tokens=10), LIMITS)
    log.append("reserved")
    try:
        yield Now()
        log.append("worked")
    except BaseException as cause:
        log.append(type(cause).__name__)
        yield Settle("s1", Amount(tokens=10))
        log.append("settled")
        raise
    yield Settle("s1", Amount(tokens=4))
    log.append("settled")
    return "done"


def test_drive_sends_answers_back() -> None:
    times = iter([1.0, 2.0])
    assert drive(adding(), lambda effect: next(times)) == 3.0


def test_adrive_awaits_what_is_awaitable_and_takes_what_is_not() -> None:
    async def later() -> float:
        return 2.0

    answers: list[Any] = [1.0, later()]
    assert asyncio.run(adrive(adding(), lambda effect: answers.pop(0))) == 3.0


@pytest.mark.parametrize("run", [drive, lambda process, perform: asyncio.run(adrive(process, perform))])
def test_errors_are_thrown_into_the_process(run: Callable[..., Any]) -> None:
    log: list[str] = []

    def perform(effect: Effect) -> Any:
        if isinstance(effect, Now):
            raise BackendTimeoutError("slow")
        return None

    with pytest.raises(BackendTimeoutError):
        run(reserving(log), perform)
    assert log == ["reserved", "BackendTimeoutError", "settled"]


async def test_a_cancellation_during_reserve_waits_for_the_reservation_then_settles_it() -> None:
    log: list[str] = []
    store = {"s1": "none"}
    entered = asyncio.Event()

    async def slow(effect: Effect) -> None:
        entered.set()
        await asyncio.sleep(0.02)
        store["s1"] = "open" if isinstance(effect, Reserve) else "settled"

    task = asyncio.ensure_future(adrive(reserving(log), lambda effect: slow(effect)))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store["s1"] == "settled"
    assert log == ["reserved", "CancelledError", "settled"]


async def test_a_second_cancellation_does_not_cut_the_closing_short() -> None:
    log: list[str] = []
    closed: list[str] = []
    closing = asyncio.Event()

    async def perform(effect: Effect) -> None:
        if isinstance(effect, Now):
            await asyncio.sleep(10)
        if isinstance(effect, Settle):
            closing.set()
            await asyncio.sleep(0.02)
            closed.append(effect.key)

    task = asyncio.ensure_future(adrive(reserving(log), lambda effect: perform(effect)))
    await asyncio.sleep(0.01)
    task.cancel()
    await closing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == ["s1"]


async def test_a_cancellation_during_the_last_settle_still_counts() -> None:
    async def perform(effect: Effect) -> None:
        if isinstance(effect, Settle):
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(adrive(reserving([]), lambda effect: perform(effect)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_async_callable_in_a_sync_run_says_what_to_use() -> None:
    async def check() -> bool:
        return True

    def process() -> Process[Any]:
        return (yield Compute("mine", check))

    with pytest.raises(VerifierError, match="use arun"):
        drive(process(), _ports(sync_ports).perform)


async def test_a_computation_runs_off_the_event_loop() -> None:
    import threading

    def process() -> Process[Any]:
        return (yield Compute("mine", threading.get_ident))

    assert await adrive(process(), _ports(async_ports).perform) != threading.get_ident()


def test_every_sink_gets_each_record() -> None:
    seen: list[object] = []

    class Sink:
        def emit(self, step: Step, record: Any) -> None:
            seen.append(record)

        def close(self) -> None:
            """Nothing to free."""

    outcome = Outcome(step_id="s", status="refused")

    def process() -> Process[None]:
        yield Emit(Step(id="s", messages=()), outcome)

    backend = ScriptedBackend([])
    drive(process(), sync_ports(backend, open_ledger("memory://"), (Sink(), Sink()), NullTracer()).perform)
    assert seen == [outcome, outcome]


def _ports(make: Callable[..., Ports]) -> Ports:
    return make(ScriptedBackend([]), open_ledger("memory://"), (), NullTracer())


async def test_a_cancellation_is_not_lost_when_the_ledger_refuses_meanwhile() -> None:
    entered = asyncio.Event()

    async def refuse(effect: Effect) -> None:
        entered.set()
        await asyncio.sleep(0.02)
        raise BudgetExceededError("app:x", "tokens", 1, 2)

    def process() -> Process[str]:
        try:
            yield Reserve("s1", Amount(tokens=2), LIMITS)
        except BudgetExceededError:
            yield Now()
        return "done"

    task = asyncio.ensure_future(adrive(process(), refuse))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_sink_that_fails_does_not_keep_the_record_from_the_next() -> None:
    seen: list[object] = []

    class Sink:
        def __init__(self, *, full: bool) -> None:
            self.full = full

        def emit(self, step: Step, record: Any) -> None:
            if self.full:
                raise RecordError("disk full")
            seen.append(record)

        def close(self) -> None:
            """Nothing to free."""

    def process() -> Process[None]:
        yield Emit(Step(id="s", messages=()), Outcome(step_id="s", status="refused"))

    sinks = (Sink(full=True), Sink(full=False))
    with pytest.raises(RecordError):
        drive(process(), sync_ports(ScriptedBackend([]), open_ledger("memory://"), sinks, NullTracer()).perform)
    assert len(seen) == 1


@pytest.mark.parametrize("recording", [False, True])
def test_what_spans_say_is_made_only_for_somebody_who_is_told(recording: bool) -> None:
    told: list[tuple[Any, ...]] = []

    class Listening(NullTracer):
        def enter(self, name: str, attributes: Mapping[str, Any]) -> None:
            told.append((name, attributes))

        def exit(self, attributes: Mapping[str, Any], error: str) -> None:
            told.append((attributes, error))

    def described(name: str) -> Callable[[], Mapping[str, Any]]:
        def attributes() -> Mapping[str, Any]:
            made.append(name)
            return {"name": name}

        return attributes

    made: list[str] = []
    tracer = Listening()
    tracer.recording = recording
    ports = sync_ports(ScriptedBackend([]), open_ledger("memory://"), (), tracer)
    ports.perform(Enter("one", described("first")))
    ports.perform(Exit(described("last"), "failed"))
    assert made == (["first", "last"] if recording else [])
    first, last = ({"name": name} if recording else {} for name in ("first", "last"))
    assert told == [("one", first), (last, "failed")], "spans are opened and closed alike"
