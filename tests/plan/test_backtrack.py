from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from governor.plan.backtrack import bound_next, is_more, mode_of, options
from governor.protocols import Situation, Terms
from governor.records import Amount, Attempt, BacktrackMode, Forecast, Reply, Rung, Step, Verdict

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
    fresh = bound_next(SMALL, "fresh", situation()).tokens
    assert bound_next(SMALL, "fresh", situation(WRONG)).tokens == fresh
    assert bound_next(SMALL, "feedback", situation(WRONG)).tokens > fresh + len("5") + len("too low")
    thought = replace(CUT, rung=MORE, reply=Reply(text="so", thinking="half a thought", finish_reason="length"))
    going_on = bound_next(MORE, "continue", situation(thought)).tokens
    whole = "<think>\nhalf a thought</think>\n\nso"
    assert going_on == bound_next(MORE, "fresh", situation()).tokens - MORE.thinking_tokens + len(whole)
    open_thought = replace(thought, reply=Reply(text="", thinking="half a thought", finish_reason="length"))
    going_on = bound_next(MORE, "continue", situation(open_thought)).tokens
    assert going_on == bound_next(MORE, "fresh", situation()).tokens + len("<think>\nhalf a thought")


def test_a_rung_that_the_ledger_refused_is_not_asked_for_again() -> None:
    forecasts = [
        Forecast(rung=rung.id, p_success=0.5, p_accept=0.5, output_tokens=1, micros=1, seconds=1)
        for rung in (SMALL, MORE, LARGE)
    ]
    assert set(options(replace(situation(), refused=frozenset({"small"})), forecasts).modes) == {1, 2}


def test_every_sample_counts_to_what_is_left() -> None:
    vote = replace(SMALL, samples=3)
    one = bound_next(vote, "first", situation()).tokens
    forecast = Forecast(rung="small", p_success=0.5, p_accept=0.5, output_tokens=1, micros=1, seconds=1)
    for tokens, fits in ((3 * one, True), (3 * one - 1, False)):
        left = replace(situation(ladder=(vote,)), left=Amount(tokens, *[2**40] * 6))
        assert (0 in options(left, [forecast]).modes) is fits


def test_text_that_was_shown_may_only_be_gone_on_from() -> None:
    assert mode_of(SMALL, situation(CUT, streamed=True)) == "continue"
    assert mode_of(LARGE, situation(CUT, streamed=True)) is None
    unshown = replace(CUT, reply=None, verdict=None, error="BackendUnavailableError: down")
    assert mode_of(LARGE, situation(unshown, streamed=True)) == "fresh"
    assert WRONG.reply is not None
    wordless = replace(WRONG, reply=replace(WRONG.reply, text="", finish_reason="tool_calls"))
    assert mode_of(LARGE, situation(WRONG, streamed=True)) is None
    assert mode_of(LARGE, situation(wordless, streamed=True)) == mode_of(LARGE, situation(WRONG))


def test_only_a_rejection_is_told_to_the_next_rung() -> None:
    doubt = replace(WRONG, verdict=Verdict(decision="unsure", verifier="judge", feedback="can't be read"))
    assert mode_of(LARGE, situation(doubt)) == "fresh"


def test_an_answer_that_was_ended_for_a_doubt_is_none_to_ship_before_a_whole_one() -> None:
    assert WRONG.shippable
    assert not replace(WRONG, reply=Reply(text="5", finish_reason="doubted")).shippable
