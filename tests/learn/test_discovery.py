"""The ladder that records speak of: which rungs, in which order, and why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import LadderError
from governor.learn.discovery import Discovered, discover
from governor.learn.schema import Row

PATH = Path("desk.jsonl")


def rows(rung: str, count: int = 3, **told: Any) -> Iterator[Row]:
    for at in range(count):
        yield replace(Row(qid=f"q{at}", rung=rung, question=f"question {at}", correct=1.0), **told)


def found(*parts: Iterator[Row], fewest: int = 3) -> Discovered:
    return discover((row for part in parts for row in part), PATH, fewest)


def test_rungs_stand_by_their_mean_cost_where_every_one_has_one() -> None:
    made = found(rows("dear", cost_usd=0.3, output_tokens=1.0), rows("cheap", cost_usd=0.1, output_tokens=9.0))
    assert (made.ladder.rungs, made.ladder.unit) == (("cheap", "dear"), "reported_usd")
    assert (made.ladder.name, made.ladder.records) == ("desk", PATH)
    assert made.few == {}


def test_the_mean_counts_not_the_sum() -> None:
    made = found(rows("often", count=9, cost_usd=0.1), rows("seldom", count=3, cost_usd=0.2))
    assert made.ladder.rungs == ("often", "seldom")


def test_without_every_rungs_cost_tokens_order_them_and_unknown_ones_come_last() -> None:
    made = found(rows("long", cost_usd=0.1, output_tokens=90.0), rows("silent"), rows("short", output_tokens=10.0))
    assert (made.ladder.rungs, made.ladder.unit) == (("short", "long", "silent"), "tokens")


def test_equal_cost_leaves_the_order_to_the_names() -> None:
    assert found(rows("b"), rows("a")).ladder.rungs == ("a", "b")


def test_a_rung_with_too_few_labelled_questions_is_left_out_and_told() -> None:
    made = found(rows("much"), rows("few", count=2), rows("dumb", correct=None))
    assert made.ladder.rungs == ("much",)
    assert made.few == {"dumb": 0, "few": 2}


def test_repeated_tries_of_a_question_are_one_question() -> None:
    again = (Row(qid="q0", rung="r", question="?", correct=1.0, sample=str(at)) for at in range(9))
    with pytest.raises(LadderError, match=r"at most 1 questions with a label \(rung 'r'\), 3 are needed"):
        found(again)


def test_a_reply_to_feedback_counts_for_nothing() -> None:
    with pytest.raises(LadderError, match="no row answers its question by itself"):
        found(rows("r", fields={"mode": "feedback"}))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"question": None}, "no row holds the text of its question.*prompts: true"),
        ({"correct": None}, "no row has a label"),
        ({"correct": None, "verdict": "unsure"}, "no row has a label"),
    ],
)
def test_why_nothing_can_be_learned(told: dict[str, Any], said: str) -> None:
    with pytest.raises(LadderError, match=said):
        found(rows("r", **told))


def test_no_rows_at_all_are_said_to_hold_no_texts() -> None:
    with pytest.raises(LadderError, match="no row holds the text"):
        found()


def test_a_verdict_is_a_label() -> None:
    assert found(rows("r", correct=None, verdict="reject")).ladder.rungs == ("r",)


@given(st.permutations([(rung, at) for rung in ("a", "b", "c") for at in range(4)]), st.integers(1, 4))
def test_the_order_of_the_rows_means_nothing(order: list[tuple[str, int]], fewest: int) -> None:
    cost = {"a": 0.25, "b": 0.5, "c": 0.125}
    made = discover(
        (Row(qid=f"q{at}", rung=rung, question="?", correct=0.0, cost_usd=cost[rung]) for rung, at in order),
        PATH,
        fewest,
    )
    assert made.ladder.rungs == ("c", "a", "b")
