"""Rows from files: what each source says, what is wrong with a bad row, and that reading streams."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]  # pyarrow ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]
import pytest

from governor.errors import Problem, RecordError
from governor.learn.rows import Row, read_rows
from governor.records import Attempt, Outcome
from governor.telemetry.records import JsonlSink, RecordShape, RecordWarning, record_of, to_line
from tests.telemetry.made_records import ANSWER, ATTEMPT, OUTCOME, REPLY, STEP

GOOD: Mapping[str, Any] = {"qid": "q1", "rung": "low", "question": "2 + 2?", "correct": 1}


def written(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> tuple[list[Row], list[str]]:
    told: list[Problem] = []
    rows = list(read_rows(path, on_bad=told.append))
    return rows, [str(problem).removeprefix(f"{path}:") for problem in told]


def test_a_row_of_the_shared_schema(tmp_path: Path) -> None:
    extra = {"sample": 2, "correct": 0.5, "n_samples": 10, "output_tokens": 7, "cost_usd": 0.01, "answer_text": "4"}
    own = {"domain": "sums", "p_top": 0.75, "model": "m", "effort": None}
    rows, told = read(written(tmp_path / "r.jsonl", {**GOOD, **extra, **own}))
    assert told == []
    assert replace(rows[0], path="") == Row(
        qid="q1",
        rung="low",
        question="2 + 2?",
        sample="2",
        correct=0.5,
        n_samples=10,
        output_tokens=7.0,
        cost_usd=0.01,
        answer_text="4",
        fields=own,
        line=1,
    )
    assert rows[0].place == f"{tmp_path / 'r.jsonl'}:1"
    assert (rows[0].get("domain"), rows[0].get("node"), rows[0].get("absent")) == ("sums", "default", None)


def test_verdicts_may_be_words_or_objects(tmp_path: Path) -> None:
    plain = {"qid": "q", "rung": "a", "verdict": "reject", "verifier": "tests"}
    nested = {"qid": "q", "rung": "b", "verdict": {"decision": "accept", "verifier": "judge"}, "truncated": True}
    unsure = {"qid": "q", "rung": "c", "verdict": "unsure", "finish_reason": "length"}
    known = {"qid": "q", "rung": "d", "verdict": "accept", "correct": 0}
    rows, told = read(written(tmp_path / "r.jsonl", plain, nested, unsure, known))
    assert told == []
    assert [(row.verdict, row.verifier, row.label, row.truncated) for row in rows] == [
        ("reject", "tests", 0.0, False),
        ("accept", "judge", 1.0, True),
        ("unsure", "", None, True),
        ("accept", "", 0.0, False),
    ]


BAD: Mapping[str, tuple[Mapping[str, Any] | str, str]] = {
    "qid": ({"question_id": "x", "rung": "low"}, "qid: is missing"),
    "near": ({"qid": "x", "rungs": "low"}, "rung: is missing (did you mean 'rungs'?)"),
    "type": ({**GOOD, "qid": 7}, "qid: must be text that is not empty, is 7"),
    "above": ({**GOOD, "qid": "x", "correct": 1.5}, "correct: must be 0..1, is 1.5"),
    "nan": ('{"qid": "x", "rung": "low", "correct": NaN}', "correct: must be 0..1, is nan"),
    "word": ({**GOOD, "qid": "x", "correct": "yes"}, "correct: must be 0..1, is 'yes'"),
    "negative": ({**GOOD, "qid": "x", "output_tokens": -1}, "output_tokens: must be 0 or more, is -1"),
    "infinite": ('{"qid": "x", "rung": "low", "cost_usd": Infinity}', "cost_usd: must be 0 or more, is inf"),
    "none": ({**GOOD, "qid": "x", "n_samples": 0}, "n_samples: must be a whole number from 1, is 0"),
    "sample": ({**GOOD, "qid": "x", "sample": 1.5}, "sample: must be text or a whole number, is 1.5"),
    "verdict": ({**GOOD, "qid": "x", "verdict": "good"}, "verdict: must be accept, reject or unsure, is 'good'"),
    "cut": ({**GOOD, "qid": "x", "truncated": "no"}, "truncated: must be true or false, is 'no'"),
    "messages": ({**GOOD, "qid": "x", "messages": "hi"}, "messages: must be a list of chat messages"),
    "twice": (
        GOOD,
        "qid: 'q1' has an earlier row on rung 'low' (number repeated tries in a field 'sample')",
    ),
    "text": (
        {**GOOD, "rung": "high", "question": "2 + 3?"},
        "question: differs from an earlier text of qid 'q1' (give it its own qid)",
    ),
    "torn": ('{"qid": "x", "ru', "not a whole line of JSON: Invalid control character at"),
    "list": ("[1]", "must be one JSON object a line, is a list"),
    "kind": ({"schema": 1, "kind": "span"}, "kind: must be attempt or outcome"),
    "usage": ({"schema": 1, "kind": "attempt", "step_id": "s", "rung": "a"}, "usage: must be an object, is null"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_told_with_its_line_and_skipped(case: str, tmp_path: Path) -> None:
    bad, said = BAD[case]
    path = written(tmp_path / "r.jsonl", GOOD, bad, {"qid": "q2", "rung": "low"})
    rows, told = read(path)
    assert [row.qid for row in rows] == ["q1", "q2"]
    assert told == [f"2: {said}"]
    with pytest.raises(RecordError) as refused:
        list(read_rows(path, strict=True))
    assert str(refused.value) == f"{path}:2: {said}"


def test_without_a_listener_a_bad_row_is_a_warning(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", {"rung": "low"})
    with pytest.warns(RecordWarning, match="qid: is missing") as caught:
        assert list(read_rows(str(path))) == []
    warning = caught[0].message
    assert isinstance(warning, RecordWarning)
    assert (warning.path, warning.line) == (path, 1)


def test_repetitions_are_found_across_files(tmp_path: Path) -> None:
    paths = [written(tmp_path / name, GOOD) for name in ("a.jsonl", "b.jsonl")]
    told: list[Problem] = []
    assert len(list(read_rows(paths, on_bad=told.append))) == 1
    assert [problem.file for problem in told] == [str(paths[1])]


@pytest.mark.parametrize("packed", [False, True])
def test_the_content_tells_the_format_not_the_name(packed: bool, tmp_path: Path) -> None:
    text = ("\ufeff" + json.dumps(GOOD) + "\n\n").encode()
    path = tmp_path / ("plain.gz" if not packed else "packed.jsonl")
    path.write_bytes(gzip.compress(text) if packed else text)
    rows, told = read(path)
    assert ([row.qid for row in rows], told) == (["q1"], [])


def test_a_compressed_file_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({**GOOD, "qid": f"q{n}"}) + "\n" for n in range(20_000)).encode())
    path = tmp_path / "torn.gz"
    path.write_bytes(whole[: len(whole) // 2])
    rows, told = read(path)
    assert 1000 < len(rows) < 20_000
    assert told[-1].endswith("the compressed file breaks off")


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "rows.data"
    table = pa.table(
        {
            "qid": ["q1", "q1", None],
            "rung": ["low", "high", "low"],
            "correct": [1.0, None, 0.0],
            "sample": [0.0, 0.0, 0.0],
        }
    )
    pq.write_table(table, path)
    rows, told = read(path)
    assert [(row.rung, row.correct, row.sample, row.line) for row in rows] == [
        ("low", 1.0, "0", 1),
        ("high", None, "0", 2),
    ]
    assert told == ["3: qid: is missing"]


def test_a_damaged_parquet_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(RecordError, match=r"rows\.parquet: not a whole Parquet file"):
        list(read_rows(path))


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(RecordError) as refused:
            list(read_rows(path))
        assert str(refused.value) == f"{path}: can't be read: {said}"


def sink(path: Path, *records: Attempt | Outcome, texts: bool = True) -> Path:
    out = JsonlSink(path, prompts=texts, answers=texts)
    for record in records:
        out.emit(STEP, record)
    out.close()
    return path


def test_an_attempt_of_our_own_records_is_a_row(tmp_path: Path) -> None:
    rows, told = read(sink(tmp_path / "r.jsonl", ATTEMPT, OUTCOME))
    assert told == []
    (row,) = rows
    assert (row.qid, row.rung, row.node, row.session, row.sample) == ("s-1", "high", "solve", "thread 9", "0")
    assert (row.correct, row.verdict, row.verifier, row.label) == (None, "reject", "number", 0.0)
    assert (row.output_tokens, row.input_tokens, row.cost_usd, row.truncated) == (120.0, 300.0, 77e-6, True)
    assert (row.answer_text, row.thinking, row.alone) == (ANSWER, "six sevens", False)
    assert row.question is not None
    assert row.question.startswith("What is six times seven")
    assert row.messages[0]["role"] == "user"
    assert row.fields["model"] == "large-2026"


def test_texts_are_there_only_where_they_were_recorded(tmp_path: Path) -> None:
    ((row,), _) = read(sink(tmp_path / "r.jsonl", ATTEMPT, texts=False))
    assert (row.question, row.answer_text, row.messages, row.label) == (None, None, (), 0.0)


def test_what_was_booked_at_its_bound_is_unknown(tmp_path: Path) -> None:
    unreported = replace(ATTEMPT, reply=replace(REPLY, usage_known=False))
    failed = replace(ATTEMPT, reply=None, verdict=None, error="timed out")
    rows, told = read(sink(tmp_path / "r.jsonl", unreported, failed))
    assert told == []
    assert [(row.output_tokens, row.input_tokens, row.cost_usd) for row in rows] == [(None, None, None)] * 2
    assert (rows[1].label, rows[1].sample) == (None, "1")


def test_a_line_that_a_resumed_run_wrote_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    lines = [to_line(record_of(STEP, ATTEMPT, RecordShape(), seconds)) for seconds in (1.0, 2.0)]
    again = to_line(record_of(STEP, replace(ATTEMPT, micros=78), RecordShape(), 3.0))
    path.write_bytes(b"\n".join([*lines, again]))
    rows, told = read(path)
    assert ([(row.sample, row.cost_usd) for row in rows], told) == ([("0", 77e-6), ("1", 78e-6)], [])


def test_a_newer_schema_is_refused_even_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", {"schema": 99, "kind": "attempt"})
    with pytest.raises(RecordError, match="schema 99 is newer than 1: upgrade"):
        read(path)


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for n in range(2_000):
            file.write(json.dumps({"qid": f"q{n}", "rung": "low", "question": "x" * 20_000}) + "\n")
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2_000
    assert peak < 3_000_000  # the file unpacks to 40 MB

    def broken() -> Iterator[Path]:
        yield path
        raise AssertionError("the second file was opened before the first was read")

    assert len(list(islice(read_rows(broken()), 5))) == 5
