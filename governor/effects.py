"""What the loop asks of the world. The loop yields these values; a driver performs them and sends the result back.

Nothing here does anything: an effect is a description, so that the same loop can be run, awaited,
replayed from recorded replies or tested with scripted ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from governor.records import Amount, Attempt, Call, Limit, Outcome, Step

Described: TypeAlias = Callable[[], Mapping[str, Any]]
"""Says what a span's attributes are: asked only where somebody is told of spans."""


def _none() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Now:
    """Answered with monotonic seconds (float)."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Answered with a Reservation; BudgetExceededError or LedgerUnavailableError may be thrown instead.

    `key` is the idempotency key: reserving a key that is open answers with the same reservation.
    """

    key: str
    amount: Amount
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """Holds `amount` more under the same reservation; answered and refused like Reserve."""

    key: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Settle:
    """Closes the reservation with what was really spent. Drivers never let a cancellation interrupt it."""

    key: str
    spent: Amount


@dataclass(frozen=True, slots=True)
class Refund:
    """Closes a reservation under which nothing was sent."""

    key: str


@dataclass(frozen=True, slots=True)
class CallModel:
    """Answered with a Reply; BackendError may be thrown instead.

    With `upto`, a stream is read as far as that many output tokens: if it has more to say, the answer is Paused.
    """

    call: Call
    upto: int | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Reads the stream that is paused as far as `upto` output tokens (None: to its end); answered like CallModel."""

    upto: int | None


@dataclass(frozen=True, slots=True)
class Cut:
    """Ends the stream that is paused. Answered with a Reply of what was read, `finish_reason` "length"."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The answer of a stream that would pass `upto`: its next piece brings it to so many output `tokens`, or more."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Compute:
    """Work outside the loop that is not a model call: a sandbox, a worker process, a user's callable.

    Answered with what `work()` returns (awaited where it is awaitable). `name` says whose work it is.
    """

    name: str
    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Emit:
    """Hands a finished attempt or outcome to the record sinks. RecordError may be thrown."""

    step: Step
    record: Attempt | Outcome


@dataclass(frozen=True, slots=True)
class Enter:
    """Opens a trace span; spans nest as Enter and Exit do."""

    name: str
    attributes: Described = _none


@dataclass(frozen=True, slots=True)
class Exit:
    """Closes the innermost trace span, adding attributes; `error` marks it as failed."""

    attributes: Described = _none
    error: str = ""


Effect: TypeAlias = Now | Reserve | Extend | Settle | Refund | CallModel | Resume | Cut | Compute | Emit | Enter | Exit


class Unneeded(BaseException):
    """Thrown into a process of which nothing more is needed: it ends, and that is no error."""


T = TypeVar("T")
Process: TypeAlias = Generator[Effect, Any, T]
"""A computation that asks for effects and ends with a T."""


def relayed(process: Process[T], answer: Callable[[Effect], Process[Any]], waiting: Effect | None = None) -> Process[T]:
    """Run `process` with each of its effects answered by a process in turn, whose errors are thrown back into it.

    One that was begun elsewhere goes on from the effect that it is `waiting` for.
    """
    try:
        effect = next(process) if waiting is None else waiting
        while True:
            try:
                result = yield from answer(effect)
            except BaseException as cause:  # noqa: BLE001 - the process itself decides what to do about it
                effect = process.throw(cause)
            else:
                effect = process.send(result)
    except StopIteration as end:
        ended: T = end.value
        return ended


def opened(process: Process[T]) -> Process[CallModel | T]:
    """Run `process` up to its first call of a model, then waiting for that (see `rest`); its result if it has none."""
    try:
        effect = next(process)
        while not isinstance(effect, CallModel):
            try:
                result = yield effect
            except BaseException as cause:  # noqa: BLE001 - as above
                effect = process.throw(cause)
            else:
                effect = process.send(result)
    except StopIteration as end:
        ended: T = end.value
        return ended
    return effect


def rest(process: Process[T], waiting: Effect) -> Process[T]:
    """What is left of a process that was begun elsewhere and waits for the answer to an effect."""
    return relayed(process, _asked, waiting)


def _asked(effect: Effect) -> Process[Any]:
    return (yield effect)


def traced(
    name: str, attributes: Described, body: Process[T], describe: Callable[[T], Mapping[str, Any]]
) -> Process[T]:
    """Run `body` inside a span; `describe` turns its result into the span's closing attributes."""
    yield Enter(name, attributes)
    try:
        result = yield from body
    except BaseException as cause:
        yield Exit(error="" if isinstance(cause, Unneeded) else type(cause).__name__)
        raise
    yield Exit(partial(describe, result))
    return result
