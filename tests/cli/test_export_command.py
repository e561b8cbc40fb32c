"""`governor export`: from records to a data set, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governor.cli.app import app
from governor.telemetry.records import JsonlSink
from tests.telemetry.made_records import ATTEMPT, OUTCOME, REPLY, STEP, VERDICT


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    rows = [
        {
            "qid": "q1",
            "question": "2 + 2?",
            "rung": "deep",
            "correct": 1,
            "output_tokens": 9,
            "answer_text": "It is 4.",
        },
        {"qid": "q1", "rung": "deep", "sample": 1, "correct": 1, "output_tokens": 3, "answer_text": "4"},
        {"qid": "q1", "rung": "low", "correct": 1, "output_tokens": 2, "answer_text": "4!"},
        {"qid": "q1", "rung": "low", "sample": 1, "correct": 7},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_become_a_data_set(outcomes: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    done = invoke(outcomes, "-o", out, "--teacher", "deep")
    assert done.exit_code == 0
    assert done.stdout == f"{out}: 1 traces of 3 rows (deep 1)\nleft out: other_rung 1\n"
    assert done.stderr == f"{outcomes}:4: correct: must be 0..1, is 7 [skipped]\n"
    (line,) = lines(out)
    assert line["messages"] == [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning_content": ""},
    ]
    assert (line["rung"], line["output_tokens"], line["verified_by"]) == ("deep", 3, "label")


def test_json_is_one_object(outcomes: Path, tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    done = invoke(outcomes, "-o", out, "--json", "--format", "chat")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "out": str(out),
        "traces": 2,
        "teachers": {"deep": 1, "low": 1},
        "rows": 3,
        "bad_rows": 1,
        "skipped": {},
    }


def test_strict_refuses_a_bad_row_and_writes_nothing(outcomes: Path, tmp_path: Path) -> None:
    done = invoke(outcomes, "-o", tmp_path / "traces.jsonl", "--strict")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"{outcomes}:4: correct: must be 0..1, is 7\n"
    assert list(tmp_path.iterdir()) == [outcomes]


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"qid": "q", "rung": "a", "question": "?", "correct": 1, "answer_text": "!"}
    path.write_text(json.dumps(good) + "\n" + "{}\n" * 25)
    done = invoke(path, "-o", tmp_path / "out.jsonl")
    told = done.stderr.splitlines()
    assert (done.exit_code, len(told)) == (0, 21)
    assert told[-1] == "5 more bad rows were skipped"


@pytest.mark.parametrize("texts", [True, False])
def test_our_own_records_export_only_where_texts_were_recorded(texts: bool, tmp_path: Path) -> None:
    path, out = tmp_path / "records.jsonl", tmp_path / "traces.jsonl"
    sink = JsonlSink(path, prompts=texts, answers=texts)
    right = replace(
        ATTEMPT,
        mode="first",
        verdict=replace(VERDICT, decision="accept"),
        reply=replace(REPLY, finish_reason="stop", tool_calls=()),
    )
    for record in (right, OUTCOME):
        sink.emit(STEP, record)
    sink.close()
    done = invoke(path, "-o", out)
    if texts:
        assert done.exit_code == 0, done.stderr
        (line,) = lines(out)
        assert line["messages"][-1]["reasoning_content"] == "six sevens"
        assert (line["qid"], line["node"], line["verified_by"]) == ("s-1", "solve", "verifier:number")
    else:
        assert done.exit_code == 2
        assert "write `records: {prompts: true, answers: true}` in the policy" in done.stderr
        assert not out.exists()


def test_no_such_records_and_no_such_format(outcomes: Path, tmp_path: Path) -> None:
    missing = invoke(tmp_path / "none.jsonl", "-o", tmp_path / "o")
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"{tmp_path}/none.jsonl: can't be read: No such file or directory\n",
    )
    assert invoke(outcomes, "-o", tmp_path / "o", "--format", "csv").exit_code == 2
    assert invoke(outcomes).exit_code == 2
