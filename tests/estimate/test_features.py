# ruff: noqa: RUF001 - many scripts are the subject here
from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.features import SCAN_HEAD, SCAN_TAIL, Features, features
from governor.records import Step


def ask(text: str, **changes: Any) -> Features:
    messages = changes.pop("messages", ({"role": "user", "content": text},))
    return features(Step(id="s", messages=messages, **changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is 3 + 4?", {"numbers": 2, "operations": 1, "longest_number": 1, "digits": 2, "question_marks": 1}),
        ("Compute 4871*92,836 - 17.25", {"numbers": 3, "operations": 2, "longest_number": 5}),
        ("12345 ÷ (67 + 8)", {"operations": 2, "longest_number": 5}),
        ("version 3.11.7, item 4.", {"operations": 0, "longest_number": 1, "numbers": 2}),
        ("$\\frac{1}{2} + \\sum_{i} i^2$", {"latex": 2}),
        ("a ≤ b and x ∈ S", {"maths_signs": 2}),
        ("```python\ndef f(x):\n    return x\n```", {"fences": 2, "code_words": 3, "indented_lines": 1}),
        ("Do:\n- one\n* two\n3) three\n 4. four", {"list_items": 4}),
        ("Who? Why?\nوماذا؟ 什么？", {"question_marks": 4, "question_words": 2}),
        ("It must be short and must not exceed two lines, without rhymes.", {"constraint_words": 3}),
        ("First add them, then divide, finally print it.", {"sequence_words": 3}),
        ("Prove it by induction", {"proof_words": 2}),
        ("the the THE cat", {"words": 4, "distinct_words": 2, "function_words": 3}),
        ("Grüße 你好 мир سلام नमस्ते ไทย", {"latin": 5, "cjk": 2, "cyrillic": 3, "arabic": 4, "other_letters": 3}),
        ("٣ + ٤", {"digits": 2, "numbers": 2, "operations": 1}),
        ("", {"chars": 0, "words": 0, "letters": 0, "lines": 1}),
    ],
)
def test_what_is_read_off_a_text(text: str, expected: dict[str, float]) -> None:
    seen = ask(text)
    assert {name: getattr(seen, name) for name in expected} == expected


def test_what_surrounds_the_text() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
        },
    }
    seen = ask(
        "",
        messages=(
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "An earlier question that is long enough."},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "42"},
            {"role": "user", "content": [{"type": "text", "text": "Please list every order line of this invoice."}]},
        ),
        index=3,
        tools=({"type": "function", "function": {"name": "f"}},),
        response_schema=schema,
        state={
            "tool_errors": 2,
            "failed_attempts": 1,
            "retrieval_chars": 9000,
            "temperature": 21.5,
            "urgent": True,
            "note": "text",
            "bad": float("nan"),
            "seen": ["a", "b"],
        },
    )
    assert (seen.messages, seen.system_chars, seen.history_chars, seen.chars) == (5, 8, 42, 45)
    assert (seen.step_index, seen.tools, seen.schema_depth, seen.schema_fields) == (3, 1, 2, 3)
    assert (seen.tool_errors, seen.attempts, seen.retrieval_chars) == (2, 1, 9000)
    assert dict(seen.state) == {"temperature": 21.5, "urgent": 1.0, "seen": 2.0}


def test_a_short_reply_is_read_with_what_it_answers() -> None:
    history = (
        {"role": "user", "content": "Prove the theorem by induction."},
        {"role": "assistant", "content": "Shall I derive the lemma first?"},
        {"role": "user", "content": "yes"},
    )
    assert ask("", messages=history).proof_words >= 4
    assert ask("", messages=history).in_context == 1
    assert ask("yes").in_context == 0


def test_a_step_without_a_user_message_is_read_at_its_last_text() -> None:
    seen = ask(
        "", messages=({"role": "system", "content": "Classify the sentiment of this review as one word: lovely."},)
    )
    assert seen.easy_words == 2


def test_a_long_prompt_is_read_at_head_and_tail_only() -> None:
    filler = "filler words here " * 50_000
    seen = ask("Prove this. " + filler + " Then derive a bound.")
    assert seen.chars > 900_000
    assert seen.proof_words == 2
    assert seen.latin + seen.digits <= SCAN_HEAD + SCAN_TAIL


def test_input_tokens_grow_with_everything_that_is_sent() -> None:
    plain = ask("hello there " * 20).input_tokens
    assert 40 < plain < 100
    assert ask("hello there " * 20, response_schema={"type": "object"}).input_tokens > plain
    assert ask("你好" * 120).input_tokens > 150


@given(st.text(max_size=300), st.dictionaries(st.text(max_size=5), st.none() | st.floats() | st.integers() | st.text()))
def test_any_text_and_state_give_finite_numbers(text: str, state: dict[str, Any]) -> None:
    seen = ask(text, state=state)
    numbers = [getattr(seen, f.name) for f in fields(seen) if f.name != "state"] + list(seen.state.values())
    assert all(isinstance(n, float) and 0 <= abs(n) < float("inf") for n in numbers)


def test_deep_schemas_are_bounded() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "object", "properties": {"in": schema}}
    assert ask("x", response_schema=schema).schema_depth <= 17
    assert ask("x", response_schema={"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}).schema_fields == 1


def test_no_number_falls_below_0() -> None:
    """Forecasts take log(1 + x): one below -1 would make every one of them NaN."""
    told = features(Step(id="s", messages=({"role": "system", "content": "Sort these."},), state={"tool_errors": -5}))
    assert (told.history_chars, told.system_chars, told.tool_errors) == (0.0, 11.0, 0.0)
