"""Whatever models, verifiers, faults and cancellations do: budgets hold, holds are closed, every step ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from governor.climb import Mind
from governor.effects import (
    CallModel,
    Compute,
    Effect,
    Emit,
    Enter,
    Exit,
    Extend,
    Now,
    Process,
    Refund,
    Reserve,
    Settle,
)
from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    LedgerError,
    LedgerUnavailableError,
    RecordError,
)
from governor.estimate import RuleEstimator
from governor.ledger import open_ledger
from governor.loop import govern
from governor.plan.backtrack import look_refused, stands
from governor.plan.bounds import bound, output_bound
from governor.plan.index import IndexPlanner
from governor.protocols import Belief, Ledger, Planner, Situation, Terms
from governor.records import (
    STOCHASTIC_FAILURES,
    Amount,
    Attempt,
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

LADDER = (
    Rung(id="low", model="m/small", answer_tokens=40, timeout=5, price=Price(1, 2)),
    Rung(id="mid", model="m/small", thinking_tokens=60, answer_tokens=40, timeout=9, price=Price(1, 2)),
    Rung(id="vote", model="m/mid", answer_tokens=30, samples=3, timeout=5, price=Price(2, 4)),
    Rung(id="high", model="m/large", thinking_tokens=200, answer_tokens=60, timeout=20, price=Price(5, 25)),
)
JUDGE = Rung(id="judge", model="m/judge", answer_tokens=10, timeout=3, price=Price(3, 3))
APP = Limit("app:test", tokens=6_000, micros=30_000, calls=25)


@dataclass(frozen=True)
class JudgeVerifier:
    """A verifier that spends: one judge call, then whatever verdict the test draws by `Compute`."""

    name: str = "judge"
    sensitivity: float = 0.9
    false_accept: float = 0.1
    needs_whole_answer: bool = True
    wants_logprobs: bool = False
    redraws: bool = True

    def _call(self, step_id: str) -> Call:
        return Call(step_id=step_id, rung=JUDGE, messages=({"role": "user", "content": "judge"},), purpose="judge")

    def bound(self, call: Call) -> Amount:
        return bound(self._call(call.step_id))

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        yield CallModel(self._call(step.id))
        verdict: Verdict = yield Compute("draw", lambda: None)
        return verdict


class StubbornPlanner:
    """A plug-in that always wants the same rung: the loop itself must stop it."""

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        return Plan(rung=situation.terms.ladder[0], mode="fresh", reason="stubborn")


class EagerPlanner:
    """A plug-in that wants a second sample or look, whatever happened and whether or not it may."""

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        done = situation.attempts
        if not done:
            return Plan(rung=situation.terms.ladder[2], reason="the first one")
        way = REPEATS[(len(done) + len(situation.step.id)) % len(REPEATS)]
        looks: list[tuple[Rung, BacktrackMode]] = [
            (at, mode) for at in situation.terms.ladder for mode in REPEATS if not look_refused(at, mode, situation)
        ]
        if looks:
            rung, mode = looks[len(done) % len(looks)]
            return Plan(rung=rung, mode=mode, reason="allowed")
        if stands(situation) is None and not any(one.rung.id == "high" for one in done):
            return Plan(rung=situation.terms.ladder[3], mode="fresh", reason="another rung")
        return Plan(rung=done[-1].rung, mode=way, reason="not allowed")


class ForgetfulPlanner:
    """A plug-in that breaks down when it is asked a second time."""

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        if situation.attempts:
            raise ValueError("no idea")
        return Plan(rung=situation.terms.ladder[0], reason="the first one")


REPEATS: tuple[BacktrackMode, ...] = ("again", "agree", "verify")

PLANNERS: dict[str, Planner] = {
    "index": IndexPlanner(),
    "stubborn": StubbornPlanner(),
    "eager": EagerPlanner(),
    "forgetful": ForgetfulPlanner(),
}


@dataclass
class Running:
    """One step in flight: its process, the effect it waits for, and what the world did to it.

    `owed` is kept by the test alone: what the world was asked for and reported, or may have used without saying.
    """

    step: Step
    terms: Terms
    process: Process[Outcome]
    effect: Effect
    outcome: Outcome | None = None
    error: BaseException | None = None
    owed: Amount = Amount()
    looked: list[float] = field(default_factory=list)
    """The times it was told."""
    steps_taken: int = 0


VERDICTS = st.builds(
    Verdict,
    decision=st.sampled_from(["accept", "reject", "reject", "reject", "unsure"]),
    verifier=st.just("judge"),
    failure=st.sampled_from(["wrong", "format", "truncated", "disagreement"]),
    score=st.none() | st.floats(0, 1),
    feedback=st.sampled_from(["", "off by one"]),
    error=st.sampled_from(["", "", "", "broke"]),
)


class LoopMachine(RuleBasedStateMachine):
    """Several steps interleaved over one ledger, with the world's answers drawn at every effect."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger = open_ledger("memory://")
        self.count = 0
        self.time = 0.0
        self.all: list[Running] = []

    @rule(
        target=running,
        exhausted=st.sampled_from(["refuse", "degrade", "best_so_far"]),
        reserve=st.sampled_from(["attempt", "ladder"]),
        fail=st.sampled_from(["open", "closed"]),
        mode=st.sampled_from(["on", "on", "on", "shadow"]),
        verified=st.booleans(),
        planner=st.sampled_from(["index", "index", "stubborn", "eager", "eager", "forgetful"]),
        attempts=st.integers(1, 6),
        deadline=st.none() | st.floats(1, 40),
        dial=st.sampled_from([0.0, 0.3, 1.0]),
        call_limit=st.none() | st.integers(60, 3000),
    )
    def start(
        self,
        exhausted: Any,
        reserve: Any,
        fail: Any,
        mode: Any,
        verified: bool,
        planner: str,
        attempts: int,
        deadline: float | None,
        dial: float,
        call_limit: int | None,
    ) -> Running:
        self.count += 1
        step = Step(id=f"s{self.count}", messages=({"role": "user", "content": "What is 12 * 17?"},), seed=7)
        terms = Terms(
            app="test",
            ladder=LADDER,
            dial=dial,
            limits=(APP, Limit(f"step:{step.id}", tokens=4_000, micros=20_000)),
            call=None if call_limit is None else Limit("call", tokens=call_limit),
            on_exhausted=exhausted,
            reserve=reserve,
            fail=fail,
            mode=mode,
            deadline=deadline,
            max_attempts=attempts,
            continues=frozenset({"low", "high"}),
        )
        mind = Mind(RuleEstimator(), PLANNERS[planner], JudgeVerifier() if verified else None)
        process = govern(step, terms, mind)
        run = Running(step, terms, process, next(process))
        self.all.append(run)
        return run

    @rule(run=running, data=st.data())
    def answer(self, run: Running, data: st.DataObject) -> None:
        self._advance(run, data)

    @rule(run=running, data=st.data(), count=st.integers(5, 60))
    def answer_many(self, run: Running, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            self._advance(run, data)

    @rule(
        run=consumes(running),
        when=st.sampled_from(["before", "after"]),
        cause=st.sampled_from([KeyboardInterrupt, asyncio.CancelledError, SystemExit]),
    )
    def cancel(self, run: Running, when: str, cause: type[BaseException]) -> None:
        """A cancellation hits the step at its current effect: before the effect acted, or after it did."""
        if self._ended(run):
            return
        if when == "after" and isinstance(run.effect, Settle | Refund):
            self._perform_ledger(run.effect)
        self._interrupted(run)
        self._throw(run, cause())
        while not self._ended(run):  # what follows a cancellation is clean-up alone
            assert isinstance(run.effect, Settle | Refund | Exit), run.effect
            self._send(run, self._perform_ledger(run.effect) if not isinstance(run.effect, Exit) else None)
        assert isinstance(run.error, cause)

    @invariant()
    def spend_and_holds_stay_under_the_limit(self) -> None:
        balance = self.ledger.balance(APP.scope)
        shadowed = any(run.outcome is not None and run.outcome.arm != "governed" for run in self.all)
        if shadowed or any(self._shadow(run) for run in self.all):
            return  # shadow steps are counted but, by design, never refused
        total = balance.spent + balance.reserved
        assert total.tokens <= (APP.tokens or 0)
        assert total.micros <= (APP.micros or 0)
        assert total.calls <= (APP.calls or 0)

    def teardown(self) -> None:
        for run in self.all:
            if not self._ended(run):
                self._interrupted(run)
                self._throw(run, KeyboardInterrupt())
            while not self._ended(run):
                self._send(run, self._perform_ledger(run.effect) if isinstance(run.effect, Settle | Refund) else None)
        for run in self.all:
            self._check_ended(run)
        balance = self.ledger.balance(APP.scope)
        assert balance.reserved == Amount(), "every reserve is settled or refunded"
        if all(run.outcome is not None for run in self.all):
            total = Amount()
            for run in self.all:
                assert run.outcome is not None
                total += run.outcome.spent
            assert balance.spent == total, "the ledger and the outcomes agree to the micro-unit"

    def _check_ended(self, run: Running) -> None:
        held = self.ledger.reservation(run.step.id)
        assert held is None or held.state in {"settled", "refunded"}
        booked = held.amount if held is not None else Amount()
        assert (booked.tokens, booked.micros, booked.calls) == (run.owed.tokens, run.owed.micros, run.owed.calls)
        if run.outcome is None:
            return
        spent = run.outcome.spent
        assert (spent.tokens, spent.micros, spent.calls) == (run.owed.tokens, run.owed.micros, run.owed.calls)
        assert len(run.outcome.attempts) <= run.terms.max_attempts
        self._check_repeats(run.outcome.attempts)
        if run.outcome.status == "accepted":
            last = run.outcome.attempts[-1].verdict
            assert last is not None
            assert last.decision == "accept"
        calls = sum(a.calls + (a.verdict.calls if a.verdict else 0) for a in run.outcome.attempts)
        assert run.outcome.spent.calls == calls
        if run.outcome.arm != "governed":
            assert [attempt.rung.id for attempt in run.outcome.attempts] == [LADDER[-1].id], (
                "shadow: the baseline, once"
            )

    @staticmethod
    def _check_repeats(attempts: tuple[Attempt, ...]) -> None:
        """A rung is repeated after a correlated failure only as a second sample, an answer judged thrice at most."""
        samples: Counter[str] = Counter()
        verdicts: Counter[int] = Counter()
        failed: set[str] = set()
        for attempt in attempts:
            if attempt.mode == "verify":
                assert (attempt.calls, attempt.usage) == (0, Usage()), "a second verdict asks no model for an answer"
                verdicts[id(attempt.reply)] += 1
                continue
            assert attempt.rung.id not in failed or attempt.mode in {"again", "agree"}, "never merely repeated"
            samples[attempt.rung.id] += attempt.mode != "continue"
            assert attempt.mode not in {"again", "agree"} or samples[attempt.rung.id] == 2
            if attempt.failure not in STOCHASTIC_FAILURES:
                failed.add(attempt.rung.id)
        assert max(verdicts.values(), default=0) <= 2

    @staticmethod
    def _interrupted(run: Running) -> None:
        """A call under way is owed at its bound, whatever interrupts it."""
        if isinstance(run.effect, CallModel):
            run.owed += bound(run.effect.call)

    def _check_sent(self, run: Running, call: Call) -> None:
        """Before a call is sent, all that it may use is held, and it is within every limit of its own."""
        held = self.ledger.reservation(run.step.id)
        assert held is not None
        assert held.state == "open"
        needed = run.owed + bound(call)
        assert needed.tokens <= held.amount.tokens
        assert needed.micros <= held.amount.micros
        assert needed.calls <= held.amount.calls
        if run.terms.mode == "on":
            limit, deadline = run.terms.call, run.terms.deadline
            assert limit is None or bound(call).tokens <= (limit.tokens or 0)
            assert deadline is None or run.looked[-1] + call.timeout <= run.looked[0] + deadline + 1e-6
        else:
            assert (call.purpose, call.rung, call.timeout) == ("answer", LADDER[-1], LADDER[-1].timeout)

    @staticmethod
    def _ended(run: Running) -> bool:
        return run.outcome is not None or run.error is not None

    def _shadow(self, run: Running) -> bool:
        held = self.ledger.reservation(run.step.id)
        return held is not None and all(limit.tokens is None for limit in held.limits)

    def _advance(self, run: Running, data: st.DataObject) -> None:
        if self._ended(run):
            return
        run.steps_taken += 1
        assert run.steps_taken < 400, "every step ends"
        match run.effect:
            case CallModel(call):
                self._call(run, call, data)
            case Compute():
                self._send(run, data.draw(VERDICTS))
            case Now():
                run.looked.append(self.time)
                self._send(run, self.time)
            case Emit():
                if data.draw(st.sampled_from([False] * 9 + [True])):
                    self._throw(run, RecordError("disk full"))
                else:
                    self._send(run, None)
            case Reserve() | Extend() | Settle() | Refund():
                self._book(run, data)
            case _:
                assert isinstance(run.effect, Enter | Exit)
                self._send(run, None)

    def _call(self, run: Running, call: Call, data: st.DataObject) -> None:
        self._check_sent(run, call)
        most = bound(call)
        kind = data.draw(st.sampled_from(["reply", "reply", "reply", "cut", "empty", "unknown", "fault", "unsent"]))
        seconds = data.draw(st.floats(0, call.timeout))
        self.time += seconds
        usage = Usage(
            data.draw(st.integers(0, most.tokens - output_bound(call))),
            data.draw(st.integers(0, output_bound(call))),
        )
        known = kind not in {"fault", "unknown"} or (kind == "fault" and data.draw(st.booleans()))
        if kind != "unsent":
            paid = Amount(usage.total_tokens, call.rung.price.micros(usage), 0, 1)
            run.owed += paid if known else bound(call)
        if kind == "fault":
            error = data.draw(st.sampled_from([BackendTimeoutError, BackendUnavailableError, BackendAuthError]))
            self._throw(run, error("down", usage=usage if known else None, seconds=seconds, model=call.rung.model))
        elif kind == "unsent":
            self._throw(run, BackendError("refused", sent=False, seconds=seconds, model=call.rung.model))
        else:
            reply = Reply(
                text="" if kind == "empty" else data.draw(st.sampled_from(["204", "205", "x"])),
                finish_reason="length" if kind == "cut" else "stop",
                usage=usage,
                usage_known=kind != "unknown",
                seconds=seconds,
            )
            self._send(run, reply)

    def _book(self, run: Running, data: st.DataObject) -> None:
        governed = run.terms.mode == "on"
        if isinstance(run.effect, Reserve | Extend) and governed and data.draw(st.integers(0, 19)) == 19:
            self._throw(run, LedgerUnavailableError("locked"))
            return
        try:
            result = self._perform_ledger(run.effect)
        except LedgerError as refusal:
            self._throw(run, refusal)
        else:
            self._send(run, result)

    def _perform_ledger(self, effect: Effect) -> Any:
        match effect:
            case Reserve(key, amount, limits):
                return self.ledger.reserve(key, amount, limits)
            case Extend(key, amount):
                return self.ledger.extend(key, amount)
            case Settle(key, spent):
                return self.ledger.settle(key, spent)
            case Refund(key):
                return self.ledger.refund(key)
            case _:
                return None

    def _send(self, run: Running, answer: Any) -> None:
        try:
            run.effect = run.process.send(answer)
        except StopIteration as end:
            run.outcome = end.value
        except BaseException as error:  # noqa: BLE001 - kept, to be judged at the end
            run.error = error

    def _throw(self, run: Running, cause: BaseException) -> None:
        try:
            run.effect = run.process.throw(cause)
        except StopIteration as end:
            run.outcome = end.value
        except BaseException as error:  # noqa: BLE001 - kept, to be judged at the end
            run.error = error


LoopMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLoop = LoopMachine.TestCase
