"""How an attempt may follow from the one before: what failed, which rungs stay open, in which mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from governor.plan.bounds import bound, bound_rung, over
from governor.protocols import Situation
from governor.records import STOCHASTIC_FAILURES, Amount, Attempt, BacktrackMode, Call, Forecast, Rung

MAX_TRIES = 2
"""Of one rung on one step, continuations not counted: even a stochastic failure is not chased further."""

MAX_CONTINUATIONS = 2

FEEDBACK_TEXT = 512
"""Room for the words that are put around a verdict's feedback, in bytes."""

_FATAL = ("BackendAuthError", "BackendRequestError")


@dataclass(frozen=True, slots=True)
class Options:
    """`modes` maps the ladder positions that may be tried now to their mode; `closed` says why others may not."""

    modes: dict[int, BacktrackMode]
    closed: tuple[str, ...]


def options(situation: Situation, forecasts: Sequence[Forecast]) -> Options:
    """The rungs that may be tried now. Never one whose failure would repeat, nor one that does not fit what is left."""
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
        return Options({at: mode}, tuple(closed))
    ladder = situation.terms.ladder
    closed.extend(f"{ladder[at].id}: too slow for the {situation.seconds_left:.1f} s left" for _, at, _ in late)
    return Options(modes, tuple(closed))


def mode_of(rung: Rung, situation: Situation) -> BacktrackMode | None:
    """How this rung would follow from the last attempt; None where the policy allows none of the ways."""
    if not situation.attempts:
        return "first"
    last = situation.attempts[-1]
    allowed = situation.terms.modes
    if "continue" in allowed and _continues(rung, last, situation):
        return "continue"
    if "more" in allowed and is_more(rung, last.rung):
        return "more"
    if "feedback" in allowed and last.verdict is not None and last.verdict.feedback:
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
    if call is None and left is None:
        return ""
    most = bound_next(rung, mode, situation)
    if call is not None and (passed := over(most, call)):
        return f"over the limit of a call ({passed})"
    if left is not None and (passed := over(most, left)):
        return f"over what is left ({passed})"
    return ""


def bound_next(rung: Rung, mode: BacktrackMode, situation: Situation) -> Amount:
    """The most the next call of this rung can use in this mode, what it is told of the last reply included."""
    step = situation.step
    reply = situation.attempts[-1].reply if situation.attempts else None
    if reply is None or mode not in {"continue", "feedback"}:
        return bound_rung(step, rung)
    messages, prefix = step.messages, ""
    if mode == "continue":
        prefix = reply.thinking + reply.text
    else:
        verdict = situation.attempts[-1].verdict
        told = (verdict.feedback if verdict is not None else "") + " " * FEEDBACK_TEXT
        messages = (*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": told})
    return bound(
        Call(
            step_id=step.id,
            rung=rung,
            messages=messages,
            tools=step.tools,
            response_schema=step.response_schema,
            prefix=prefix,
            timeout=rung.timeout,
        )
    )
