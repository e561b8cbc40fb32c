"""Whole thoughts read again by the rules that end one as stuck."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import RecordError
from governor.learn.schema import Row
from governor.learn.thoughts import REPEATS, Thought, lowest_group, read_thoughts, repeats
from governor.stops.settings import Stops
from governor.stops.tokens import Token
from governor.stops.watch import Watch

LOOP = "wait, but then it is not so, or is it? "


def row(**keys: Any) -> Row:
    told: dict[str, Any] = {"qid": "a", "rung": "r", "correct": 1.0, "thinking": "so"} | keys
    return Row(**told)


def entry(text: str, *likeliest: float) -> dict[str, Any]:
    top = [{"token": f"t{at}", "logprob": value} for at, value in enumerate(likeliest)]
    return {"token": text, "logprob": likeliest[0] if likeliest else -0.1, "top_logprobs": top}


def test_labelled_thoughts_that_nothing_ended_are_read() -> None:
    rows = [
        row(qid="a", question="why?"),
        row(qid="b", correct=None),
        row(qid="c", correct=None, verdict="reject", thinking="no"),
        row(qid="d", thinking="", answer_text="B"),
        row(qid="e", fields={"stopped": "repeat"}),
        row(qid="f", fields={"mode": "continue"}),
        row(qid="g", rung="other"),
        row(qid="h", correct=0.5, thinking="", fields={"logprobs": {"content": [entry("x")]}}),
    ]
    found = read_thoughts(rows, "r")
    assert [(one.right, one.thinking, len(one.tokens)) for one in found] == [
        (True, "so", 0),
        (False, "no", 0),
        (False, "", 1),
    ]


def test_several_rungs_must_be_told_apart() -> None:
    with pytest.raises(RecordError, match=r"2 rungs are recorded here: name one with --rung \(a, b\)"):
        read_thoughts([row(rung="b"), row(rung="a", qid="c")])


def test_records_without_thoughts_are_refused() -> None:
    with pytest.raises(RecordError, match="no reply here has a label and a recorded thought"):
        read_thoughts([row(thinking="", answer_text="B"), row(correct=None)])


@pytest.mark.parametrize("told", [[{"token": "a"}], "text", [1], 7, [{"token": "a", "logprob": "high"}]])
def test_tokens_of_another_form_are_refused(told: Any) -> None:
    with pytest.raises(RecordError, match="f:3: logprobs: must be a list of"):
        read_thoughts([row(fields={"logprobs": told}, path="f", line=3)])


@given(st.integers(0, 40))
def test_repetitions_are_those_at_which_the_rule_would_have_ended_it(times: int) -> None:
    thought = Thought(group="g", right=True, thinking=f"first. {LOOP * times}then", answer="42")

    def ends(count: int) -> bool:
        watch = Watch(Stops(repeat=count))
        return bool(watch.read(thought.thinking, thinking=True) or watch.read(thought.answer, thinking=False))

    assert repeats(thought) == max((count for count in REPEATS if ends(count)), default=0)


def test_a_loop_in_the_answer_counts_and_tokens_win_over_texts() -> None:
    assert repeats(Thought(group="g", right=True, thinking="so", answer=LOOP * 9)) >= 4
    calm = (Token("a", -0.1), Token("b", -0.1))
    assert repeats(Thought(group="g", right=True, thinking=LOOP * 9, tokens=calm)) == 0


def test_the_lowest_group_is_the_least_mean_of_a_full_window() -> None:
    firm, shaky = Token("a", -0.1, (("a", -0.1), ("b", -9.9))), Token("a", -0.1, (("a", -1.0), ("b", -1.0)))
    thought = Thought(group="g", right=True, tokens=(*[firm] * 40, *[shaky] * 40, *[firm] * 40))
    assert lowest_group(thought, 32, 2) == pytest.approx(1.0)
    assert lowest_group(thought, 64, 2) == pytest.approx((40 * 1.0 + 24 * 5.0) / 64)
    assert lowest_group(thought, 128, 2) is None, "no window is full"
    assert lowest_group(Thought(group="g", right=True, thinking="word " * 99), 32, 2) is None


def test_thought_and_answer_count_alike_whoever_wrote_the_mark() -> None:
    firm, shaky = Token("a", -0.1, (("a", -0.1), ("b", -9.9))), Token("a", -0.1, (("a", -1.0), ("b", -1.0)))
    end, start = Token("</think>", -0.1, firm.top), Token("<think>", -0.1, firm.top)
    for before in ((start,), ()):
        told = Thought(group="g", right=True, tokens=(*before, *[firm] * 40, end, *[shaky] * 40))
        assert lowest_group(told, 32, 2) == pytest.approx(1.0)
