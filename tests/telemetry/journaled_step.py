"""A small loop with the effects of the real one, a world that counts what is paid, and ways to stop it anywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from governor.effects import (
    CallModel,
    Compute,
    Cut,
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
from governor.errors import BackendError, BackendTimeoutError, BudgetExceededError
from governor.protocols import Ledger
from governor.records import Amount, Attempt, Call, Limit, Outcome, Reply, Rung, Step, Usage, Verdict

T = TypeVar("T")
STEP = Step(id="s-1", messages=({"role": "user", "content": "?"},))
RUNG = Rung(id="low", model="m")
LIMITS = (Limit("app", tokens=1_000),)
BOUND = Amount(tokens=100, calls=1)
COSTS = {1: 31, 2: None, 3: 57, 4: 13, 5: 21, 6: 22}
"""Tokens that each attempt's call uses; None times out with 9 known tokens. From the fourth on they are accepted."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing runs after it, not even the loop's own cleaning up."""


class Cancelled(BaseException):
    """Stands for Ctrl-C and task cancellation: the loop settles what it knows and ends."""


def loop(step: Step = STEP, limits: tuple[Limit, ...] = LIMITS) -> Process[Outcome]:
    begun: float = yield Now()
    key = step.id
    yield Reserve(key, BOUND, limits)
    spent = under_way = Amount()
    attempts: list[Attempt] = []
    reason = ""
    try:
        for number in range(1, 7):
            if number > 1:
                try:
                    yield Extend(key, BOUND)
                except BudgetExceededError as refusal:
                    reason = f"left {refusal.left}"
                    break
            yield Enter(f"attempt {number}")
            under_way = BOUND
            try:
                reply: Reply | None = yield CallModel(Call(step_id=step.id, rung=RUNG, messages=(), attempt=number))
            except BackendError as error:
                reply, fault = None, str(error)
                used = BOUND if error.usage is None else Amount(tokens=error.usage.total_tokens, calls=1)
            else:
                assert reply is not None
                fault = ""
                used = Amount(tokens=reply.usage.total_tokens, calls=1)
            spent, under_way = spent + used, Amount()
            verdict: Verdict | None = None
            if reply is not None:
                verdict = yield Compute("check", lambda number=number: check(number))  # type: ignore[misc]  # binds now
            attempts.append(Attempt(number=number, rung=RUNG, mode="fresh", reply=reply, verdict=verdict, error=fault))
            yield Emit(step, attempts[-1])
            yield Exit()
            if verdict is not None and verdict.decision == "accept":
                break
    except GeneratorExit:
        raise  # killed: nobody is left to perform anything
    except BaseException:
        yield Exit(error="stopped")
        yield Now()
        yield Settle(key, spent + under_way)
        raise
    yield Settle(key, spent)
    ended: float = yield Now()
    outcome = Outcome(
        step_id=step.id, status="accepted", attempts=tuple(attempts), spent=spent, seconds=ended - begun, reason=reason
    )
    yield Emit(step, outcome)
    return outcome


def check(number: int) -> Verdict:
    return Verdict(decision="accept" if number >= 4 else "reject", verifier="check")


@dataclass
class World:
    """Performs effects; `stop` = (n, where, how) raises `how` before or after the nth effect is performed."""

    ledger: Ledger
    stop: tuple[int, str, type[BaseException]] | None = None
    seconds: float = 100.0
    scope: str = "app"
    performed: int = 0
    paid: list[int] = field(default_factory=list)
    emitted: list[int | str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def perform(self, effect: Effect) -> Any:
        self.performed += 1
        self._maybe_stop("before")
        try:
            return self._perform(effect)
        finally:
            self._maybe_stop("after")

    async def aperform(self, effect: Effect) -> Any:
        return self.perform(effect)

    def _maybe_stop(self, where: str) -> None:
        if self.stop is not None and self.stop[:2] == (self.performed, where):
            raise self.stop[2]

    def _perform(self, effect: Effect) -> Any:
        self.seconds += 1
        match effect:
            case Now():
                return self.seconds
            case Reserve(key, amount, limits):
                self.keys.add(key)
                return self.ledger.reserve(key, amount, limits)
            case Extend(key, amount):
                return self.ledger.extend(key, amount)
            case Settle(key, spent):
                return self.ledger.settle(key, spent)
            case Refund(key):
                return self.ledger.refund(key)
            case CallModel(call):
                balance = self.ledger.balance(self.scope)
                assert balance.spent.tokens + balance.reserved.tokens >= 100 * call.attempt, "called without a hold"
                self.paid.append(call.attempt)
                return self._reply(call.attempt)
            case Compute(_, work):
                return work()
            case Emit(_, record):
                self.emitted.append(record.number if isinstance(record, Attempt) else "outcome")
                return None
            case Enter() | Exit() | Resume() | Cut():
                return None  # nothing is streamed here

    def _reply(self, number: int) -> Reply:
        cost = COSTS[number]
        if cost is None:
            raise BackendTimeoutError("late", model="m", usage=Usage(4, 5), seconds=3.0)
        return Reply(text=f"answer {number}", usage=Usage(cost - 1, 1))


def drive(process: Process[T], perform: Callable[[Effect], Any]) -> T:
    """What a driver does, with death added: Killed goes straight through, past the loop."""
    try:
        effect = next(process)
        while True:
            try:
                answer = perform(effect)
            except Killed:
                raise
            except BaseException as error:  # noqa: BLE001 - thrown on into the loop
                effect = process.throw(error)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


async def adrive(process: Process[T], perform: Callable[[Effect], Any]) -> T:
    try:
        effect = next(process)
        while True:
            try:
                answer = perform(effect)
                if inspect.isawaitable(answer):
                    answer = await answer
            except BaseException as error:  # noqa: BLE001 - thrown on into the loop
                effect = process.throw(error)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def interrupted(outcome: Outcome) -> list[int]:
    """The attempts whose call was cut off by the end of a process."""
    return [attempt.number for attempt in outcome.attempts if attempt.error.startswith("interrupted")]
