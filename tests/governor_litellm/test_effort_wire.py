"""Never trust a knob: every row of the effort table is sent through LiteLLM and read back from the wire."""

# ruff: noqa: E501 - a table reads best with one case a line

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from governor.plan.dialects import DIALECTS, dialect_for
from governor.records import Call, Rung
from governor_litellm import LiteLLMBackend
from tests.governor_litellm.stub import StubServer

GONE = object()

# model, wire, rung fields, {dotted place in the body: value or GONE}
CASES: list[tuple[str, str | None, dict[str, Any], dict[str, Any]]] = [
    ("openai/gpt-4o", None, {"temperature": 0.3}, {"max_tokens": 1024, "temperature": 0.3, "reasoning_effort": GONE}),
    ("openai/q", None, {}, {"max_tokens": 1024, "reasoning_effort": GONE}),
    ("openai/q", "plain", {}, {"max_tokens": 1024, "reasoning_effort": GONE}),
    ("openai/gpt-5", None, {"effort": "minimal", "thinking_tokens": 50}, {"reasoning_effort": "minimal", "max_completion_tokens": 1074}),
    ("openai/gpt-5.1", None, {"effort": "none", "temperature": 0.3}, {"reasoning_effort": "none", "temperature": 0.3}),
    ("openai/gpt-5.2", None, {"effort": "xhigh"}, {"reasoning_effort": "xhigh", "max_completion_tokens": 1024}),
    ("openai/gpt-5.2", None, {"temperature": 0.3}, {"reasoning_effort": GONE, "temperature": 0.3}),
    ("openai/gpt-5.6", None, {"effort": "none"}, {"reasoning_effort": "none"}),
    ("openai/gpt-6-sol", None, {"effort": "xhigh"}, {"reasoning_effort": "xhigh"}),
    ("openai/gpt-6.1-sol", None, {"effort": "low"}, {"reasoning_effort": "low"}),
    ("openai/o3", None, {"effort": "high", "thinking_tokens": 9}, {"reasoning_effort": "high", "max_completion_tokens": 1033}),
    ("anthropic/claude-sonnet-4-5", None, {"thinking_tokens": 1500}, {"thinking": {"type": "enabled", "budget_tokens": 1500}, "max_tokens": 2524}),
    ("anthropic/claude-sonnet-4-5", None, {"effort": "none", "temperature": 0.3}, {"thinking.type": "disabled", "temperature": 0.3}),
    ("anthropic/claude-opus-4-1", None, {"thinking_tokens": 1024}, {"thinking.budget_tokens": 1024}),
    ("anthropic/claude-opus-4-5", None, {"effort": "low", "thinking_tokens": 1500}, {"thinking.budget_tokens": 1500, "output_config.effort": "low"}),
    ("anthropic/claude-3-5-haiku", None, {"temperature": 0.3}, {"temperature": 0.3, "thinking": GONE, "max_tokens": 1024}),
    ("anthropic/claude-opus-4-6", None, {"effort": "max", "thinking_tokens": 9}, {"thinking.type": "adaptive", "output_config.effort": "max", "max_tokens": 1033}),
    ("anthropic/claude-opus-5", None, {"effort": "xhigh"}, {"thinking.type": "adaptive", "output_config.effort": "xhigh"}),
    ("anthropic/claude-opus-5", None, {"effort": "none"}, {"thinking.type": "disabled", "output_config": GONE}),
    ("anthropic/claude-opus-5", None, {"thinking_tokens": 99}, {"thinking.type": "adaptive", "max_tokens": 1123}),
    ("anthropic/claude-opus-5-5", None, {"effort": "low"}, {"output_config.effort": "low"}),
    ("gemini/gemini-2.5-pro", None, {"thinking_tokens": 200}, {"generationConfig.thinkingConfig.thinkingBudget": 200, "generationConfig.max_output_tokens": 1224}),
    ("gemini/gemini-2.5-flash-lite", None, {"thinking_tokens": 512}, {"generationConfig.thinkingConfig.thinkingBudget": 512}),
    ("gemini/gemini-2.5-flash", None, {"thinking_tokens": 77}, {"generationConfig.thinkingConfig.thinkingBudget": 77}),
    ("gemini/gemini-2.5-flash", None, {"effort": "none"}, {"generationConfig.thinkingConfig.thinkingBudget": 0}),
    ("gemini/gemini-3-pro-preview", None, {"effort": "high"}, {"generationConfig.thinkingConfig.thinkingLevel": "high"}),
    ("gemini/gemini-3-flash-preview", None, {"effort": "minimal", "thinking_tokens": 9}, {"generationConfig.thinkingConfig.thinkingLevel": "minimal", "generationConfig.max_output_tokens": 1033}),
    ("gemini/gemini-3.8-flash", None, {"effort": "low"}, {"generationConfig.thinkingConfig.thinkingLevel": "low"}),
    ("gemini/gemini-3.1-pro-preview", None, {"effort": "medium"}, {"generationConfig.thinkingConfig.thinkingLevel": "medium"}),
    ("deepseek/deepseek-v4-pro", None, {"effort": "max", "thinking_tokens": 9}, {"thinking.type": "enabled", "reasoning_effort": "max", "max_tokens": 1033}),
    ("deepseek/deepseek-v4-pro", None, {"effort": "none", "temperature": 0.3}, {"thinking.type": "disabled", "reasoning_effort": GONE, "temperature": 0.3}),
    ("deepseek/deepseek-v4-pro", None, {"thinking_tokens": 9}, {"thinking.type": "enabled", "reasoning_effort": GONE}),
    ("dashscope/qwen3.7-plus", None, {"thinking_tokens": 99}, {"enable_thinking": True, "thinking_budget": 99, "max_tokens": 1123}),
    ("dashscope/qwen3.7-plus", None, {"effort": "none"}, {"enable_thinking": False, "thinking_budget": GONE}),
    ("dashscope/qwen-plus", None, {"thinking_tokens": 99}, {"enable_thinking": True, "thinking_budget": 99}),
    ("dashscope/qwq-plus", None, {"thinking_tokens": 99}, {"enable_thinking": GONE, "thinking_budget": 99}),
    ("dashscope/qwen3-coder-plus", None, {}, {"enable_thinking": GONE, "max_tokens": 1024}),
    ("hosted_vllm/q", None, {"effort": "low", "thinking_tokens": 99}, {"reasoning_effort": "low", "thinking_token_budget": 99, "max_tokens": 1123, "extra_body": GONE}),
    ("hosted_vllm/q", None, {"effort": "none"}, {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}),
    ("openai/q", "hosted-vllm", {"thinking_tokens": 99}, {"thinking_token_budget": 99}),
    ("hosted_vllm/gpt-oss-20b", None, {"effort": "low", "thinking_tokens": 9}, {"reasoning_effort": "low", "max_tokens": 1033, "thinking_token_budget": GONE}),
    ("llamafile/q", None, {"thinking_tokens": 99}, {"thinking_budget_tokens": 99, "max_tokens": 1123}),
    ("openai/q", "llama-cpp", {"thinking_tokens": 99}, {"thinking_budget_tokens": 99, "max_tokens": 1123}),
    ("openai/q", "llama-cpp", {"effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ("openai/q", "llama-cpp-plain", {}, {"max_tokens": 1024, "chat_template_kwargs": GONE}),
    ("openai/gpt-5-chat-latest", None, {}, {"reasoning_effort": GONE}),
]  # fmt: skip
RESPONSES: list[tuple[str, str | None, dict[str, Any], dict[str, Any]]] = [
    ("openai/gpt-5-pro", None, {"effort": "high", "thinking_tokens": 9}, {"reasoning.effort": "high", "max_output_tokens": 1033}),
    ("openai/gpt-5.5-pro", None, {"effort": "medium"}, {"reasoning.effort": "medium"}),
    ("openai/gpt-5-codex", None, {"effort": "low"}, {"reasoning.effort": "low"}),
    ("openai/responses/gpt-6-sol", None, {"effort": "max"}, {"reasoning.effort": "max", "model": "gpt-6-sol"}),
    ("openai/responses/gpt-6.1-sol", None, {"effort": "max"}, {"reasoning.effort": "max"}),
    ("openai/responses/gpt-5.6", None, {"effort": "none"}, {"reasoning.effort": "none"}),
    ("openai/gpt-5.2", "openai-responses", {"effort": "xhigh"}, {"reasoning.effort": "xhigh", "model": "gpt-5.2", "max_output_tokens": 1024}),
    ("openai/responses/gpt-5.1", None, {"effort": "low"}, {"reasoning.effort": "low"}),
    ("openai/responses/gpt-5", None, {"effort": "minimal"}, {"reasoning.effort": "minimal"}),
    ("openai/responses/o3", None, {"effort": "low"}, {"reasoning.effort": "low"}),
    ("openai/responses/gpt-7", None, {"effort": "low"}, {"reasoning.effort": "low"}),
]  # fmt: skip
LIMITS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "DASHSCOPE")


def place(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for step in path.split("."):
        value = value.get(step, GONE) if isinstance(value, Mapping) else GONE
    return value


def check(server: StubServer, model: str, wire: str | None, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    rung = Rung(id="r", model=model, **fields)
    call = Call(step_id="s", rung=rung, messages=({"role": "user", "content": "hi"},), timeout=10)
    LiteLLMBackend({model: {"api_base": server.url, "wire": wire}}).call(call)
    assert {path: place(server.body, path) for path in expected} == expected
    options = server.body.get("generationConfig", server.body)
    limit = dialect_for(model, wire).limit
    assert {name: options[name] for name in LIMITS & set(options)} == {limit: rung.max_tokens}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(f"{name}_API_KEY", "test-key")


@pytest.mark.parametrize(("model", "wire", "fields", "expected"), CASES)
def test_the_knob_arrives(
    server: StubServer, model: str, wire: str | None, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    check(server, model, wire, fields, expected)


@pytest.mark.parametrize(("model", "wire", "fields", "expected"), RESPONSES)
def test_the_knob_arrives_over_the_responses_api(
    server: StubServer, model: str, wire: str | None, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    pytest.importorskip("mcp", reason="LiteLLM's Responses bridge imports mcp, which its base install lacks")
    check(server, model, wire, fields, expected)


def test_no_row_of_the_table_is_left_unproved() -> None:
    rows = {id(dialect_for(model, wire)) for model, wire, _, _ in [*CASES, *RESPONSES]}
    left = [row for row in DIALECTS if id(row) not in rows]
    assert [(row.name, row.models[:1]) for row in left] == []
