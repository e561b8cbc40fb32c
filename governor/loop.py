"""The one loop: estimate, plan, reserve, call, verify, backtrack - as a generator without I/O or clock.

`govern` yields effects (governor.effects) and returns the Outcome. Everything that decides is here or in the
parts it is given; drivers, replay and simulation run this same generator.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from governor.account import Account
from governor.arm import arm_of, unenforced
from governor.charge import Charge
from governor.climb import Climb, Mind, finished, least, outcome_of, refused_outcome, told, with_load
from governor.effects import Emit, Now, Process, traced
from governor.errors import (
    BackendError,
    BackendStreamError,
    LedgerError,
    RecordError,
)
from governor.estimate.answers import agreement
from governor.grant import bound_of, call_of, checker, granted
from governor.plan.backtrack import compare_refused, look_refused, stands
from governor.plan.turns import joined
from governor.protocols import Belief, Terms, Verifier
from governor.records import (
    COMPARISONS,
    SECOND_LOOKS,
    STOCHASTIC_FAILURES,
    Arm,
    Attempt,
    Call,
    Outcome,
    Plan,
    Reply,
    Rung,
    Step,
    Stop,
    Verdict,
)
from governor.telemetry.spans import (
    attempt_attributes,
    attempt_name,
    call_attributes,
    nested_name,
    outcome_attributes,
    own,
    step_attributes,
    step_name,
    verdict_attributes,
    verify_name,
)
from governor.verify.flaw import flaw
from governor.verify.plurality import compared, plurality

_UNCHECKED = Verdict(decision="unsure", verifier="none")
_FINAL_FLAWS = frozenset({"empty", "stuck"})
"""Flaws that no verifier may overlook; in one that was cut, what matters may be there."""


def govern(step: Step, terms: Terms, mind: Mind) -> Process[Outcome]:
    """Govern one step to its outcome.

    Never raises for a refusal, a rejected answer or a failed call: these are outcomes. Whatever is thrown in
    (a cancellation, a record that can't be written under `fail: closed`) leaves only after the reservation is
    settled.
    """
    attributes = partial(step_attributes, step, terms.app)
    return traced(step_name(step), attributes, _step(step, terms, mind), outcome_attributes)


def _step(step: Step, terms: Terms, mind: Mind) -> Process[Outcome]:
    step = yield from with_load(step)
    started = yield Now()
    arm = arm_of(step, terms)
    climb = Climb(step, terms, mind, arm, _account(step, terms, arm, started), started, started)
    account = climb.account
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
        climb.faults.append(f"not settled yet, and left to its lease if it never is: {fault}")
    yield from _emit(climb, told(outcome, climb.faults))
    return told(outcome, climb.faults)


def _account(step: Step, terms: Terms, arm: Arm, started: float) -> Account:
    """In shadow and control arms only the caller's own deadline holds, not the policy's: calls stay as they were."""
    governed = arm == "governed"
    deadline = least(step.deadline, terms.deadline) if governed else step.deadline
    return Account(
        step.id,
        terms.limits if governed else unenforced(terms.limits),
        {model: limits if governed else unenforced(limits) for model, limits in terms.models},
        ends=None if deadline is None else started + deadline,
        each=terms.call if governed and not terms.nested else None,
        fails_closed=governed and (terms.fail == "closed" or terms.limits_money),
        off_the_books=terms.nested,
    )


def _climb(climb: Climb) -> Process[Outcome]:
    belief, plan = _begun(climb)
    if not climb.governed:
        return (yield from _unchanged(climb, plan))
    while isinstance(plan, Plan):
        end = _forbidden(climb, plan)
        if end:
            return finished(climb, end)
        refusal = yield from granted(climb, plan)
        if isinstance(refusal, Outcome):
            return refusal
        attempt: Attempt | None = None
        if refusal is None:
            attempt = yield from _attempt(climb, plan)
            outcome = _verdict_on(climb, attempt)
            if outcome is not None:
                return outcome
        belief, plan = _next(climb, belief, attempt)
    if plan.refusal is not None:
        return refused_outcome(climb, plan.refusal, climb.attempts[-1].error if climb.attempts else plan.reason)
    return finished(climb, plan.reason, forecasts=plan.forecasts)


def _begun(climb: Climb) -> tuple[Belief | None, Plan | Stop]:
    """The first belief and plan; the baseline where these fail and the policy (or the arm) wants an answer anyway."""
    try:
        belief = climb.mind.estimator.estimate(climb.step, climb.terms)
        climb.difficulty = belief.difficulty
        return belief, climb.mind.planner.choose(belief, climb.situation())
    except Exception as fault:
        if climb.strict:
            raise
        return None, Plan(rung=_baseline(climb), reason=_no_forecast(fault))


def _next(climb: Climb, belief: Belief | None, attempt: Attempt | None) -> tuple[Belief | None, Plan | Stop]:
    """The belief after an attempt (None: the ledger refused it), and what to do now."""
    if belief is None:
        return None, Stop(reason="no forecast to backtrack with")
    try:
        word = "" if attempt is None else _told(attempt)
        if attempt is not None and word:
            belief = belief.after(attempt.rung, word, climb.situation())
        return belief, climb.mind.planner.choose(belief, climb.situation())
    except Exception as fault:
        if climb.strict:
            raise
        climb.faults.append(_no_forecast(fault))
        return None, Stop(reason=_no_forecast(fault))


def _told(attempt: Attempt) -> str:
    """What an attempt tells the belief; empty if nothing."""
    if attempt.rejected:
        return "reject"
    equal = agreement(attempt)
    return "" if equal is None else "agree" if equal else "disagree"


def _no_forecast(fault: Exception) -> str:
    return f"the forecast failed ({type(fault).__name__}: {fault})"


def _unchanged(climb: Climb, plan: Plan | Stop) -> Process[Outcome]:
    """Shadow and control arms: what would have happened without Governor, with the decision beside it."""
    climb.decided = plan.rung.id if isinstance(plan, Plan) else ""
    reason = f"{climb.arm}: {plan.reason}"
    unchanged = Plan(rung=_baseline(climb), reason=reason, forecasts=plan.forecasts)
    try:
        yield from climb.account.grant(bound_of(climb, call_of(climb, unchanged)))
    except LedgerError as fault:
        climb.account.off_the_books = True
        climb.faults.append(f"not booked: {fault}")
    attempt = yield from _attempt(climb, unchanged)
    return _verdict_on(climb, attempt) or finished(climb, reason)


def _attempt(climb: Climb, plan: Plan) -> Process[Attempt]:
    call = call_of(climb, plan)
    if plan.mode == "verify":
        attempt = _attempt_of(plan, call, _in_hand(climb, plan), Charge())
    else:
        attempt = yield from _spanned(climb, call, _answered(climb, plan, call))
    if attempt.reply is not None:
        attempt = replace(attempt, verdict=(yield from _checked(climb, plan, call, attempt.reply)))
    climb.attempts.append(attempt)
    climb.now = yield Now()
    yield from _emit(climb, attempt)
    return attempt


def _spanned(climb: Climb, call: Call, answering: Process[Attempt]) -> Process[Attempt]:
    """An attempt in its span: a model's call, or the bracket around calls that are steps of their own."""
    asked = partial(call_attributes, call)
    if not climb.terms.nested:
        return (yield from traced(attempt_name(call.rung), asked, answering, attempt_attributes))
    name = nested_name(call.rung)
    return (yield from traced(name, lambda: own(asked()), answering, lambda one: own(attempt_attributes(one))))


def _checked(climb: Climb, plan: Plan, call: Call, reply: Reply) -> Process[Verdict]:
    if plan.mode in COMPARISONS:
        return flaw(reply) or compared(_in_hand(climb, plan), reply)
    verifier = checker(climb, call)
    name = verify_name(verifier.name if verifier else "complete")
    return (yield from traced(name, dict, _verify(climb, verifier, call, reply), verdict_attributes))


def _in_hand(climb: Climb, plan: Plan) -> Reply:
    """The latest answer of the plan's rung, or of any to compare with; `_forbidden` lets no plan through without."""
    return next(
        one.reply
        for one in reversed(climb.attempts)
        if one.shippable and one.reply is not None and (plan.mode == "compare" or one.rung.id == plan.rung.id)
    )


def _answered(climb: Climb, plan: Plan, call: Call) -> Process[Attempt]:
    before = climb.account.total
    answer = yield from _answer(climb, plan, call)
    return _attempt_of(plan, call, answer, climb.account.total - before)


def _attempt_of(plan: Plan, call: Call, answer: Reply | BackendError, used: Charge) -> Attempt:
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


def _answer(climb: Climb, plan: Plan, call: Call) -> Process[Reply | BackendError]:
    """One answer of a rung: a single reply, a continued one, or the leading one of several samples."""
    replies: list[Reply] = []
    leader = 0
    for sample in range(plan.rung.samples):
        answer = yield from climb.account.charged(_sampled(call, sample) if sample else call, climb.reach)
        if isinstance(answer, BackendError):
            if replies:
                break  # what is paid for is not thrown away: the samples that came decide
            return answer
        last = climb.attempts[-1].reply if climb.attempts else None
        replies.append(joined(last, answer) if call.prefix and last is not None else answer)
        if plan.rung.samples > 1:
            leader, decided = plurality(replies, plan.rung.samples)
            if decided:
                break
    return replies[leader]


def _sampled(call: Call, sample: int) -> Call:
    seed = None if call.seed is None else call.seed + 1000 * sample
    return replace(call, sample=sample, seed=seed, purpose="sample")


def _verify(climb: Climb, verifier: Verifier | None, call: Call, reply: Reply) -> Process[Verdict]:
    found = flaw(reply)
    if verifier is None or (found is not None and found.failure in _FINAL_FLAWS):
        return found or _UNCHECKED
    before = climb.account.total
    try:
        verdict = yield from climb.account.metered(verifier.verify(climb.step, call, reply))
    except Exception as fault:  # noqa: BLE001 - any bug of a plugged-in verifier; the policy says what it means
        verdict = Verdict(decision="unsure", verifier=verifier.name, error=f"{type(fault).__name__}: {fault}")
    used: Charge = climb.account.total - before  # the account alone counts, whatever a verdict says of itself
    return replace(verdict, usage=used.usage, micros=used.micros, calls=used.calls, seconds=used.seconds)


def _verdict_on(climb: Climb, attempt: Attempt) -> Outcome | None:
    """The outcome if this attempt ends the step, else None."""
    verdict = attempt.verdict
    if verdict is None or verdict.decision == "reject":
        return None
    if verdict.decision == "accept":
        return outcome_of(climb, "accepted", attempt, reason=attempt.reason)
    if attempt.mode not in SECOND_LOOKS and (verdict.verifier == "none" or climb.terms.fail == "open"):
        if not verdict.error and _may_look_again(climb):
            return None
        return outcome_of(climb, "unverified", attempt, reason=attempt.reason, error=verdict.error)
    if verdict.error:
        # More attempts could not be verified either: paying for them would buy nothing.
        return finished(climb, "the verifier broke down", error=verdict.error)
    return None


def _may_look_again(climb: Climb) -> bool:
    """Whether the planner has a say once an answer may ship: where none of it could be carried out, it is not asked."""
    situation, rung = climb.situation(), climb.attempts[-1].rung
    used_up = len(climb.attempts) >= climb.terms.max_attempts
    if not climb.governed or used_up:
        return False
    here = any(not look_refused(rung, how, situation) for how in SECOND_LOOKS)
    return here or any(not compare_refused(other, situation) for other in climb.terms.ladder)


def _forbidden(climb: Climb, plan: Plan) -> str:
    """Why a plan may not be carried out, whoever made it; empty if it may. This bounds every step."""
    situation = climb.situation()
    seconds_left = situation.seconds_left
    if seconds_left is not None and seconds_left <= 0:
        return "the deadline has passed"
    if len(climb.attempts) >= climb.terms.max_attempts:
        return f"{climb.terms.max_attempts} attempts made"
    if plan.rung.id in climb.refused:
        return f"no rung fits the budget that is left (last refused: {plan.rung.id})"
    if climb.attempts and climb.attempts[-1].error.startswith(BackendStreamError.__name__):
        return "text was shown to the reader, which can't be taken back"
    if stands(situation) is not None and plan.mode not in SECOND_LOOKS:
        return "the answer stands"
    if plan.mode in SECOND_LOOKS or plan.mode == "again":
        return look_refused(plan.rung, plan.mode, situation)
    for attempt in climb.attempts:
        if attempt.rung.id == plan.rung.id and attempt.failure not in STOCHASTIC_FAILURES:
            return f"rung {plan.rung.id} failed before for a reason that would repeat"
    return ""


def _baseline(climb: Climb) -> Rung:
    """What would have answered without Governor: the rung that is named, the top one where the ladder has none such."""
    wanted = climb.step.baseline or climb.terms.baseline
    return next((rung for rung in climb.terms.ladder if rung.id == wanted), climb.terms.ladder[-1])


def _emit(climb: Climb, record: Attempt | Outcome) -> Process[None]:
    try:
        yield Emit(climb.step, record)
    except RecordError as fault:
        if climb.strict:
            raise
        climb.faults.append(f"not recorded: {fault}")
