"""How an attempt may follow from the one before: what failed, which rungs stay open, in which mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from governor.estimate.answers import agreement
from governor.plan.bounds import bound, over
from governor.plan.turns import call_for
from governor.protocols import Situation
from governor.records import (
    STOCHASTIC_FAILURES,
    Amount,
    Attempt,
    BacktrackMode,
    Forecast,
    Plan,
    Rung,
)

MAX_TRIES = 2
"""Samples of one rung on one step, continuations not counted: even a stochastic failure is not chased further."""

MAX_CONTINUATIONS = 2

MAX_VERDICTS = 3
"""On one answer."""

_LOOKS: tuple[BacktrackMode, ...] = ("again", "agree", "compare", "verify")
_FATAL = ("BackendAuthError", "BackendRequestError")


@dataclass(frozen=True, slots=True)
class Options:
    """`modes` maps the ladder positions that may be tried now to their mode; `closed` says why others may not.

    `looks` are the second samples and second looks that answers in hand allow.
    """

    modes: dict[int, BacktrackMode]
    closed: tuple[str, ...]
    looks: tuple[tuple[int, BacktrackMode], ...] = ()


def options(situation: Situation, forecasts: Sequence[Forecast]) -> Options:
    """What may be done now. Never what would only fail again, nor what does not fit what is left."""
    looks = _looks(situation, forecasts)
    if stands(situation) is not None:
        return Options({}, ("the answer stands",), looks)
    modes: dict[int, BacktrackMode] = {}
    closed: list[str] = []
    late: list[tuple[float, int, BacktrackMode]] = []
    for at, (rung, forecast) in enumerate(zip(situation.terms.ladder, forecasts, strict=True)):
        mode = mode_of(rung, situation)
        why = _closed(rung, mode, situation)
        if why or mode is None:
            closed.append(f"{rung.id}: {why}")
        elif situation.seconds_left is not None and forecast.seconds > situation.seconds_left:
            late.append((forecast.seconds, at, mode))
        else:
            modes[at] = mode
    if not modes and late and not any(a.shippable for a in situation.attempts):
        # Times are forecast, not known, and a call is cut at the deadline anyway: the quickest rung may try.
        _, at, mode = min(late)
        return Options({at: mode}, tuple(closed), looks)
    ladder = situation.terms.ladder
    closed.extend(f"{ladder[at].id}: too slow for the {situation.seconds_left:.1f} s left" for _, at, _ in late)
    return Options(modes, tuple(closed), looks)


def stands(situation: Situation) -> Attempt | None:
    """The answer that ships unless something is made of a doubt: nobody can judge it, and nothing speaks against it."""
    answer = None
    for attempt in situation.attempts:
        if attempt.mode == "agree":
            answer = None if agreement(attempt) is False else answer
        elif attempt.mode == "compare":
            answer = answer or (attempt if unjudged(attempt, situation) else None)
        elif attempt.mode == "verify":
            answer = None if attempt.rejected else answer
        elif unjudged(attempt, situation):
            answer = attempt
    return answer


def unjudged(attempt: Attempt, situation: Situation) -> bool:
    """Whether this answer may ship though no verifier accepted it: none applies, or the policy fails open."""
    verdict = attempt.verdict
    lenient = not situation.verified or situation.terms.fail == "open"
    return lenient and verdict is not None and verdict.decision == "unsure" and attempt.failure == ""


def _looks(situation: Situation, forecasts: Sequence[Forecast]) -> tuple[tuple[int, BacktrackMode], ...]:
    ways: list[BacktrackMode] = [mode for mode in _LOOKS if mode in situation.terms.modes]
    if not ways or not situation.attempts:
        return ()
    return tuple(
        (at, mode)
        for at, (rung, forecast) in enumerate(zip(situation.terms.ladder, forecasts, strict=True))
        for mode in ways
        if not look_refused(rung, mode, situation)
        and not _too_late(rung, mode, forecast, situation)
        and not (_unaffordable(rung, mode, situation) if mode != "verify" else rung.id in situation.refused)
    )


def look_refused(rung: Rung, mode: BacktrackMode, situation: Situation) -> str:
    """Why no second sample, comparison or verdict may be had of a rung, whoever asks; empty if it may."""
    return compare_refused(rung, situation) if mode == "compare" else _repeat_refused(rung, mode, situation)


def compare_refused(rung: Rung, situation: Situation) -> str:
    """Why a rung's answer may not be compared with the one in hand; empty if it may. Nothing need be in hand yet."""
    if "compare" not in situation.terms.modes:
        return "the policy's modes do not allow 'compare'"
    if situation.terms.streamed:
        return "text may have been shown, which can't be taken back"
    if situation.verified or situation.terms.one_thought:
        return "answers are judged, not compared"
    if situation.attempts and stands(situation) is None:
        return "no answer is in hand"
    for one in situation.attempts:
        if one.rung.id == rung.id:
            return f"rung {rung.id} was asked"
        if one.rung.model == rung.model and one.error.startswith(_FATAL):
            return f"{rung.model} refused the request"
    return ""


def _repeat_refused(rung: Rung, mode: BacktrackMode, situation: Situation) -> str:
    mine = [attempt for attempt in situation.attempts if attempt.rung.id == rung.id]
    target = next((attempt for attempt in reversed(mine) if attempt.shippable), None)
    if mode not in situation.terms.modes:
        return f"the policy's modes do not allow '{mode}'"
    if situation.terms.streamed:
        return "text may have been shown, which can't be taken back"
    if target is None or target.verdict is None:
        return f"no answer of rung {rung.id} is in hand"
    if any(one.rung.model == rung.model and one.error.startswith(_FATAL) for one in situation.attempts):
        return f"{rung.model} refused the request"
    if mode == "verify":
        return _verdict_refused(mine, target, situation)
    if target.rejected is not (mode == "again"):
        return "it was not rejected" if mode == "again" else "it was rejected: there is nothing to compare"
    if rung.temperature == 0:
        return f"rung {rung.id} samples at temperature 0: it would answer the same"
    tries = sum(attempt.mode not in {"continue", "verify"} for attempt in mine)
    return f"rung {rung.id} was sampled {tries} times" if tries >= MAX_TRIES else ""


def _verdict_refused(mine: Sequence[Attempt], target: Attempt, situation: Situation) -> str:
    if not situation.redraws:
        return "the verifier would say the same again"
    if target.mode == "agree":
        return "an answer that was compared is not judged"
    samples = [at for at, one in enumerate(mine) if one.mode != "verify" and one.shippable]
    verdicts = 1 + sum(one.mode == "verify" for one in mine[samples[-1] + 1 :]) if samples else MAX_VERDICTS
    return f"the answer was judged {verdicts} times" if verdicts >= MAX_VERDICTS else ""


def _too_late(rung: Rung, mode: BacktrackMode, forecast: Forecast, situation: Situation) -> bool:
    if situation.seconds_left is None:
        return False
    judged = [one.verdict.seconds for one in situation.attempts if one.rung.id == rung.id and one.verdict is not None]
    return (max(judged, default=0.0) if mode == "verify" else forecast.seconds) > situation.seconds_left


def mode_of(rung: Rung, situation: Situation) -> BacktrackMode | None:
    """How this rung would follow from the last attempt; None where the policy allows none of the ways."""
    if not situation.attempts:
        return "first"
    last = situation.attempts[-1]
    allowed = situation.terms.modes
    if situation.terms.streamed and any(one.reply and one.reply.text for one in situation.attempts):
        allowed = tuple(mode for mode in allowed if mode == "continue")
    if "continue" in allowed and _continues(rung, last, situation):
        return "continue"
    if "more" in allowed and is_more(rung, last.rung):
        return "more"
    if "feedback" in allowed and last.rejected and last.verdict is not None and last.verdict.feedback:
        return "feedback"
    return "fresh" if "fresh" in allowed else None


def is_more(rung: Rung, than: Rung) -> bool:
    """Same model with more room to think or to answer."""
    return rung.model == than.model and (
        rung.max_tokens > than.max_tokens or rung.thinking_tokens > than.thinking_tokens
    )


def _continues(rung: Rung, last: Attempt, situation: Situation) -> bool:
    if rung.id != last.rung.id or rung.id not in situation.terms.continues or last.failure != "truncated":
        return False
    continued = sum(a.mode == "continue" for a in situation.attempts if a.rung.id == rung.id)
    return continued < MAX_CONTINUATIONS


def _closed(rung: Rung, mode: BacktrackMode | None, situation: Situation) -> str:
    """Why the rung may not be tried; empty if it may."""
    return (
        _used_up(rung, mode, situation.attempts)
        or ("" if mode else "the policy's modes allow no way to it")
        or _unaffordable(rung, mode or "fresh", situation)
    )


def _used_up(rung: Rung, mode: BacktrackMode | None, attempts: Sequence[Attempt]) -> str:
    tries = 0
    for attempt in attempts:
        if attempt.rung.model == rung.model and attempt.error.startswith(_FATAL):
            return f"{rung.model} refused the request"
        if attempt.rung.id == rung.id:
            tries += attempt.mode != "continue"
            if attempt.failure not in STOCHASTIC_FAILURES:
                return "tried"
            if attempt.failure == "truncated" and mode != "continue":
                return "its limit cut the reply, and would again"
    return "tried twice" if tries >= MAX_TRIES and mode != "continue" else ""


def _unaffordable(rung: Rung, mode: BacktrackMode, situation: Situation) -> str:
    call, left = situation.terms.call, situation.left
    if rung.id in situation.refused:
        return "the ledger refused it"
    if call is None and left is None:
        return ""
    most = bound_next(rung, mode, situation)
    if call is not None and (passed := over(most, call)):
        return f"over the limit of a call ({passed})"
    if left is not None and (passed := over(sum([most] * (rung.samples - 1), most), left)):
        return f"over what is left ({passed})"
    return ""


def bound_next(rung: Rung, mode: BacktrackMode, situation: Situation) -> Amount:
    """The most the next call of this rung can use in this mode: the bound of the very request that would be sent."""
    plan = Plan(rung=rung, mode=mode)
    return bound(call_for(situation.step, plan, situation.attempts, None, situation.seconds_left))
