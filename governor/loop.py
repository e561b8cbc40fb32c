"""The one loop: estimate, plan, reserve, call, verify, backtrack - as a generator without I/O or clock.

`govern` yields effects (governor.effects) and returns the Outcome. Everything that decides is here or in the
parts it is given; drivers, replay and simulation run this same generator.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from governor.account import Account, Charge
from governor.arm import arm_of, unenforced
from governor.effects import Emit, Now, Process, traced
from governor.errors import BackendError, BudgetExceededError, LedgerError, LedgerUnavailableError, RecordError
from governor.plan.bounds import bound
from governor.protocols import Belief, Estimator, Planner, Situation, Terms, Verifier
from governor.records import (
    STOCHASTIC_FAILURES,
    Amount,
    Arm,
    Attempt,
    Call,
    Outcome,
    Plan,
    Reply,
    Rung,
    Status,
    Step,
    Stop,
    Verdict,
)
from governor.telemetry.spans import (
    attempt_attributes,
    attempt_name,
    call_attributes,
    outcome_attributes,
    step_attributes,
    step_name,
    verdict_attributes,
    verify_name,
)
from governor.turns import call_for, joined
from governor.verify.plurality import plurality

_UNCHECKED = Verdict(decision="unsure", verifier="none")


@dataclass(frozen=True, slots=True)
class Mind:
    """The deciding parts of a step; `verifier` is None where the policy has none for it."""

    estimator: Estimator
    planner: Planner
    verifier: Verifier | None = None


@dataclass(slots=True)
class _Climb:
    """Where a step stands. Mutable, and never leaves this module."""

    step: Step
    terms: Terms
    mind: Mind
    arm: Arm
    account: Account
    started: float
    now: float
    attempts: list[Attempt] = field(default_factory=list)
    left: Amount | None = None
    refused: set[str] = field(default_factory=set)
    decided: str = ""
    difficulty: float | None = None

    def situation(self) -> Situation:
        verifier = self.mind.verifier
        deadline = _least(self.step.deadline, self.terms.deadline)
        return Situation(
            step=self.step,
            terms=self.terms,
            attempts=tuple(self.attempts),
            left=self.left,
            seconds_left=None if deadline is None else deadline - (self.now - self.started),
            sensitivity=verifier.sensitivity if verifier else 1.0,
            false_accept=verifier.false_accept if verifier else 1.0,
        )


def govern(step: Step, terms: Terms, mind: Mind) -> Process[Outcome]:
    """Govern one step to its outcome.

    Never raises for a refusal, a rejected answer or a failed call: these are outcomes. Whatever is thrown in
    (a cancellation, a record that can't be written under `fail: closed`) leaves only after the reservation is
    settled.
    """
    return traced(step_name(step), step_attributes(step, terms.app), _step(step, terms, mind), outcome_attributes)


def _step(step: Step, terms: Terms, mind: Mind) -> Process[Outcome]:
    started = yield Now()
    arm = arm_of(step, terms)
    account = Account(step.id, terms.limits if arm == "governed" else unenforced(terms.limits))
    climb = _Climb(step, terms, mind, arm, account, started, started)
    try:
        outcome = yield from _climb(climb)
    except BaseException as cause:
        try:
            yield from account.close()
        except LedgerError as also:
            cause.add_note(f"the reservation could not be settled either: {also}")
        raise
    try:
        yield from account.close()
    except LedgerError as fault:
        # The answer is paid for: it is not thrown away. The lease books the bound, which is never too little.
        outcome = replace(outcome, error=f"not settled, the lease will book its bound: {fault}")
    yield from _emit(climb, outcome)
    return outcome


def _climb(climb: _Climb) -> Process[Outcome]:
    belief, plan = _begun(climb)
    if climb.arm != "governed":
        return (yield from _unchanged(climb, plan))
    while isinstance(plan, Plan):
        end = _forbidden(climb, plan)
        if end:
            return _finish(climb, end)
        refusal = yield from _granted(climb, plan)
        if isinstance(refusal, Outcome):
            return refusal
        if refusal is None:
            attempt = yield from _attempt(climb, plan)
            outcome = _verdict_on(climb, attempt)
            if outcome is not None:
                return outcome
            belief = _learned(climb, belief, attempt)
        plan = _planned(climb, belief)
    return _finish(climb, plan.reason)


def _begun(climb: _Climb) -> tuple[Belief | None, Plan | Stop]:
    """The first belief and plan; the baseline where these fail and the policy (or the arm) wants an answer anyway."""
    try:
        belief = climb.mind.estimator.estimate(climb.step, climb.terms)
        climb.difficulty = belief.difficulty
        return belief, climb.mind.planner.choose(belief, climb.situation())
    except Exception as fault:
        if climb.terms.fail == "closed" and climb.arm == "governed":
            raise
        return None, Plan(rung=_baseline(climb), reason=f"the forecast failed ({type(fault).__name__}: {fault})")


def _learned(climb: _Climb, belief: Belief | None, attempt: Attempt) -> Belief | None:
    if belief is None or attempt.verdict is None or attempt.verdict.decision != "reject":
        return belief
    return belief.after(attempt.rung, "reject", climb.situation())


def _planned(climb: _Climb, belief: Belief | None) -> Plan | Stop:
    if belief is None:
        return Stop(reason="no forecast to backtrack with")
    return climb.mind.planner.choose(belief, climb.situation())


def _unchanged(climb: _Climb, plan: Plan | Stop) -> Process[Outcome]:
    """Shadow and control arms: what would have happened without Governor, with the decision beside it."""
    climb.decided = plan.rung.id if isinstance(plan, Plan) else ""
    reason = f"{climb.arm}: {plan.reason}"
    unchanged = Plan(rung=_baseline(climb), reason=reason, forecasts=plan.forecasts)
    refusal = yield from _granted(climb, unchanged)
    if isinstance(refusal, Outcome):
        return refusal
    if refusal is not None:
        return _refusal(climb, refusal)
    attempt = yield from _attempt(climb, unchanged)
    return _verdict_on(climb, attempt) or _finish(climb, reason)


def _granted(climb: _Climb, plan: Plan) -> Process[BudgetExceededError | Outcome | None]:
    """Reserve for a plan. None is yes; a refusal to degrade from, or the outcome that ends the step, is no."""
    call = _call(climb, plan)
    account = climb.account
    needed = _bound(climb, call)
    if climb.terms.reserve == "ladder" and not account.opened:
        needed = _whole_ladder(climb, plan, needed)
    try:
        yield from account.grant(needed)
    except BudgetExceededError as refusal:
        climb.left = refusal.left or Amount()
        climb.refused.add(plan.rung.id)
        if climb.terms.on_exhausted == "degrade" and climb.arm == "governed":
            return refusal
        return _refusal(climb, refusal)
    except LedgerUnavailableError as fault:
        money = any(limit.micros is not None for limit in account.limits)
        if climb.arm == "governed" and (climb.terms.fail == "closed" or money):
            return _outcome(climb, "error", error=str(fault), reason="the ledger can't be reached")
        account.off_the_books = True
    except LedgerError as fault:
        return _outcome(climb, "error", error=str(fault), reason="the ledger refused the reservation")
    return None


def _attempt(climb: _Climb, plan: Plan) -> Process[Attempt]:
    call = _call(climb, plan)
    answering = _answered(climb, plan, call)
    attempt = yield from traced(attempt_name(plan.rung), call_attributes(call), answering, attempt_attributes)
    if attempt.reply is not None:
        verifier = climb.mind.verifier
        name = verify_name(verifier.name if verifier else "complete")
        verdict = yield from traced(name, {}, _verify(climb, call, attempt.reply), verdict_attributes)
        attempt = replace(attempt, verdict=verdict)
    climb.attempts.append(attempt)
    climb.now = yield Now()
    yield from _emit(climb, attempt)
    return attempt


def _answered(climb: _Climb, plan: Plan, call: Call) -> Process[Attempt]:
    before = climb.account.total
    answer = yield from _answer(climb, plan, call)
    used = climb.account.total - before
    return Attempt(
        number=call.attempt,
        rung=plan.rung,
        mode=plan.mode,
        reply=answer if isinstance(answer, Reply) else None,
        verdict=None,
        usage=used.usage,
        micros=used.micros,
        calls=used.calls,
        seconds=used.seconds,
        error="" if isinstance(answer, Reply) else f"{type(answer).__name__}: {answer}",
        reason=plan.reason,
        forecasts=plan.forecasts,
    )


def _answer(climb: _Climb, plan: Plan, call: Call) -> Process[Reply | BackendError]:
    """One answer of a rung: a single reply, a continued one, or the leading one of several samples."""
    replies: list[Reply] = []
    for sample in range(plan.rung.samples):
        seed = None if call.seed is None else call.seed + 1000 * sample
        one = replace(call, sample=sample, seed=seed, purpose="sample" if sample else "answer")
        answer = yield from climb.account.charged(one)
        if isinstance(answer, BackendError):
            return answer
        last = climb.attempts[-1].reply if climb.attempts else None
        replies.append(joined(last, answer) if call.prefix and last is not None else answer)
        leader, decided = plurality(replies, plan.rung.samples)
        if decided:
            break
    return replies[leader]


def _verify(climb: _Climb, call: Call, reply: Reply) -> Process[Verdict]:
    verifier = climb.mind.verifier
    flaw = _flaw(reply)
    if verifier is None or (climb.arm != "governed" and verifier.bound(call).micros > 0):
        # In shadow and control arms a paid verifier would change what the step costs.
        return flaw or _UNCHECKED
    before = climb.account.total
    try:
        verdict = yield from climb.account.metered(verifier.verify(climb.step, call, reply))
    except Exception as fault:  # noqa: BLE001 - any bug of a plugged-in verifier; the policy says what it means
        verdict = Verdict(decision="unsure", verifier=verifier.name, error=f"{type(fault).__name__}: {fault}")
    used: Charge = climb.account.total - before
    return replace(verdict, usage=used.usage, micros=used.micros, calls=used.calls, seconds=used.seconds)


def _flaw(reply: Reply) -> Verdict | None:
    """What makes any reply unusable, whatever the policy verifies."""
    if reply.truncated:
        feedback = "the answer was cut off by its token limit"
        return Verdict(decision="reject", verifier="complete", failure="truncated", feedback=feedback)
    if not reply.text.strip() and not reply.tool_calls:
        return Verdict(decision="reject", verifier="complete", failure="empty", feedback="the answer was empty")
    return None


def _verdict_on(climb: _Climb, attempt: Attempt) -> Outcome | None:
    """The outcome if this attempt ends the step, else None."""
    verdict = attempt.verdict
    if verdict is None or verdict.decision == "reject":
        return None
    if verdict.decision == "accept":
        return _outcome(climb, "accepted", attempt, reason=attempt.reason)
    if verdict.verifier == "none" or climb.terms.fail == "open":
        return _outcome(climb, "unverified", attempt, reason=attempt.reason, error=verdict.error)
    if verdict.error:
        # More attempts could not be verified either: paying for them would buy nothing.
        return _outcome(climb, "best_so_far", attempt, reason="the verifier broke down", error=verdict.error)
    return None


def _forbidden(climb: _Climb, plan: Plan) -> str:
    """Why a plan may not be carried out, whoever made it; empty if it may. This bounds every step."""
    seconds_left = climb.situation().seconds_left
    if seconds_left is not None and seconds_left <= 0:
        return "the deadline has passed"
    if len(climb.attempts) >= climb.terms.max_attempts:
        return f"{climb.terms.max_attempts} attempts made"
    if plan.rung.id in climb.refused:
        return f"no rung fits the budget that is left (last refused: {plan.rung.id})"
    for attempt in climb.attempts:
        if attempt.rung.id == plan.rung.id and attempt.failure not in STOCHASTIC_FAILURES:
            return f"rung {plan.rung.id} failed before for a reason that would repeat"
    return ""


def _call(climb: _Climb, plan: Plan) -> Call:
    situation = climb.situation()
    return call_for(climb.step, plan, situation.attempts, climb.mind.verifier, situation.seconds_left)


def _bound(climb: _Climb, call: Call) -> Amount:
    needed = bound(call)
    total = needed
    for _ in range(call.rung.samples - 1):
        total += needed
    return total + climb.mind.verifier.bound(call) if climb.mind.verifier else total


def _whole_ladder(climb: _Climb, plan: Plan, needed: Amount) -> Amount:
    for rung in climb.terms.ladder:
        if rung.id != plan.rung.id:
            needed += _bound(climb, _call(climb, Plan(rung=rung)))
    return needed


def _baseline(climb: _Climb) -> Rung:
    wanted = climb.step.baseline or climb.terms.baseline
    return climb.terms.rung(wanted) if wanted else climb.terms.ladder[-1]


def _refusal(climb: _Climb, refusal: BudgetExceededError) -> Outcome:
    if climb.terms.on_exhausted == "refuse":
        return _outcome(climb, "refused", error=str(refusal), reason="budget exhausted")
    return _finish(climb, "budget exhausted", error=str(refusal))


def _finish(climb: _Climb, reason: str, error: str = "") -> Outcome:
    """End without an accepted answer: ship the best rejected one, or say why there is none."""
    answered = [attempt for attempt in climb.attempts if attempt.reply is not None]
    if answered:
        return _outcome(climb, "best_so_far", max(answered, key=_merit), reason=reason, error=error)
    if climb.attempts:
        return _outcome(climb, "error", reason=reason, error=error or climb.attempts[-1].error)
    return _outcome(climb, "refused", reason=reason, error=error or reason)


def _merit(attempt: Attempt) -> tuple[bool, float, float, int]:
    score = attempt.verdict.score if attempt.verdict else None
    hope = next((f.p_success for f in attempt.forecasts if f.rung == attempt.rung.id), 0.0)
    return attempt.shippable, score or 0.0, hope, attempt.number


def _outcome(
    climb: _Climb, status: Status, attempt: Attempt | None = None, *, reason: str = "", error: str = ""
) -> Outcome:
    total = climb.account.total
    usage, verifying = Charge().usage, Charge().usage
    for one in climb.attempts:
        usage += one.usage
        verifying += one.verdict.usage if one.verdict else Charge().usage
    reply = attempt.reply if attempt else None
    return Outcome(
        step_id=climb.step.id,
        status=status,
        answer=reply.text if reply else "",
        reply=reply,
        rung=attempt.rung.id if attempt else "",
        attempts=tuple(climb.attempts),
        spent=total.amount,
        usage=usage,
        verifier_usage=verifying,
        seconds=climb.now - climb.started,
        arm=climb.arm,
        decided=climb.decided,
        difficulty=climb.difficulty,
        reason=reason,
        error=error,
        node=climb.step.node,
        session=climb.step.session,
    )


def _emit(climb: _Climb, record: Attempt | Outcome) -> Process[None]:
    try:
        yield Emit(climb.step, record)
    except RecordError:
        if climb.terms.fail == "closed":
            raise


def _least(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)
