"""Thoughts at growing budgets: what is read of them, and where a stop ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governor.errors import GovernorError
from governor.learn.ladder import Ladder
from governor.learn.looks import Looks, read_looks
from governor.learn.rows import read_rows

RUNGS = ("full", "b0", "b100")
LADDER = Ladder(name="budgets", records=Path("x"), rungs=RUNGS, unit="tokens", continues=True)


def row(qid: str, rung: str, tokens: int, right: float, **more: Any) -> dict[str, Any]:
    return {"qid": qid, "rung": rung, "question": f"what is {qid}?", "output_tokens": tokens, "correct": right, **more}


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


ROWS = [
    row("a", "b0", 1, 0, p_top=0.4),
    row("a", "b100", 101, 1, p_top=0.7),
    row("a", "full", 500, 1, p_top=0.9),
    row("b", "b0", 1, 1, p_top=0.8),
    row("b", "b100", 101, 0),
    row("c", "full", 60, 1, p_top=0.9),
]


def looks(folder: Path, rows: list[dict[str, Any]] = ROWS, *fields: str) -> Looks:
    return read_looks(read_rows(written(folder, rows)), LADDER, fields or ("p_top",))


def test_looks_stand_in_the_order_of_their_budgets(tmp_path: Path) -> None:
    found = looks(tmp_path)
    assert found.rungs == ("b0", "b100", "full")
    assert found.budgets.tolist() == [0, 100, 500]
    assert found.right.tolist() == [[False, True, True], [True, False, False]], "one label makes no thought"
    assert found.known.tolist() == [[True, True, True], [True, True, False]]
    np.testing.assert_array_equal(found.signals["p_top"], [[0.4, 0.7, 0.9], [0.8, np.nan, np.nan]])


def test_a_thought_ends_at_the_first_look_that_is_told_to(tmp_path: Path) -> None:
    found = looks(tmp_path)
    assert found.last.tolist() == [2, 1]
    assert found.ended(np.zeros((2, 3), dtype=np.bool_)).tolist() == [2, 1]
    assert found.ended(np.array([[False, True, True], [False, False, True]])).tolist() == [1, 1]
    assert found.ended(np.ones((2, 3), dtype=np.bool_)).tolist() == [0, 0]


def test_lost_is_a_right_answer_that_the_whole_thought_had(tmp_path: Path) -> None:
    found = looks(tmp_path)
    assert found.lost(np.array([0, 0])).tolist() == [True, False], "b was right early and wrong in the end"
    assert found.lost(np.array([1, 1])).tolist() == [False, False]


def test_questions_of_equal_text_are_one_group(tmp_path: Path) -> None:
    rows = [one | {"question": "the same"} for one in ROWS]
    assert len(set(looks(tmp_path, rows).groups)) == 1
    assert len(set(looks(tmp_path).groups)) == 2


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({}, "p_topp", "no row of the ladder's rungs has the field 'p_topp'"),
        ({}, "correct", "correct: is a label, or known only afterwards"),
        ({"p_top": "high"}, "p_top", "records.jsonl:1: p_top: must be a number from 0, is 'high'"),
        ({"p_top": True}, "p_top", "p_top: must be a number from 0, is True"),
        ({"p_top": -1}, "p_top", "p_top: must be a number from 0, is -1"),
    ],
)
def test_what_tells_nothing_is_refused(tmp_path: Path, change: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(GovernorError, match=told):
        looks(tmp_path, [ROWS[0] | change, *ROWS[1:]], field)


def test_rungs_that_are_no_budgets_of_one_thought_are_refused(tmp_path: Path) -> None:
    other = Ladder(name="efforts", records=Path("x"), rungs=RUNGS, unit="tokens")
    with pytest.raises(GovernorError, match="efforts: its rungs are not budgets of one thought"):
        read_looks(read_rows(written(tmp_path, ROWS)), other, ())


def test_one_look_a_thought_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GovernorError, match="no thought has a label at two of the ladder's budgets"):
        looks(tmp_path, [row("a", "b0", 1, 0), row("b", "b100", 90, 1), row("c", "full", 90, 1)])
