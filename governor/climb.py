"""Where a step stands while it climbs its ladder, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from governor.account import Account
from governor.effects import Compute, Process
from governor.errors import BudgetExceededError, Refusal
from governor.plan.backtrack import unjudged
from governor.plan.reach import Reach
from governor.protocols import Estimator, Planner, Situation, Terms, Verifier
from governor.records import COMPARISONS, Arm, Attempt, Forecast, Outcome, Status, Step, Usage


@dataclass(frozen=True, slots=True)
class Mind:
    """The deciding parts of a step; `verifier` is None where the policy has none for it."""

    estimator: Estimator
    planner: Planner
    verifier: Verifier | None = None


@dataclass(slots=True)
class Climb:
    """Where a step stands. Mutable, owned by one run of the loop."""

    step: Step
    terms: Terms
    mind: Mind
    arm: Arm
    account: Account
    started: float
    now: float
    attempts: list[Attempt] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    """What went wrong beside the answer and did not end the step."""
    reach: Reach | None = None
    """How far the stream of the next call may run; None where its whole bound is held."""
    decided: str = ""
    difficulty: float | None = None

    @property
    def governed(self) -> bool:
        """Whether decisions are carried out; if not, nothing of ours may change or refuse the call."""
        return self.arm == "governed"

    @property
    def strict(self) -> bool:
        """Whether a part that breaks down ends the step."""
        return self.governed and self.terms.fail == "closed"

    def situation(self) -> Situation:
        verifier = self.mind.verifier
        deadline = least(self.step.deadline, self.terms.deadline)
        return Situation(
            step=self.step,
            terms=self.terms,
            attempts=tuple(self.attempts),
            left=self.account.left,
            refused=frozenset(self.refused),
            seconds_left=None if deadline is None else deadline - (self.now - self.started),
            sensitivity=verifier.sensitivity if verifier else 1.0,
            false_accept=verifier.false_accept if verifier else 1.0,
            redraws=_redraws(verifier),
        )


def with_load(step: Step) -> Process[Step]:
    """The step with its load as a number: one that has to be looked up is, once, and the journal keeps it."""
    load = step.state.get("load")
    if not callable(load):
        return step
    known = yield Compute("load", load)
    return replace(step, state={**step.state, "load": known})


def told(outcome: Outcome, faults: list[str]) -> Outcome:
    """The outcome with everything that went wrong beside it in its error line."""
    if not faults:
        return outcome
    return replace(outcome, error="; ".join([*([outcome.error] if outcome.error else []), *faults]))


def refused_outcome(climb: Climb, refusal: Refusal, error: str) -> Outcome:
    """How a step ends that its budget stops: refused, or with the best answer it holds."""
    if climb.terms.on_exhausted == "refuse" and not any(unjudged(one, climb.situation()) for one in climb.attempts):
        ended = outcome_of(climb, "refused", error=error, reason="budget exhausted")
    else:
        ended = finished(climb, "budget exhausted", error=error)
    return replace(ended, refusal=refusal)


def finished(
    climb: Climb,
    reason: str,
    error: str = "",
    without: Status = "refused",
    forecasts: Sequence[Forecast] = (),
) -> Outcome:
    """End without an accepted answer: ship the best in hand, or (`without` any attempt) say why there is none.

    `forecasts` are those of the decision to end: what is hoped of each rung's answer once answers were compared.
    """
    answered = [attempt for attempt in climb.attempts if attempt.reply is not None]
    if answered:
        told = any(one.mode in COMPARISONS for one in answered)
        hopes = {one.rung: one.p_success for one in forecasts} if told else {}
        best = max(answered, key=lambda one: _merit(one, answered, hopes, latest=climb.terms.one_thought))
        open_still = unjudged(best, climb.situation()) and not _rejected(best, answered)
        status: Status = "unverified" if open_still else "best_so_far"
        return outcome_of(climb, status, best, reason=reason, error=error)
    if climb.attempts:
        return outcome_of(climb, "error", reason=reason, error=error or climb.attempts[-1].error)
    return outcome_of(climb, without, reason=reason, error=error or reason)


def _merit(
    attempt: Attempt, attempts: Sequence[Attempt], hopes: Mapping[str, float], *, latest: bool
) -> tuple[bool, bool, float, float, int]:
    usable = attempt.shippable, not _rejected(attempt, attempts)
    if latest:  # a longer thought knows what the shorter one knew
        return *usable, 0.0, 0.0, attempt.number
    compared = attempt.mode in COMPARISONS  # that two answers are equal is no score of either
    score = attempt.verdict.score if attempt.verdict and not compared else None
    told = next((f.p_success for f in attempt.forecasts if f.rung == attempt.rung.id), 0.0)
    return *usable, score or 0.0, hopes.get(attempt.rung.id, told), attempt.number


def _rejected(attempt: Attempt, attempts: Sequence[Attempt]) -> bool:
    """Whether any verdict on this very answer was a rejection: it may have been judged more than once."""
    return any(one.rejected for one in attempts if one.reply is attempt.reply)


def _redraws(verifier: object) -> bool:
    return bool(getattr(verifier, "redraws", False))  # a test against the protocol would cost half a decision


def outcome_of(
    climb: Climb, status: Status, attempt: Attempt | None = None, *, reason: str = "", error: str = ""
) -> Outcome:
    """The outcome that ships `attempt`'s answer (none: no answer), with everything tried and spent."""
    total = climb.account.total
    usage, verifying = Usage(), Usage()
    for one in climb.attempts:
        usage += one.usage
        verifying += one.verdict.usage if one.verdict else Usage()
    reply = attempt.reply if attempt else None
    cut = climb.account.cut if reply is not None and reply.finish_reason == "length" else None
    why = [str(cut)] if cut is not None and str(cut) not in error else []
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
        error="; ".join([*([error] if error else []), *why]),
        node=climb.step.node,
        session=climb.step.session,
        run=climb.step.run,
        parent=climb.step.parent,
        audit=climb.terms.audit,
        refusal=cut.told if isinstance(cut, BudgetExceededError) else None,
        scopes=climb.account.scopes,
        shares=climb.account.shares,
    )


def least(*seconds: float | None) -> float | None:
    """The smallest of several limits in seconds, None being no limit."""
    return min((s for s in seconds if s is not None), default=None)
