from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from governor.errors import RecordError
from governor.protocols import Sink
from governor.records import Attempt, BacktrackMode, Outcome, Reply, Step, Verdict
from governor.telemetry.records import JsonlSink, RecordShape, RecordWarning, read_records, record_of, to_line
from governor.testing import FrozenClock
from tests.telemetry.made_records import ANSWER, ATTEMPT, OUTCOME, PROMPT, STEP

MANY = {"input_tokens": 300, "output_tokens": 120, "thinking_tokens": 90, "cached_tokens": 15, "written_tokens": 30}
FEW = {"input_tokens": 7, "output_tokens": 3, "thinking_tokens": 0, "cached_tokens": 0, "written_tokens": 0}
SCHEMA = json.loads((Path(__file__).parents[2] / "governor/telemetry/record.schema.json").read_text())
ALL = RecordShape(prompts=True, answers=True, policy_digest="d1", app="desk")
BARE_ATTEMPT = replace(ATTEMPT, reply=None, verdict=None, forecasts=(), error="connection refused")
BARE_OUTCOME = Outcome(step_id="s-1", status="refused", difficulty=float("nan"))


def test_one_line_for_each_attempt_and_outcome(tmp_path: Path) -> None:
    sink: Sink = JsonlSink(tmp_path / "r.jsonl", policy_digest="d1", app="desk", clock=FrozenClock(1_700_000_000.25))
    sink.emit(STEP, ATTEMPT)
    sink.emit(STEP, OUTCOME)
    sink.close()
    attempt, outcome = read_records(tmp_path / "r.jsonl", strict=True)
    shared = {
        "schema": 1,
        "time": "2023-11-14T22:13:20.250Z",
        "app": "desk",
        "policy": "d1",
        "step_id": "s-1",
        "node": "solve",
        "session": "thread 9",
        "run": "run-3",
        "parent": "node-7",
        "step_index": 2,
    }
    assert attempt == shared | {
        "kind": "attempt",
        "tools": [],
        "state": {},
        "beyond": {},
        "attempt": 2,
        "rung": "high",
        "model": "large-2026",
        "effort": "high",
        "thinking_tokens": 512,
        "answer_tokens": 256,
        "samples": 3,
        "mode": "feedback",
        "reason": "rejected: format",
        "forecasts": [
            {
                "rung": "high",
                "p_success": 0.1235,
                "p_accept": 0.5,
                "output_tokens": 123.5,
                "micros": 10.0,
                "seconds": None,
                "index": 0.0,
            }
        ],
        "finish_reason": "length",
        "stopped": "budget",
        "usage_known": True,
        "verdict": {
            "decision": "reject",
            "verifier": "number",
            "score": 0.25,
            "failure": "format",
            "usage": FEW,
            "micros": 4,
            "calls": 1,
            "seconds": 0.25,
            "error": "",
        },
        "usage": MANY,
        "micros": 77,
        "calls": 3,
        "seconds": 2.3457,
        "error": "",
    }
    assert outcome == shared | {
        "kind": "outcome",
        "status": "best_so_far",
        "arm": "shadow",
        "decided": "low",
        "audit": True,
        "refusal": {
            "kind": "budget_busy",
            "scope": "app:a",
            "dimension": "calls",
            "limit": 9,
            "resets": None,
            "retry_after": 1.0,
        },
        "rung": "high",
        "model": "large-2026",
        "attempts": 1,
        "difficulty": 0.61,
        "reason": "nothing left",
        "spent": {
            "tokens": 430,
            "micros": 81,
            "millis": 2600,
            "calls": 4,
            "input": 307,
            "thinking": 90,
            "answer": 33,
        },
        "scopes": ["session:desk/thread 9", "app:desk@2026-11-21"],
        "shares": [],
        "usage": MANY,
        "verifier_usage": FEW,
        "micros": 81,
        "seconds": 2.7,
        "error": "",
    }


@pytest.mark.parametrize("record", [ATTEMPT, OUTCOME])
def test_a_step_of_no_run_that_is_no_part_says_neither(record: Attempt | Outcome) -> None:
    line = record_of(replace(STEP, run="", parent=""), record, RecordShape(), 1.7e9)
    assert {"run", "parent"} & set(line) == set()
    jsonschema.validate(json.loads(to_line(line)), SCHEMA)


@pytest.mark.parametrize("shape", [RecordShape(), ALL], ids=["without texts", "with texts"])
@pytest.mark.parametrize("record", [ATTEMPT, OUTCOME, BARE_ATTEMPT, BARE_OUTCOME])
def test_every_record_fits_the_published_schema(record: Attempt | Outcome, shape: RecordShape) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    line = json.loads(to_line(record_of(STEP, record, shape, 1.7e9)))
    kind = SCHEMA["$defs"][line["kind"]]
    jsonschema.validate(line, {**SCHEMA, "oneOf": [kind]})
    if shape == ALL and record in (ATTEMPT, OUTCOME):
        unwritten = set(kind["properties"]) - set(line)
        assert unwritten == set(), "the schema promises fields that no record has"


def test_outcomes_of_before_tokens_were_told_by_kind_still_fit() -> None:
    line: dict[str, Any] = record_of(STEP, OUTCOME, RecordShape(), 1.7e9)
    del line["scopes"], line["shares"]
    line["spent"] = {name: line["spent"][name] for name in ("tokens", "micros", "millis", "calls")}
    jsonschema.validate(line, SCHEMA)


def test_the_schema_knows_every_mode() -> None:
    assert set(SCHEMA["$defs"]["attempt"]["properties"]["mode"]["enum"]) == set(get_args(BacktrackMode))


def test_the_schema_refuses_what_is_not_a_record() -> None:
    line = record_of(STEP, ATTEMPT, RecordShape(), 1.7e9)
    for broken in (line | {"kind": "plan"}, line | {"micros": -1}, line | {"prompt": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_texts_stay_out_unless_they_are_allowed() -> None:
    def text(shape: RecordShape, record: Attempt | Outcome) -> str:
        return to_line(record_of(STEP, record, shape, 1.7e9)).decode()

    prompt = PROMPT[:20]
    for record in (ATTEMPT, OUTCOME):
        silent = text(RecordShape(), record)
        assert prompt not in silent
        assert ANSWER not in silent
        assert "six sevens" not in silent
        assert prompt in text(RecordShape(prompts=True), record)
        assert ANSWER not in text(RecordShape(prompts=True), record)
        assert ANSWER in text(RecordShape(answers=True), record)
        assert prompt not in text(RecordShape(answers=True), record)


def test_lone_surrogates_and_foreign_values_still_make_a_line() -> None:
    step = Step(id="s", messages=({"role": "user", "content": "\ud800", "when": Path("x")},))
    line = to_line(record_of(step, ATTEMPT, ALL, 1.7e9))
    assert json.loads(line)["messages"] == [{"role": "user", "content": "\ud800", "when": "x"}]


def test_secrets_are_blanked_in_texts_and_errors_and_errors_are_cut() -> None:
    key = "sk-proj-" + "a1B2" * 8
    verdict = Verdict(decision="unsure", verifier="judge", error=f"401 for {key} " + "x" * 900)
    reply = Reply(text=f"the key is {key}")
    record = replace(ATTEMPT, error=f"GET https://host/v1?key={key}: 500" + "y" * 900, verdict=verdict, reply=reply)
    step = Step(id="s", messages=({"role": "user", "content": [{"type": "text", "text": f"use {key}"}]},))
    line = record_of(step, record, ALL, 1.7e9)
    assert "a1B2" not in to_line(line).decode()
    assert line["error"].startswith("GET https://host/v1?key=[redacted]")
    assert (len(line["error"]), len(line["verdict"]["error"])) == (500, 500)
    assert line["messages"][0]["content"][0]["text"] == "use [redacted]"


def test_no_field_of_an_attempt_or_outcome_is_forgotten() -> None:
    """A new field of a record must be written or named here."""
    elsewhere = {"number", "reply", "answer", "step_id", "node", "session", "attempts"}
    for record in (ATTEMPT, OUTCOME):
        line: dict[str, Any] = record_of(STEP, record, ALL, 1.7e9)
        missing = {field.name for field in fields(record)} - set(line) - elsewhere
        assert missing == set()


@pytest.fixture
def two_lines(tmp_path: Path) -> bytes:
    sink = JsonlSink(tmp_path / "two.jsonl")
    sink.emit(STEP, ATTEMPT)
    sink.emit(STEP, OUTCOME)
    sink.close()
    return (tmp_path / "two.jsonl").read_bytes()


def test_a_torn_last_line_is_skipped_with_a_warning(tmp_path: Path, two_lines: bytes) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_bytes(two_lines + two_lines[:100])
    with pytest.warns(RecordWarning) as caught:
        assert len(list(read_records(path))) == 2
    warning = caught[0].message
    assert isinstance(warning, RecordWarning)
    assert (warning.path, warning.line) == (path, 3)
    with pytest.raises(RecordError, match=r"torn\.jsonl:3: not a whole line"):
        list(read_records(path, strict=True))


def test_a_line_after_a_torn_one_stands_alone(tmp_path: Path, two_lines: bytes) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_bytes(two_lines[:100])
    sink = JsonlSink(path)
    sink.emit(STEP, ATTEMPT)
    sink.close()
    with pytest.warns(RecordWarning):
        (record,) = read_records(path)
    assert record["attempt"] == 2


def test_compressed_files_are_read_and_a_broken_one_warns(tmp_path: Path, two_lines: bytes) -> None:
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(two_lines))
    assert [record["kind"] for record in read_records(path)] == ["attempt", "outcome"]
    path.write_bytes(gzip.compress(two_lines)[:-12])
    with pytest.warns(RecordWarning, match="breaks off"):
        list(read_records(path))
    path.write_bytes(two_lines)
    with pytest.raises(RecordError, match=r"can't be read: Not a gzipped file"):
        list(read_records(path))


@pytest.mark.parametrize("line", [b"[1]", b"{}", b'{"schema":"1"}', b"\xff\xfe"])
def test_lines_that_are_no_records_are_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.warns(RecordWarning):
        assert list(read_records(path)) == []


def test_newer_and_missing_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(RecordError, match="No such file"):
        list(read_records(path))
    path.write_text('{"schema":2}\n')
    with pytest.raises(RecordError, match="schema 2 is newer than 1: upgrade"):
        list(read_records(path))


def test_reading_and_writing_records_imports_nothing_heavy() -> None:
    code = (
        "import sys, governor.telemetry.records, governor.telemetry.journal, governor.telemetry.spans;"
        "assert not {'opentelemetry', 'numpy', 'pydantic', 'jsonschema'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
