"""Second samples, comparisons and second verdicts, carried out by the real loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from governor.climb import Mind
from governor.drivers import drive, sync_ports
from governor.effects import CallModel, Effect, Process
from governor.estimate import RuleEstimator
from governor.ledger import open_ledger
from governor.loop import govern
from governor.plan.bounds import bound
from governor.protocols import Belief, Situation, Terms, Verifier
from governor.records import (
    Amount,
    BacktrackMode,
    Call,
    Limit,
    Outcome,
    Plan,
    Price,
    Reply,
    Rung,
    Step,
    Stop,
    Usage,
    Verdict,
)
from governor.telemetry.journal import Journal
from governor.telemetry.spans import NullTracer
from governor.testing import ScriptedBackend

LOW = Rung(id="low", model="small", answer_tokens=50, price=Price(1, 1))
HIGH = Rung(id="high", model="large", answer_tokens=50, price=Price(9, 9))
JUDGE = Rung(id="judge", model="judge", answer_tokens=9, price=Price(2, 2))
STEP = Step(id="s", messages=({"role": "user", "content": "What is 6 * 7?"},), seed=5)
TERMS = Terms(app="test", ladder=(LOW, HIGH), limits=(Limit("app:test", tokens=100_000),))


@dataclass
class Script:
    """A planner that wants these (rung, mode) in turn, then stops."""

    wanted: tuple[tuple[Rung, BacktrackMode], ...]

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        done = len(situation.attempts)
        if done == len(self.wanted):
            return Stop(reason="enough")
        rung, mode = self.wanted[done]
        return Plan(rung=rung, mode=mode, reason=f"number {done + 1}")


@dataclass
class Judge:
    """A judge that asks a model, then gives its decisions in order."""

    decisions: tuple[Any, ...]
    redraws: bool = True
    name: str = "judge"
    sensitivity: float = 0.9
    false_accept: float = 0.2
    needs_whole_answer: bool = True
    wants_logprobs: bool = False
    given: Iterator[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.given = iter(self.decisions)

    def _call(self, call: Call) -> Call:
        return Call(step_id=call.step_id, rung=JUDGE, messages=STEP.messages, purpose="judge", attempt=call.attempt)

    def bound(self, call: Call) -> Amount:
        return bound(self._call(call))

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        yield CallModel(self._call(call))
        return Verdict(decision=next(self.given), verifier=self.name)


def answers(*texts: str) -> Any:
    given = iter(texts)

    def script(call: Call) -> Reply:
        return Reply(text="{}" if call.purpose == "judge" else next(given), usage=Usage(10, 5))

    return script


def governed(
    script: Any, wanted: tuple[tuple[Rung, BacktrackMode], ...], verifier: Verifier | None = None, **changes: Any
) -> tuple[Outcome, list[Call]]:
    backend = ScriptedBackend(script)
    ports = sync_ports(backend, open_ledger("memory://"), (), NullTracer())
    mind = Mind(RuleEstimator(), Script(wanted), verifier)
    outcome = drive(govern(STEP, replace(TERMS, **changes), mind), ports.perform)
    return outcome, backend.calls


def test_an_equal_second_sample_confirms_the_answer_that_stands() -> None:
    outcome, calls = governed(answers("42", "The answer is 42."), ((LOW, "first"), (LOW, "agree")))
    assert (outcome.status, outcome.answer, len(calls)) == ("unverified", "The answer is 42.", 2)
    told = outcome.attempts[1].verdict
    assert told is not None
    assert (told.decision, told.verifier, told.score) == ("unsure", "agreement", 1.0)
    assert calls[0].seed != calls[1].seed


def test_after_an_equal_one_no_rung_may_follow_but_after_another_one_it_may() -> None:
    wanted: tuple[tuple[Rung, BacktrackMode], ...] = ((LOW, "first"), (LOW, "agree"), (HIGH, "fresh"))
    equal, calls = governed(answers("42", "42", "43"), wanted)
    assert (equal.answer, equal.reason, len(calls)) == ("42", "the answer stands", 2)
    other, calls = governed(answers("42", "41", "43"), wanted)
    assert (other.status, other.answer, len(calls)) == ("unverified", "43", 3)


def test_a_second_verdict_asks_the_verifier_alone_and_may_accept() -> None:
    outcome, calls = governed(answers("42"), ((LOW, "first"), (LOW, "verify")), Judge(("reject", "accept")))
    assert (outcome.status, outcome.answer) == ("accepted", "42")
    assert [call.purpose for call in calls] == ["answer", "judge", "judge"]
    assert (outcome.attempts[1].calls, outcome.attempts[1].usage) == (0, Usage())
    assert outcome.spent.calls == 3


def test_a_second_rejection_counts_against_the_answer_it_judged() -> None:
    wanted: tuple[tuple[Rung, BacktrackMode], ...] = ((LOW, "first"), (LOW, "verify"), (HIGH, "fresh"))
    outcome, _ = governed(answers("42", "43"), wanted, Judge(("unsure", "reject", "unsure")))
    assert (outcome.status, outcome.answer) == ("best_so_far", "43")
    kept, _ = governed(answers("42"), wanted[:2], Judge(("reject", "unsure")), fail="open")
    assert kept.status == "best_so_far"  # one of its verdicts was a rejection


@pytest.mark.parametrize(
    ("wanted", "verifier", "changes", "why"),
    [
        (((LOW, "first"), (LOW, "verify")), Judge(("reject",), redraws=False), {}, "would say the same"),
        (((LOW, "first"), (LOW, "again")), Judge(("unsure",)), {}, "was not rejected"),
        (((LOW, "first"), (LOW, "agree")), Judge(("reject",)), {}, "nothing to compare"),
        (((LOW, "first"), (HIGH, "agree")), Judge(("unsure",)), {}, "no answer of rung high"),
        (((LOW, "first"), (LOW, "again")), Judge(("reject",)), {"modes": ("fresh", "agree")}, "do not allow 'again'"),
        (((LOW, "first"), (LOW, "again"), (LOW, "again")), Judge(("reject",) * 3), {}, "sampled 2 times"),
        (((LOW, "first"), *((LOW, "verify"),) * 3), Judge(("reject",) * 4), {}, "judged 3 times"),
    ],
)
def test_the_loop_refuses_what_may_not_be_repeated_whoever_plans_it(
    wanted: tuple[tuple[Rung, BacktrackMode], ...], verifier: Judge, changes: dict[str, Any], why: str
) -> None:
    outcome, _ = governed(answers(*["42"] * 4), wanted, verifier, **changes)
    assert why in outcome.reason
    assert len(outcome.attempts) == len(wanted) - 1


def test_a_rung_at_temperature_zero_is_not_sampled_twice() -> None:
    cold = replace(LOW, temperature=0.0)
    outcome, calls = governed(answers("42"), ((cold, "first"), (cold, "agree")), ladder=(cold, HIGH))
    assert (outcome.status, len(calls)) == ("unverified", 1)


@pytest.mark.parametrize("exhausted", ["refuse", "best_so_far", "degrade"])
def test_a_budget_that_refuses_a_comparison_leaves_the_answer(exhausted: Any) -> None:
    tight = (Limit("app:test", calls=1),)
    wanted: tuple[tuple[Rung, BacktrackMode], ...] = ((LOW, "first"), (LOW, "agree"))
    outcome, calls = governed(answers("42"), wanted, limits=tight, on_exhausted=exhausted)
    assert (outcome.status, outcome.answer, outcome.error, len(calls)) == ("unverified", "42", "", 1)


def test_a_step_with_second_looks_is_replayed_from_its_journal(tmp_path: Path) -> None:
    wanted: tuple[tuple[Rung, BacktrackMode], ...] = ((LOW, "first"), (LOW, "again"), (LOW, "verify"), (HIGH, "fresh"))

    def life(stop_at: int | None) -> tuple[Outcome | None, list[Call]]:
        backend = ScriptedBackend(answers("1", "2", "3") if stop_at is not None else answers("3"))
        ports = sync_ports(backend, ledger, (), NullTracer())
        journal = Journal.open(tmp_path / "j")
        perform = journal.performer(STEP.id, lambda effect: world(effect, ports.perform, stop_at))
        decisions = ("reject", "reject", "reject", "accept")
        mind = Mind(RuleEstimator(), Script(wanted), Judge(decisions))
        try:
            return drive(govern(STEP, TERMS, mind), perform), backend.calls
        except SystemExit:
            return None, backend.calls
        finally:
            journal.close()

    def world(effect: Effect, perform: Any, stop_at: int | None) -> Any:
        if isinstance(effect, CallModel) and effect.call.attempt == stop_at and effect.call.purpose == "answer":
            raise SystemExit
        return perform(effect)

    ledger = open_ledger("memory://")
    first, paid = life(stop_at=4)
    assert first is None
    assert [call.purpose for call in paid] == ["answer", "judge", "answer", "judge", "judge"]
    outcome, more = life(stop_at=None)
    assert outcome is not None
    assert [attempt.mode for attempt in outcome.attempts] == ["first", "again", "verify", "fresh"]
    assert outcome.attempts[2].reply == outcome.attempts[1].reply
    assert len(more) < len(paid)
    assert ledger.balance("app:test").spent.calls == outcome.spent.calls


def test_a_load_that_must_be_looked_up_is_looked_up_once_by_the_driver() -> None:
    looked: list[float] = []

    def load() -> float:
        looked.append(1.0)
        return 1.0

    seen: list[Any] = []

    class Watching(Script):
        def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
            seen.append(situation.step.state["load"])
            return super().choose(belief, situation)

    backend = ScriptedBackend(answers("42", "43"))
    ports = sync_ports(backend, open_ledger("memory://"), (), NullTracer())
    mind = Mind(RuleEstimator(), Watching(((LOW, "first"), (HIGH, "fresh"))), Judge(("reject", "accept")))
    drive(govern(replace(STEP, state={"load": load}), TERMS, mind), ports.perform)
    assert (looked, seen) == ([1.0], [1.0, 1.0])
