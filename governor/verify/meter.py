"""Counts what a verification spends by watching the effects that pass, so that no check can forget to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from governor.effects import CallModel, Compute, Effect, Now, Process
from governor.errors import BackendError
from governor.records import Amount, Call, Usage, Verdict

T = TypeVar("T")
Bound: TypeAlias = Callable[[Call], Amount]


@dataclass(slots=True)
class Bill:
    """What one verification has spent so far; `bound` prices calls whose usage stays unknown."""

    bound: Bound
    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0

    def add(self, call: Call, usage: Usage | None, seconds: float) -> None:
        """Book one model call; with unknown usage at its bound, all tokens as output."""
        self.calls += 1
        self.seconds += seconds
        if usage is None:
            most = self.bound(call)
            self.usage += Usage(output_tokens=most.tokens)
            self.micros += most.micros
        else:
            self.usage += usage
            self.micros += call.rung.price.micros(usage)

    def onto(self, verdict: Verdict) -> Verdict:
        """The verdict with this bill added to what it already states."""
        return replace(
            verdict,
            usage=verdict.usage + self.usage,
            micros=verdict.micros + self.micros,
            calls=verdict.calls + self.calls,
            seconds=verdict.seconds + self.seconds,
        )


def metered(body: Process[T], bill: Bill) -> Process[T]:
    """Run `body`, booking its model calls and the time of its computations, failed ones too."""
    resume: Callable[[], Effect] = lambda: next(body)  # noqa: E731  one of three ways to go on, chosen below
    while True:
        try:
            effect = resume()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            value = yield from _answered(effect, bill)
            resume = _sending(body, value)
        except BaseException as cause:  # noqa: BLE001  whatever is thrown in belongs to the body, cancellation too
            resume = _throwing(body, cause)


def _sending(body: Process[Any], value: Any) -> Callable[[], Effect]:
    return lambda: body.send(value)


def _throwing(body: Process[Any], cause: BaseException) -> Callable[[], Effect]:
    return lambda: body.throw(cause)


def _answered(effect: Effect, bill: Bill) -> Process[Any]:
    match effect:
        case CallModel(call):
            return (yield from _called(effect, call, bill))
        case Compute():
            return (yield from _timed(effect, bill))
        case _:
            return (yield effect)


def _called(effect: CallModel, call: Call, bill: Bill) -> Process[Any]:
    try:
        reply = yield effect
    except BackendError as cause:
        if cause.sent:
            bill.add(call, cause.usage, cause.seconds)
        raise
    bill.add(call, reply.usage if reply.usage_known else None, reply.seconds)
    return reply


def _timed(effect: Compute, bill: Bill) -> Process[Any]:
    started: float = yield Now()
    try:
        result = yield effect
    except Exception:
        bill.seconds += (yield Now()) - started
        raise
    bill.seconds += (yield Now()) - started
    return result
