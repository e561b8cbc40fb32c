"""Task files: line ends inside JSON texts, and figures that can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from governor.batch import OutcomeFile
from governor.errors import TaskError
from governor.records import Outcome
from governor.tasks import read_tasks


def test_a_text_may_hold_what_unicode_calls_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({"id": "1", "prompt": "a\u2028b\x85c"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    (task,) = read_tasks(path)
    assert task.step.prompt == "a\u2028b\x85c"


def test_a_number_that_is_too_long_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('\n{"id": "1", "prompt": "x", "gold": ' + "9" * 5000 + "}\n")
    with pytest.raises(TaskError, match=r"tasks\.jsonl:2: a number has too many digits"):
        read_tasks(path)


def test_half_a_surrogate_pair_in_an_answer_is_written_as_json_can_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OutcomeFile(path) as out:
        out.append(Outcome(step_id="1", status="unverified", answer="cut \ud83d"))
    assert json.loads(path.read_bytes())["answer"] == "cut \ud83d"
