"""What the loop does when a part of it breaks down, and where a step may only be watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from governor.climb import Mind
from governor.drivers import drive, sync_ports
from governor.effects import CallModel, Process
from governor.errors import BackendTimeoutError, LedgerUnavailableError, RecordError
from governor.estimate import RuleEstimator
from governor.ledger import open_ledger
from governor.loop import govern
from governor.plan.bounds import bound
from governor.plan.index import IndexPlanner
from governor.protocols import Belief, Estimator, Ledger, Planner, Reservation, Situation, Terms, Verifier
from governor.records import (
    Amount,
    BacktrackMode,
    Call,
    Limit,
    Outcome,
    Plan,
    Reply,
    Rung,
    Step,
    Stop,
    Usage,
    Verdict,
)
from governor.telemetry.spans import NullTracer
from governor.testing import ScriptedBackend

LOW = Rung(id="low", model="small", answer_tokens=50, timeout=10)
VOTE = Rung(id="vote", model="mid", answer_tokens=50, samples=3, timeout=10)
HIGH = Rung(id="high", model="large", answer_tokens=500, timeout=60)
STEP = Step(id="s", messages=({"role": "user", "content": "What is 6 times 7?"},))
MODES: tuple[BacktrackMode, ...] = ("continue", "more", "feedback", "fresh")
TERMS = Terms(app="test", ladder=(LOW, HIGH), limits=(Limit("app:test", tokens=100_000),), modes=MODES)


@dataclass(frozen=True)
class Says:
    """A verifier that asks a model where `asks`, and then gives its verdicts in order."""

    decisions: tuple[Any, ...]
    asks: int = 0
    name: str = "says"
    sensitivity: float = 0.95
    false_accept: float = 0.05
    needs_whole_answer: bool = True
    wants_logprobs: bool = True

    def bound(self, call: Call) -> Amount:
        return sum([bound(call)] * self.asks, Amount())

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        decision = self.decisions[min(call.attempt, len(self.decisions)) - 1]
        for _ in range(self.asks):
            try:
                yield CallModel(replace(call, purpose="judge"))
            except KeyError:
                decision = "unsure"
        return Verdict(decision=decision, verifier=self.name, feedback="no")


class Breaking:
    """Estimator and planner that break down from the `start`-th question on."""

    def __init__(self, start: int) -> None:
        self.start, self.asked = start, 0

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        self.asked += 1
        if self.asked >= self.start:
            raise ZeroDivisionError("no idea")
        return Plan(rung=situation.terms.ladder[0])


class Sinking:
    """A sink whose disk is full."""

    def __init__(self) -> None:
        self.seen = 0

    def emit(self, step: Step, record: object) -> None:
        self.seen += 1
        raise RecordError("disk full")

    def close(self) -> None:
        """Nothing to free."""


class Down:
    """A ledger that can't be reached in some of its operations."""

    def __init__(self, *operations: str) -> None:
        self.inner: Ledger = open_ledger("memory://")
        self.operations = operations

    def __getattr__(self, name: str) -> Any:
        if name in self.operations:
            return self._lost
        return getattr(self.inner, name)

    def _lost(self, *_: object) -> Reservation:
        raise LedgerUnavailableError("locked")


def govern_all(
    script: Any,
    terms: Terms = TERMS,
    verifier: Verifier | None = None,
    *,
    step: Step = STEP,
    ledger: Any = None,
    sinks: Sequence[Any] = (),
    planner: Planner | None = None,
    estimator: Estimator | None = None,
) -> tuple[Outcome, ScriptedBackend]:
    backend = ScriptedBackend(script)
    ports = sync_ports(backend, ledger or open_ledger("memory://"), tuple(sinks), NullTracer())
    mind = Mind(estimator or RuleEstimator(), planner or IndexPlanner(), verifier)
    return drive(govern(step, terms, mind), ports.perform), backend


def reply(text: str = "42", **fields: Any) -> Reply:
    return Reply(text=text, usage=Usage(20, 5), **fields)


# a part that breaks down


def test_a_planner_that_breaks_later_keeps_the_answer_where_the_policy_fails_open() -> None:
    outcome, _ = govern_all([reply()], replace(TERMS, fail="open"), Says(("reject",)), planner=Breaking(2))
    assert (outcome.status, outcome.answer) == ("best_so_far", "42")
    assert "no idea" in outcome.error


def test_a_planner_that_breaks_later_raises_where_the_policy_fails_closed_and_the_hold_is_settled() -> None:
    ledger = open_ledger("memory://")
    with pytest.raises(ZeroDivisionError):
        govern_all([reply()], TERMS, Says(("reject",)), planner=Breaking(2), ledger=ledger)
    held = ledger.reservation("s")
    assert held is not None
    assert (held.state, held.amount.tokens) == ("settled", 25)


@pytest.mark.parametrize("operation", ["reserve", "extend", "settle"])
def test_a_ledger_that_is_gone_fails_closed_without_losing_the_answer(operation: str) -> None:
    outcome, backend = govern_all(lambda _: reply(), TERMS, Says(("reject",)), ledger=Down(operation))
    expected = {"reserve": ("error", ""), "extend": ("best_so_far", "42"), "settle": ("best_so_far", "42")}
    assert (outcome.status, outcome.answer) == expected[operation]
    assert "locked" in outcome.error
    assert len(backend.calls) == {"reserve": 0, "extend": 1, "settle": 2}[operation]


@pytest.mark.parametrize("operation", ["reserve", "extend"])
def test_a_ledger_that_is_gone_may_fail_open_but_for_money(operation: str) -> None:
    terms = replace(TERMS, fail="open")
    outcome, backend = govern_all(lambda _: reply(), terms, Says(("reject", "accept")), ledger=Down(operation))
    assert (outcome.status, len(backend.calls)) == ("accepted", 2)
    assert "not booked: locked" in outcome.error
    money = replace(terms, limits=(Limit("app:test", micros=10**9),))
    outcome, backend = govern_all(lambda _: reply(), money, Says(("reject", "accept")), ledger=Down(operation))
    assert outcome.status != "accepted"


def test_a_record_that_is_lost_is_told_where_the_policy_fails_open_and_raised_where_it_does_not() -> None:
    outcome, _ = govern_all([reply()], replace(TERMS, fail="open"), sinks=[Sinking()])
    assert outcome.answer == "42"
    assert outcome.error == "not recorded: disk full; not recorded: disk full"
    with pytest.raises(RecordError):
        govern_all([reply()], sinks=[Sinking()])


def test_an_unforeseen_fault_that_a_verifier_swallows_is_booked_at_its_bound() -> None:
    ledger = open_ledger("memory://")
    script = [reply(), KeyError("a bug of the backend"), reply()]
    outcome, backend = govern_all(script, replace(TERMS, max_attempts=1), Says(("accept",), asks=2), ledger=ledger)
    lost = bound(backend.calls[1])
    assert outcome.spent.tokens == 25 + lost.tokens + 25
    held = ledger.reservation("s")
    assert held is not None
    assert held.amount == outcome.spent


# limits


def test_no_call_passes_the_limit_of_a_call_whoever_asks_for_it() -> None:
    limit = Limit("call", tokens=bound(Call(step_id="s", rung=LOW, messages=STEP.messages)).tokens)
    terms = replace(TERMS, call=limit, max_attempts=2)
    outcome, backend = govern_all(lambda _: reply(), terms, planner=Stubborn(HIGH))
    assert backend.calls == []
    assert "limit of a call" in outcome.error
    asked = Says(("accept",), asks=1)
    outcome, backend = govern_all([reply()], replace(terms, ladder=(LOW,)), replace_bound(asked))
    assert (outcome.status, [call.purpose for call in backend.calls]) == ("best_so_far", ["answer"])


def test_no_sample_is_asked_for_after_the_deadline_and_those_that_came_decide() -> None:
    now = iter([0.0, 0.0, 9.0, 21.0, 21.0])
    backend = ScriptedBackend(lambda _: reply())
    ports = replace(sync_ports(backend, open_ledger("memory://"), (), NullTracer()), clock=lambda: next(now, 21.0))
    terms = replace(TERMS, ladder=(VOTE,), deadline=10)
    process = govern(STEP, terms, Mind(RuleEstimator(), IndexPlanner()))
    outcome = drive(process, ports.perform)
    assert [call.timeout for call in backend.calls] == [10.0, 1.0]
    assert outcome.answer == "42"


def test_samples_that_came_outvote_one_that_failed() -> None:
    script = [reply("41"), BackendTimeoutError("slow")]
    outcome, _ = govern_all(script, replace(TERMS, ladder=(VOTE,), max_attempts=1))
    assert (outcome.status, outcome.answer) == ("unverified", "41")


def test_degrading_goes_on_past_a_rung_whose_verifier_does_not_fit() -> None:
    dear = bound(Call(step_id="s", rung=HIGH, messages=STEP.messages)).tokens
    terms = replace(
        TERMS, limits=(Limit("step:s", tokens=dear + 1),), on_exhausted="degrade", difficulty=0.99, dial=0.0
    )
    ladder = (replace(LOW, answer_tokens=20), HIGH)
    outcome, backend = govern_all(lambda _: reply(), replace(terms, ladder=ladder), Says(("accept",), asks=1))
    assert (outcome.status, outcome.rung) == ("accepted", "low")
    assert len(backend.calls) == 2


def test_reserving_the_whole_ladder_degrades_to_an_attempt_that_fits() -> None:
    dear = bound(Call(step_id="s", rung=HIGH, messages=STEP.messages)).tokens
    terms = replace(TERMS, limits=(Limit("step:s", tokens=dear),), reserve="ladder", on_exhausted="degrade")
    assert govern_all([reply()], terms)[0].answer == "42"
    assert govern_all([], replace(terms, on_exhausted="refuse"))[0].status == "refused"


def test_what_is_left_after_a_refusal_counts_what_is_held_already() -> None:
    class Watching(IndexPlanner):
        left: Amount | None = None

        def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
            Watching.left = situation.left or Watching.left
            return Plan(rung=situation.terms.ladder[min(len(situation.attempts), 1)])

    low = bound(Call(step_id="s", rung=LOW, messages=STEP.messages)).tokens
    terms = replace(TERMS, limits=(Limit("step:s", tokens=low + 10),), on_exhausted="degrade")
    govern_all([reply()], terms, Says(("reject",)), planner=Watching())
    assert Watching.left is not None
    assert Watching.left.tokens == low + 10 - 25


def test_an_answer_that_nobody_rejected_ships_before_a_rejected_one() -> None:
    outcome, _ = govern_all(
        [reply("first"), reply("second")], replace(TERMS, max_attempts=2), Says(("unsure", "reject"))
    )
    assert (outcome.status, outcome.answer) == ("best_so_far", "first")


# shadow and control


SHADOW = replace(
    TERMS, mode="shadow", limits=(Limit("app:test", tokens=1, calls=0),), deadline=5, call=Limit("c", tokens=1)
)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"sinks": [Sinking()]}),
        ({}, {"planner": Breaking(1)}),
        ({}, {"ledger": Down("reserve")}),
        ({}, {"ledger": Down("settle")}),
        ({"reserve": "ladder"}, {"verifier": Says(("reject",), asks=3)}),
        ({"mode": "canary", "share": 0.0}, {"verifier": Says(("reject",))}),
        ({"baseline": "gone"}, {}),
        ({"limits": (Limit("app:test", micros=0),)}, {"ledger": Down("reserve")}),
    ],
)
def test_nothing_of_ours_changes_or_refuses_a_call_in_shadow(changes: dict[str, Any], parts: dict[str, Any]) -> None:
    outcome, backend = govern_all([reply()], replace(SHADOW, **changes), **parts)
    assert outcome.answer == "42"
    (call,) = backend.calls
    assert (call.rung, call.timeout, call.messages) == (HIGH, HIGH.timeout, STEP.messages)
    assert (call.hold, call.logprobs) == (False, False)


def test_a_shadow_step_is_counted_past_every_limit_and_a_used_key_does_not_refuse_it() -> None:
    ledger = open_ledger("memory://")
    first, _ = govern_all([reply()], SHADOW, ledger=ledger)
    assert (first.answer, first.error) == ("42", "")
    assert ledger.balance("app:test").spent.tokens == 25
    again, _ = govern_all([reply()], SHADOW, ledger=ledger)
    assert again.answer == "42"
    assert "not booked" in again.error


@dataclass(frozen=True)
class Stubborn:
    """Always wants this rung."""

    rung: Rung

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        return Plan(rung=self.rung, mode="fresh")


def replace_bound(verifier: Says) -> Says:
    """A verifier whose call is larger than any answer's: more messages than the step has."""

    class Larger(Says):
        def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
            yield CallModel(replace(call, purpose="judge", messages=call.messages * 3))
            return Verdict(decision="accept", verifier="larger")

    return Larger(verifier.decisions, verifier.asks)


def test_no_planner_may_repeat_a_rung_whose_failure_would_repeat() -> None:
    outcome, backend = govern_all(lambda _: reply(), verifier=Says(("reject",)), planner=Stubborn(LOW))
    assert (len(backend.calls), outcome.status) == (1, "best_so_far")
    assert "would repeat" in outcome.reason


def test_no_planner_may_go_beyond_the_attempts_that_are_allowed() -> None:
    down = lambda _: BackendTimeoutError("slow")  # noqa: E731
    _, backend = govern_all(down, replace(TERMS, max_attempts=3), planner=Stubborn(LOW))
    assert len(backend.calls) == 3
