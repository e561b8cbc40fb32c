"""Checked by mypy and pyright, never run: what the public API gives, and that plain classes fit the protocols.

A change that breaks a caller's types, or asks more of a plugged-in part, fails here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Literal, assert_type

from governor import Amount, Attempt, Governor, Outcome, Reply, Rung, Step, Usage, Verdict, load_policy
from governor.effects import Compute, Process
from governor.facade import Explanation
from governor.policy import Policy
from governor.protocols import (
    Backend,
    Balance,
    Belief,
    Delta,
    Estimator,
    Ledger,
    Planner,
    Reservation,
    Sink,
    Situation,
    Terms,
    Tracer,
    Verifier,
)
from governor.records import Call, Forecast, Limit, Plan, Stop
from governor.streaming import AsyncStream, Stream


def results(governor: Governor, step: Step) -> None:
    assert_type(load_policy("balanced"), Policy)
    assert_type(Governor.from_policy("balanced"), Governor)
    outcome = governor.run("2 + 2?", node="sums", session="s", checks=({"number": {}},), seed=1, deadline=3.0)
    assert_type(outcome, Outcome)
    assert_type(governor.run(step), Outcome)
    assert_type(governor.run([{"role": "user", "content": "2 + 2?"}]), Outcome)
    assert_type(outcome.status, Literal["accepted", "unverified", "best_so_far", "refused", "error"])
    assert_type(outcome.answer, str)
    assert_type(outcome.reply, Reply | None)
    assert_type(outcome.attempts, tuple[Attempt, ...])
    assert_type(outcome.spent, Amount)
    assert_type(outcome.spent.micros, int)
    assert_type(outcome.usage, Usage)
    assert_type(outcome.attempts[0].verdict, Verdict | None)
    assert_type(outcome.attempts[0].rung, Rung)


def streams(governor: Governor) -> None:
    stream = governor.stream("Hello")
    assert_type(stream, Stream)
    for text in stream:
        assert_type(text, str)
    assert_type(stream.outcome, Outcome | None)


async def in_asyncio(governor: Governor) -> None:
    assert_type(await governor.arun("Hello"), Outcome)
    stream = governor.astream("Hello")
    assert_type(stream, AsyncStream)
    async for text in stream:
        assert_type(text, str)
    assert_type(stream.outcome, Outcome | None)


def explained(governor: Governor) -> None:
    found = governor.explain("Hello", node="chat")
    assert_type(found, Explanation)
    assert_type(found.difficulty, float)
    assert_type(found.plan, Plan | Stop)
    assert_type(found.plan.forecasts, tuple[Forecast, ...])


class MyVerifier:
    """Plain attributes fit, and a check without I/O yields nothing; one with I/O asks for it."""

    name = "mine"
    sensitivity = 0.9
    false_accept = 0.1
    needs_whole_answer = True
    wants_logprobs = False

    def bound(self, call: Call) -> Amount:
        return Amount(tokens=call.rung.max_tokens)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        accepted: bool = yield Compute("mine", lambda: reply.text == step.prompt)
        return Verdict(decision="accept" if accepted else "reject", verifier=self.name)


class MySink:
    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


class MyLedger:
    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return Reservation(key=key, amount=amount, state="open", limits=tuple(limits), sent=sent)

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return Reservation(key=key, amount=amount, state="open", sent=sent)

    def settle(self, key: str, spent: Amount) -> Reservation:
        return Reservation(key=key, amount=spent, state="settled")

    def refund(self, key: str) -> Reservation:
        return Reservation(key=key, amount=Amount(), state="refunded")

    def reservation(self, key: str) -> Reservation | None:
        return None

    def balance(self, scope: str) -> Balance:
        return Balance(scope=scope)

    def close(self) -> None: ...


class MyBackend:
    def call(self, call: Call) -> Reply:
        return Reply(text="", usage=Usage(), model=call.rung.model)

    async def acall(self, call: Call) -> Reply:
        return self.call(call)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        yield Delta(text="4")
        yield self.call(call)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        yield Delta(text="4")
        yield self.call(call)

    def continues(self, rung: Rung) -> bool:
        return False

    def close(self) -> None: ...


class MyBelief:
    difficulty = 0.5
    reasons: tuple[str, ...] = ("as given",)

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        return ()

    def after(self, rung: Rung, decision: str, situation: Situation) -> MyBelief:
        return self


class MyEstimator:
    def estimate(self, step: Step, terms: Terms) -> MyBelief:
        return MyBelief()


class MyPlanner:
    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        return Plan(rung=situation.terms.ladder[0], forecasts=belief.forecasts(situation))


class MyTracer:
    recording = True

    def enter(self, name: str, attributes: Mapping[str, Any]) -> None: ...

    def exit(self, attributes: Mapping[str, Any], error: str) -> None: ...


def plugged_in(policy: Policy) -> Governor:
    verifier: Verifier = MyVerifier()
    backend: Backend = MyBackend()
    ledger: Ledger = MyLedger()
    sink: Sink = MySink()
    tracer: Tracer = MyTracer()
    estimator: Estimator = MyEstimator()
    planner: Planner = MyPlanner()
    assert_type(verifier.name, str)
    return Governor(
        policy, backend=backend, ledger=ledger, sinks=[sink], tracer=tracer, estimator=estimator, planner=planner
    )
