from __future__ import annotations

from typing import Any

import pytest

from governor.plan.dialects import dialect_for
from governor.records import Rung
from governor_litellm.sampling import able, demands, lacking

PENALTIES = {"presence_penalty", "frequency_penalty", "logit_bias"}
LOGPROBS = {"logprobs", "top_logprobs"}


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        ("openai/gpt-4o", set[str]()),
        ("hosted_vllm/any", set[str]()),
        ("openai/gpt-5-mini", {*PENALTIES, *LOGPROBS, "stop", "top_p"}),
        ("openai/gpt-5.1", {*PENALTIES, "stop"}),
        ("anthropic/claude-sonnet-4-5", {*PENALTIES, *LOGPROBS, "seed"}),
        ("bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", {*PENALTIES, *LOGPROBS, "seed"}),
        ("nobody/knows", set[str]()),
    ],
)
def test_what_litellm_refuses_is_asked_of_it(model: str, lacks: set[str]) -> None:
    assert lacking(model) == lacks


@pytest.mark.parametrize(
    ("data", "choice", "asked"),
    [
        ({}, None, set[str]()),
        ({"stop": None, "logprobs": False, "top_logprobs": 0, "stop_sequences": []}, "auto", set[str]()),
        ({"stop": "x"}, "none", {"stop"}),
        ({"stop_sequences": ["x"]}, {"type": "auto"}, {"stop"}),
        ({"logprobs": True, "top_logprobs": 2}, {"type": "allowed_tools"}, LOGPROBS),
        ({}, "required", {"tool_choice"}),
        ({}, {"type": "function", "function": {"name": "f"}}, {"tool_choice"}),
        ({}, {"type": ["any"]}, set[str]()),
    ],
)
def test_what_changes_an_answer_is_demanded(data: dict[str, Any], choice: Any, asked: set[str]) -> None:
    assert demands(data, choice) == asked


def test_confidence_is_read_of_rungs_that_do_not_think() -> None:
    off, low = Rung(id="off", model="m", effort="none"), Rung(id="low", model="m", effort="low", thinking_tokens=9)
    spoken = {"m": dialect_for("openai/gpt-5.1")}
    assert able((off, low), spoken, frozenset({"logprobs"})) == (off,)
    assert able((low,), spoken, frozenset({"logprobs"})) == (low,), "its model says so itself"
    assert able((off, low), spoken, frozenset()) == (off, low)
