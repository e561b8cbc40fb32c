"""Answers a verifier's effects with scripted replies, and remembers what was asked."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from governor.account import Account
from governor.drivers import drive
from governor.effects import CallModel, Compute, Effect, Now
from governor.errors import BackendError
from governor.plan.bounds import bound
from governor.protocols import Verifier
from governor.records import Call, Price, Reply, Rung, Step, Usage, Verdict
from governor.verify import build_verifier

RUNG = Rung(id="low", model="small", answer_tokens=100, price=Price(input=1.0, output=2.0))
TOP = Rung(id="top", model="large", answer_tokens=200, price=Price(input=10.0, output=20.0))
STEP = Step(id="s1", messages=({"role": "user", "content": "What is 6 times 7?"},))


def call_of(step: Step, rung: Rung = RUNG) -> Call:
    return Call(step_id=step.id, rung=rung, messages=step.messages, seed=5)


def reply(text: str, **changes: Any) -> Reply:
    given: dict[str, Any] = {"text": text, "usage": Usage(10, 4), "seconds": 0.5, **changes}
    return Reply(**given)


@dataclass
class Driver:
    """Replies are used up in order; an exception among them is thrown in. Each computation takes a second.

    What a verdict says it spent is what a step's account counted, as in the loop.
    """

    replies: Iterable[Reply | BaseException] = ()
    calls: list[Call] = field(default_factory=list[Call])
    computed: list[str] = field(default_factory=list[str])
    time: float = 100.0

    def __post_init__(self) -> None:
        self._replies = iter(self.replies)

    def run(self, verifier: Verifier, given: Reply, step: Step = STEP, call: Call | None = None) -> Verdict:
        account = Account(step.id, ())
        process = account.metered(verifier.verify(step, call or call_of(step), given))
        verdict = drive(process, self._perform)
        used = account.total
        return replace(verdict, usage=used.usage, micros=used.micros, calls=used.calls, seconds=used.seconds)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Now():
                return self.time
            case Compute(name, work):
                self.computed.append(name)
                self.time += 1.0
                result = work()
                return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
            case CallModel(call):
                self.calls.append(call)
                answer = next(self._replies)
                if isinstance(answer, BackendError | Reply):
                    self.time += answer.seconds
                if isinstance(answer, BaseException):
                    raise answer
                return answer
            case _:
                raise AssertionError(f"a verifier asked for {effect}")


async def _awaited(value: Any) -> Any:
    return await value


def built(spec: Any, **options: Any) -> Verifier:
    options.setdefault("bound", bound)
    verifier = build_verifier(spec, **options)
    assert verifier is not None
    return verifier


def judged(spec: Any, text: str | Reply, step: Step = STEP, **options: Any) -> Verdict:
    """The verdict of a spec that makes no model call."""
    given = text if isinstance(text, Reply) else reply(text)
    return Driver().run(built(spec, **options), given, step)
