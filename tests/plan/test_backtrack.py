from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from governor.plan.backtrack import bound_next, is_more, mode_of, options
from governor.plan.bounds import bound_rung
from governor.protocols import Situation, Terms
from governor.records import Attempt, BacktrackMode, Forecast, Reply, Rung, Step, Verdict

SMALL = Rung(id="small", model="s", answer_tokens=400)
MORE = Rung(id="more", model="s", answer_tokens=400, thinking_tokens=1000)
LARGE = Rung(id="large", model="l")
CUT = Attempt(
    number=1,
    rung=SMALL,
    mode="first",
    reply=Reply(text="the start of", finish_reason="length"),
    verdict=Verdict(decision="reject", verifier="whole", failure="truncated"),
)
WRONG = replace(
    CUT, reply=Reply(text="5"), verdict=Verdict(decision="reject", verifier="v", failure="wrong", feedback="too low")
)


def situation(*attempts: Attempt, **changes: Any) -> Situation:
    made: dict[str, Any] = {"app": "test", "ladder": (SMALL, MORE, LARGE), "continues": frozenset({"small"}), **changes}
    granted = Terms(**made)
    return Situation(step=Step(id="s", messages=()), terms=granted, attempts=attempts)


@pytest.mark.parametrize(
    ("attempts", "rung", "changes", "mode"),
    [
        ((), SMALL, {}, "first"),
        ((), SMALL, {"modes": ()}, "first"),
        ((CUT,), SMALL, {}, "continue"),
        ((CUT,), MORE, {}, "more"),
        ((CUT,), LARGE, {}, "fresh"),
        ((CUT,), SMALL, {"continues": frozenset()}, "fresh"),
        ((CUT,), SMALL, {"modes": ("more", "fresh")}, "fresh"),
        ((CUT,), SMALL, {"modes": ("more",)}, None),
        ((CUT, replace(CUT, mode="continue")), SMALL, {}, "continue"),
        ((CUT, replace(CUT, mode="continue"), replace(CUT, mode="continue")), SMALL, {}, "fresh"),
        ((WRONG,), MORE, {}, "more"),
        ((WRONG,), LARGE, {}, "feedback"),
        ((WRONG,), LARGE, {"modes": ("fresh",)}, "fresh"),
        ((WRONG,), LARGE, {"modes": ("more", "continue")}, None),
    ],
)
def test_mode(attempts: tuple[Attempt, ...], rung: Rung, changes: dict[str, Any], mode: BacktrackMode | None) -> None:
    assert mode_of(rung, situation(*attempts, **changes)) == mode


def test_a_continued_rung_is_closed_after_two_continuations() -> None:
    forecasts = tuple(
        Forecast(rung=r.id, p_success=0.5, p_accept=0.5, output_tokens=1, micros=1, seconds=1)
        for r in (SMALL, MORE, LARGE)
    )
    cut_again = replace(CUT, mode="continue")
    assert options(situation(CUT, cut_again), forecasts).modes[0] == "continue"
    tried = options(situation(CUT, cut_again, cut_again, replace(CUT, mode="fresh")), forecasts)
    assert 0 not in tried.modes
    assert tried.closed == ("small: its limit cut the reply, and would again",)


def test_what_failed() -> None:
    assert CUT.failure == "truncated"
    assert WRONG.failure == "wrong"
    assert replace(WRONG, reply=None, verdict=None).failure == "fault"
    assert replace(WRONG, verdict=None).failure == ""
    assert replace(CUT, verdict=Verdict(decision="accept", verifier="v")).failure == ""
    assert replace(WRONG, verdict=Verdict(decision="reject", verifier="v")).failure == "wrong"


def test_only_whole_answers_are_held() -> None:
    empty = replace(WRONG, verdict=Verdict(decision="reject", verifier="v", failure="empty"))
    assert [a for a in [CUT, WRONG, empty, replace(WRONG, reply=None)] if a.shippable] == [WRONG]


def test_more_is_the_same_model_with_more_room() -> None:
    assert is_more(MORE, SMALL)
    assert not is_more(SMALL, MORE)
    assert not is_more(LARGE, SMALL)
    assert not is_more(replace(SMALL, temperature=1.0), SMALL)


def test_what_the_next_call_is_told_counts_to_its_bound() -> None:
    fresh = bound_rung(situation().step, SMALL).tokens
    assert bound_next(SMALL, "fresh", situation(WRONG)).tokens == fresh
    assert bound_next(SMALL, "feedback", situation(WRONG)).tokens > fresh + len("5") + len("too low")
    thought = replace(CUT, rung=MORE, reply=Reply(text="so", thinking="half a thought", finish_reason="length"))
    going_on = bound_next(MORE, "continue", situation(thought)).tokens
    assert going_on == bound_rung(situation().step, MORE).tokens - MORE.thinking_tokens + len("half a thoughtso")
