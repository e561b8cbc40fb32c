"""What a plan may spend, held before it is carried out: its calls, their verifier, or the ladder as a whole."""

from __future__ import annotations

from governor.climb import Climb, finished, refused_outcome
from governor.effects import Process
from governor.errors import BudgetExceededError, LedgerError, LedgerUnavailableError
from governor.plan.bounds import bound
from governor.plan.reach import opening
from governor.plan.turns import call_for
from governor.protocols import Verifier
from governor.records import COMPARISONS, SECOND_LOOKS, Amount, BacktrackMode, Call, Outcome, Plan


def granted(climb: Climb, plan: Plan) -> Process[BudgetExceededError | Outcome | None]:
    """Reserve for a plan. None is yes; a refusal to degrade from, or the outcome that ends the step, is no."""
    account = climb.account
    try:
        yield from _held(climb, plan)
    except BudgetExceededError as refusal:
        climb.refused.add(plan.rung.id)
        optional = plan.mode in SECOND_LOOKS  # the step can do without
        if optional or climb.terms.on_exhausted == "degrade":
            return refusal
        return refused_outcome(climb, refusal.told, str(refusal))
    except LedgerUnavailableError as fault:
        if account.fails_closed:
            return finished(climb, "the ledger can't be reached", error=str(fault), without="error")
        account.off_the_books = True
        climb.faults.append(f"not booked: {fault}")
    except LedgerError as fault:
        return finished(climb, "the ledger refused the reservation", error=str(fault), without="error")
    return None


def _held(climb: Climb, plan: Plan) -> Process[None]:
    call = call_of(climb, plan)
    calls = _calls(call, plan.mode)
    beside = Amount() if plan.mode in COMPARISONS else _verifying(climb, call)
    needed = calls + beside
    climb.reach = None
    if climb.terms.reserve == "ladder" and not climb.account.opened:
        try:
            yield from climb.account.grant(_whole_ladder(climb, plan, needed), plan.rung.model, calls)
        except BudgetExceededError:
            if climb.terms.on_exhausted != "degrade":
                raise
        else:
            return
    reach = None if plan.mode in SECOND_LOOKS else opening(call, plan, climb.terms, beside)
    if reach is None:
        yield from climb.account.grant(needed, plan.rung.model, calls)
    else:
        climb.reach = yield from climb.account.grant_reach(call, reach)
    climb.account.cut = None


def call_of(climb: Climb, plan: Plan) -> Call:
    """The request of a plan. In shadow and control arms no verifier has a say in it."""
    verifier = climb.mind.verifier if climb.governed else None
    ends = climb.account.ends
    left = None if ends is None else ends - climb.now
    return call_for(climb.step, plan, tuple(climb.attempts), verifier, left)


def checker(climb: Climb, call: Call) -> Verifier | None:
    """Who judges a reply; in shadow and control arms none that calls models, which would change what the step costs."""
    verifier = climb.mind.verifier
    if verifier is None or climb.governed:
        return verifier
    try:
        most = verifier.bound(call)
    except Exception as fault:  # noqa: BLE001 - whatever a plugged-in verifier does, the call goes on
        climb.faults.append(f"not verified: {type(fault).__name__}: {fault}")
        return None
    return None if most.calls or most.micros else verifier


def bound_of(climb: Climb, call: Call) -> Amount:
    """The most a new attempt can use: its samples and, where one has its say, its verifier."""
    return _calls(call, "fresh") + _verifying(climb, call)


def _calls(call: Call, mode: BacktrackMode) -> Amount:
    """The most that an attempt's own calls can use; its verifier's may be of other models."""
    return Amount() if mode == "verify" else sum([bound(call)] * call.rung.samples, Amount())


def _verifying(climb: Climb, call: Call) -> Amount:
    verifier = checker(climb, call)
    return verifier.bound(call) if verifier else Amount()


def _whole_ladder(climb: Climb, plan: Plan, needed: Amount) -> Amount:
    for rung in climb.terms.ladder:
        if rung.id != plan.rung.id:
            needed += bound_of(climb, call_of(climb, Plan(rung=rung)))
    return needed
