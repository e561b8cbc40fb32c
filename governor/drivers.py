"""`drive` (`stepped`), blocking, and `adrive`, awaiting: perform a process's effects and throw errors into it.

A *performer* answers one effect; `Ports.perform` is the ordinary one. Errors and cancellations are thrown
INTO the process at the effect that met them, so that the loop itself settles what it holds.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from governor.effects import (
    CallModel,
    Compute,
    Cut,
    Described,
    Effect,
    Emit,
    Enter,
    Exit,
    Extend,
    Now,
    Process,
    Refund,
    Reserve,
    Resume,
    Settle,
)
from governor.errors import LedgerError, RecordError, VerifierError
from governor.protocols import AwaitedLedger, Backend, Ledger, Reservation, Sink, Tracer
from governor.records import Attempt, Call, Outcome, Reply, Step
from governor.telemetry.metrics import Booking, Meter, NullMeter

T = TypeVar("T")
S = TypeVar("S")
Performer = Callable[[Effect], Any]

_BOOKKEEPING = (Reserve, Extend, Settle, Refund)
_CLOSING = (Settle, Refund)
_NONE: Mapping[str, Any] = {}


class Abandoned(BaseException):
    """Thrown into a process whose reader went away."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The world as the loop's effects see it. Under `adrive`, `call`, `compute` and `ledger` may give awaitables."""

    call: Callable[[Call], Reply | Awaitable[Reply]]
    compute: Callable[[Callable[[], Any]], Any]
    ledger: Ledger | AwaitedLedger
    sinks: tuple[Sink, ...]
    tracer: Tracer
    clock: Callable[[], float] = time.monotonic
    meter: Meter = field(default_factory=NullMeter)

    def perform(self, effect: Effect) -> Any:
        """Perform one effect with the port that it is for."""
        match effect:
            case Now():
                return self.clock()
            case CallModel(call):
                return self.call(call)
            case Resume() | Cut():
                raise TypeError("only a stream can be resumed or cut")  # see governor.streaming
            case Compute(_, work):
                return self.compute(work)
            case Enter(name, attributes):
                return self.tracer.enter(name, self._described(attributes))
            case Exit(attributes, error):
                return self.tracer.exit(self._described(attributes), error)
            case Emit(step, record):
                return self._record(step, record)
            case _:
                return self._book(effect)

    def _described(self, attributes: Described) -> Mapping[str, Any]:
        """A span's attributes, which nobody makes who has nobody to tell."""
        return attributes() if self.tracer.recording else _NONE

    def _record(self, step: Step, record: Attempt | Outcome) -> None:
        """Every sink gets the record, whichever of them fails; the first failure is raised."""
        if isinstance(record, Attempt) and record.reply is not None and record.reply.stopped:
            self.meter.stopped(record.reply.stopped)
        failures: list[RecordError] = []
        for sink in self.sinks:
            try:
                sink.emit(step, record)
            except RecordError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _book(self, effect: Booking) -> Any:
        """Asks the ledger, and tells the meter what came of it."""
        with self._failures_told(effect):
            answer = self._asked(effect)
        if inspect.isawaitable(answer):
            return self._booked_later(effect, answer)
        self.meter.booked(effect, answer)
        return answer

    async def _booked_later(self, effect: Booking, waiting: Awaitable[Reservation]) -> Reservation:
        with self._failures_told(effect):
            answer = await waiting
        self.meter.booked(effect, answer)
        return answer

    @contextmanager
    def _failures_told(self, effect: Booking) -> Generator[None, None, None]:
        try:
            yield
        except LedgerError as fault:
            self.meter.failed(effect, fault)
            raise

    def _asked(self, effect: Booking) -> Any:
        match effect:
            case Reserve(key, amount, limits):
                return self.ledger.reserve(key, amount, limits)
            case Extend(key, amount):
                return self.ledger.extend(key, amount)
            case Settle(key, spent):
                return self.ledger.settle(key, spent)
            case Refund(key):
                return self.ledger.refund(key)


def sync_ports(backend: Backend, ledger: Ledger, sinks: tuple[Sink, ...], tracer: Tracer) -> Ports:
    """Ports for `drive`: calls and computations block."""
    return Ports(backend.call, _compute_now, ledger, sinks, tracer)


def async_ports(backend: Backend, ledger: Ledger, sinks: tuple[Sink, ...], tracer: Tracer) -> Ports:
    """Ports for `adrive`: calls are awaited, computations run in a thread."""
    return Ports(backend.acall, _compute_in_thread, ledger, sinks, tracer)


def drive(process: Process[T], perform: Performer) -> T:
    """Run a process to its end, blocking."""
    try:
        effect = next(process)
        while True:
            try:
                answer = perform(effect)
            except BaseException as cause:  # noqa: BLE001 - the process itself decides what to do about it
                effect = process.throw(cause)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def stepped(process: Process[T], perform: Callable[[Effect], Generator[S, None, Any]]) -> Generator[S, None, T]:
    """Run a process in steps, blocking: what `perform` yields is yielded on, what it returns answers the effect.

    Closing this generator throws Abandoned into the process, which settles what it holds.
    """
    try:
        effect = next(process)
        while True:
            try:
                answer = yield from perform(effect)
            except GeneratorExit:
                effect = process.throw(Abandoned())
            except BaseException as cause:  # noqa: BLE001 - thrown on, as in `drive`
                effect = process.throw(cause)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    except Abandoned:
        raise GeneratorExit from None


async def adrive(process: Process[T], perform: Performer) -> T:
    """Run a process to its end, awaiting what `perform` gives back.

    A cancellation that arrives while the ledger is at work is held back until that one effect is done, so
    that a reservation is never made without the loop knowing of it, and closing is never cut short.
    """
    held_back: BaseException | None = None
    try:
        effect = next(process)
        while True:
            try:
                if held_back is not None and not isinstance(effect, _CLOSING):
                    cancellation, held_back = held_back, None
                    raise cancellation
                answer = perform(effect)
                if answer is not None and inspect.isawaitable(answer):  # most effects have no answer
                    if isinstance(effect, _BOOKKEEPING):
                        task = asyncio.ensure_future(answer)
                        held_back = await _finished(task) or held_back
                        answer = task.result()
                    else:
                        answer = await answer
            except BaseException as cause:  # noqa: BLE001 - thrown on, as in `drive`
                effect = process.throw(cause)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        if held_back is not None:
            raise held_back from None
        result: T = end.value
        return result


async def _finished(task: asyncio.Future[Any]) -> BaseException | None:
    """Wait for the task whatever happens; a cancellation meanwhile is given back, be the result one or an error."""
    interruption: BaseException | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as cancellation:
            interruption = cancellation
    return interruption


def _compute_now(work: Callable[[], Any]) -> Any:
    answer = work()
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise VerifierError("an async verifier needs an async run: use arun() or astream()")
    return answer


async def _compute_in_thread(work: Callable[[], Any]) -> Any:
    answer = await asyncio.to_thread(work)
    return await answer if inspect.isawaitable(answer) else answer
