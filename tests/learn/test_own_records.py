"""Fitting on Governor's own records reads of each step what serving read of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.features import NUMBERS, features, told_state
from governor.estimate.learned import Seen, seen_of
from governor.learn.fit import steps_of
from governor.learn.heads import BUCKETS
from governor.learn.ladder import Ladder
from governor.learn.rows import read_rows
from governor.learn.tabulate import tabulate
from governor.records import Attempt, Reply, Rung, Step, Usage, Verdict
from governor.telemetry.records import RecordShape, record_of, to_line

IDF = np.ones(BUCKETS)
KEY = "sk-proj-" + "a1B2" * 8
ATTEMPT = Attempt(
    number=1,
    rung=Rung(id="low", model="m"),
    mode="first",
    reply=Reply(text="x"),
    verdict=Verdict(decision="accept", verifier="v"),
    usage=Usage(10, 5),
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "finds pages", "parameters": SCHEMA}}


def recorded(steps: Sequence[Step]) -> list[Step]:
    """Written to a record file, read again and made steps to fit on."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        lines = [to_line(record_of(step, ATTEMPT, RecordShape(prompts=True), 1.7e9)) for step in steps]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        ladder = Ladder(name="own", records=path, rungs=("low",), unit="tokens")
        return steps_of(tabulate(read_rows(path, strict=True), ladder, costed=False))


def same(one: Seen, other: Seen) -> bool:
    pairs = ((one.words, other.words), (one.context, other.context))
    return (
        all(np.array_equal(a.at, b.at) and np.array_equal(a.value, b.value) for a, b in pairs)
        and np.array_equal(one.numbers, other.numbers)
        and one.input_tokens == other.input_tokens
    )


def talk(*texts: str, first: str = "user") -> tuple[Mapping[str, Any], ...]:
    roles = ("user", "assistant") if first == "user" else ("system", "user", "assistant")
    return tuple({"role": roles[at % len(roles)], "content": text} for at, text in enumerate(texts))


PROMPT = "Sort the invoices of March by their amount and say which of them are late."
STEPS = {
    "plain": Step(id="a", messages=talk(PROMPT), node="plan", index=3),
    "a long history": Step(
        id="b", messages=talk("You are terse.", PROMPT, "Which ones?", first="system") + talk(PROMPT)
    ),
    "a short reply": Step(id="c", messages=talk("Prove that 7 is prime: integrate x^2 + 1.", "Shall I?", "yes, go on")),
    "tools, schema and state": Step(
        id="d",
        messages=talk(PROMPT),
        tools=(SEARCH, {"name": "calc"}),
        response_schema=SCHEMA,
        state={"tool_errors": 2, "attempts": [1, 2, 3], "hits": [], "phase": "review", "done": True, "ratio": 0.25},
    ),
    "a tool's result last": Step(
        id="e", messages=(*talk(PROMPT, ""), {"role": "tool", "content": "12 rows, 3 late"}), state={"rows": 12}
    ),
    "parts": Step(
        id="f", messages=({"role": "user", "content": [{"type": "text", "text": PROMPT}]}, *talk("ok", "ja"))
    ),
    "no text of a user": Step(
        id="g", messages=({"role": "assistant", "content": "Go on with the proof of the lemma."},)
    ),
    "state that is never read": Step(
        id="h", messages=talk(PROMPT), state={"note": "a whole sentence", "nan": float("nan"), "deep": {"a": 1}}
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_was_recorded_is_read_as_it_was_served(name: str) -> None:
    step = STEPS[name]
    (found,) = recorded([step])
    served, fitted = features(step), features(found)
    assert {at: getattr(fitted, at) for at in NUMBERS} == {at: getattr(served, at) for at in NUMBERS}
    assert same(seen_of(found, IDF), seen_of(step, IDF))


def test_without_what_is_recorded_beside_the_text_they_would_differ() -> None:
    """The comparison above can fail: the last message alone is another step."""
    for name in ("a long history", "a short reply", "tools, schema and state"):
        alone = Step(id="x", messages=talk(STEPS[name].prompt))
        assert not same(seen_of(alone, IDF), seen_of(STEPS[name], IDF))


words = st.text(st.characters(codec="utf-8"), max_size=60)
messages = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["system", "user", "assistant", "tool"]),
        words,
    ),
    min_size=1,
    max_size=4,
)
values = st.one_of(st.integers(), st.floats(), st.booleans(), words, st.lists(st.integers(), max_size=3), st.none())


@given(messages, st.dictionaries(words, values, max_size=3), st.lists(st.sampled_from([SEARCH, {"name": "calc"}])))
def test_any_step_is_read_as_it_was_served(
    talked: list[dict[str, Any]], state: dict[str, Any], tools: list[dict[str, Any]]
) -> None:
    step = Step(id="s", messages=tuple(talked), state=state, tools=tuple(tools))
    (found,) = recorded([step])
    assert same(seen_of(found, IDF), seen_of(step, IDF))
    assert told_state(told_state(state)) == told_state(state)


def test_neither_texts_nor_secrets_are_written_beside_the_text() -> None:
    step = replace(
        STEPS["tools, schema and state"],
        messages=talk(f"the key is {KEY}", "fine", f"use {KEY} for the invoices, which of them are late?"),
        state={"note": "a whole sentence", "token": KEY[:31], "deep": {"text": "hidden"}, "phase": "review"},
    )
    for shape in (RecordShape(), RecordShape(prompts=True)):
        line = to_line(record_of(step, ATTEMPT, shape, 1.7e9)).decode()
        assert not any(text in line for text in ("a1B2", "whole sentence", "hidden", "finds pages"))
        assert json.loads(line)["tools"] == [{"name": "search"}, {"name": "calc"}]
        assert json.loads(line)["state"] == {"token": "[redacted]", "phase": "review"}
    (found,) = recorded([step])
    assert np.array_equal(seen_of(found, IDF).numbers, seen_of(step, IDF).numbers)


def test_what_another_hand_wrote_as_beyond_is_taken_for_numbers_of_known_names_alone() -> None:
    for found in ("text", {"chars": "x", "unknown": 3, "words": -1, "lines": None}):
        step = Step(id="s", messages=talk(PROMPT), state={"governor.beyond": found})
        assert features(step) == features(Step(id="s", messages=talk(PROMPT)))
    moved = features(Step(id="s", messages=talk(PROMPT), state={"governor.beyond": {"history_chars": 700}}))
    assert moved.history_chars == 700.0
