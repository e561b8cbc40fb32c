"""Distillation data: the shortest verified reply per prompt and teacher, in the shape that trainers load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.json as pj  # type: ignore[import-untyped, unused-ignore]  # pyarrow ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import RecordError
from governor.learn.export import Trace, chat_lines, shortest_correct, write_whole
from governor.learn.rows import Row


def row(qid: str = "q1", rung: str = "deep", **more: Any) -> Row:
    told: dict[str, Any] = {"question": f"What is {qid}?", "correct": 1.0, "output_tokens": 10.0, "answer_text": "it"}
    return Row(qid=qid, rung=rung, **(told | more))


def answers(*rows: Row, teachers: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    return [(trace.qid, trace.rung, trace.answer) for trace in shortest_correct(rows, teachers).traces]


def test_the_fewest_tokens_win_per_prompt_and_rung() -> None:
    found = answers(
        row(output_tokens=30.0, answer_text="long"),
        row(output_tokens=20.0, answer_text="short"),
        row(output_tokens=1.0, answer_text="wrong", correct=0.5),
        row(rung="low", output_tokens=40.0, answer_text="other teacher"),
        row("q2", output_tokens=None, answer_text="unknown length"),
        row("q2", output_tokens=99.0, answer_text="known length"),
    )
    assert found == [("q1", "deep", "short"), ("q1", "low", "other teacher"), ("q2", "deep", "known length")]


def test_ties_go_to_fewer_characters_then_to_the_text() -> None:
    assert answers(row(answer_text="bbb"), row(answer_text="bb"), row(answer_text="ab")) == [("q1", "deep", "ab")]
    thought = row(answer_text="a", thinking="a long thought")
    assert answers(thought, row(answer_text="bb")) == [("q1", "deep", "bb")]


def test_questions_of_the_same_text_are_one_prompt() -> None:
    same = {"question": "same"}
    assert answers(row("b", **same), row("a", **same, answer_text="at")) == [("a", "deep", "at")]


def test_a_question_may_stand_on_any_row() -> None:
    rows = [row(question=None), row(rung="low", correct=0.0, question="What?")]
    (trace,) = shortest_correct(rows).traces
    assert trace.messages == ({"role": "user", "content": "What?"},)


def test_a_label_outweighs_a_verdict_which_stands_in_for_it() -> None:
    found = shortest_correct(
        [
            row("a", correct=None, verdict="accept", verifier="tests"),
            row("b", correct=0.0, verdict="accept", verifier="tests"),
            row("c", correct=1.0, verdict="reject", verifier="tests"),
            row("d", correct=None, verdict="unsure", verifier="tests"),
            row("e", correct=None),
        ]
    )
    assert [(trace.qid, trace.verified_by) for trace in found.traces] == [("a", "verifier:tests"), ("c", "label")]
    assert dict(found.skipped) == {"unverified": 2, "wrong": 1}


def test_what_does_not_teach_is_left_out_and_counted() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
    found = shortest_correct(
        [
            row(),
            row(truncated=True),
            row(fields={"mode": "feedback"}),
            row(fields={"mode": "continue"}),
            row(fields={"tool_calls": [{"name": "f"}]}),
            row(answer_text="  "),
            row("q2", messages=tuple(image)),
            row("q3", rung="low"),
        ],
        ["deep"],
    )
    assert len(found.traces) == 1
    wanted = {"truncated": 1, "follow_up": 2, "tool_calls": 1, "no_answer": 1, "no_prompt": 1, "other_rung": 1}
    assert (dict(found.skipped), found.rows) == (dict(sorted(wanted.items())), 8)


@given(st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows = [row("q1", answer_text=text, output_tokens=tokens) for text in "cab" for tokens in (5.0, 4.0)]
    assert answers(*(rows[n] for n in order)) == [("q1", "deep", "a")]


@pytest.mark.parametrize(
    ("rows", "teachers", "said"),
    [
        ([], [], "the records hold no rows"),
        ([row(answer_text=None)], [], "the records hold no texts of right answers: write `records: {prompts: true, "),
        ([row(question=None)], [], "the records hold no texts of prompts: write `records: {prompts: true, "),
        ([row(correct=0.0)], [], "no reply of a teacher is whole and known to be right (rows: wrong 1)"),
        ([row(), row(rung="low")], ["depe"], "no row has rung 'depe' (rungs, closest first: deep, low)"),
    ],
)
def test_nothing_to_export_is_one_clear_line(rows: list[Row], teachers: list[str], said: str) -> None:
    with pytest.raises(RecordError) as refused:
        shortest_correct(rows, teachers)
    assert str(refused.value).startswith(said)


TRACE = Trace(
    messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2, Ä?"}),
    answer="4",
    thinking="two and two",
    qid="q1",
    node="solve",
    rung="deep",
    model="large",
    output_tokens=7,
    verified_by="verifier:number",
)


def test_a_line_is_a_conversation_with_the_thinking_kept_apart() -> None:
    (line,) = chat_lines([TRACE])
    assert json.loads(line) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "2 + 2, Ä?"},
            {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
        ],
        "qid": "q1",
        "node": "solve",
        "rung": "deep",
        "model": "large",
        "output_tokens": 7,
        "verified_by": "verifier:number",
    }


def test_every_line_has_the_same_columns_and_types(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    bare = replace(TRACE, thinking="", model="", messages=TRACE.messages[1:])
    assert write_whole(path, chat_lines([TRACE, bare])) == 2
    table = pj.read_json(path)  # what `datasets` reads JSON lines with
    message = table.schema.field("messages").type.value_type
    assert {message.field(n).name: str(message.field(n).type) for n in range(message.num_fields)} == {
        "role": "string",
        "content": "string",
        "reasoning_content": "string",
    }
    assert table.column("messages").to_pylist()[1][-1]["reasoning_content"] == ""


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("earlier")

    def interrupted() -> Iterator[bytes]:
        yield b"half\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted())
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    assert write_whole(path, [b"whole\n"]) == 1
    assert path.read_text() == "whole\n"


def test_places_that_can_not_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="can't be written: No such file or directory"):
        write_whole(tmp_path / "none" / "out.jsonl", [])
    with pytest.raises(RecordError, match="is not a regular file"):
        write_whole(tmp_path, [])
    records = tmp_path / "records.jsonl"
    records.write_text("kept")
    with pytest.raises(RecordError, match="is one of the records that are read"):
        write_whole(tmp_path / "." / "records.jsonl", [b"x"], [records])
    assert records.read_text() == "kept"
