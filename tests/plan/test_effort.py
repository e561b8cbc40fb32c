from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import PolicyError
from governor.plan.dialects import DIALECTS, EFFORTS, NAMES, PLAIN, Dialect, dialect_for
from governor.plan.effort import can_continue, hardness, json_body, merged, problems, same_wire, wire
from governor.plan.messages import messages_of, without_echo
from governor.records import Call, Rung

ROWS = pytest.mark.parametrize("row", DIALECTS, ids=lambda row: f"{row.name}:{row.models[:1]}")


def rung(model: str = "m", **fields: Any) -> Rung:
    return Rung(id="r", model=model, **fields)


def errors(rung: Rung, dialect: Dialect, **options: Any) -> list[str]:
    return [issue.field for issue in problems(rung, dialect, **options) if issue.severity == "error"]


def warned(rung: Rung, dialect: Dialect) -> list[str]:
    return [issue.field for issue in problems(rung, dialect) if issue.severity == "warning"]


@pytest.mark.parametrize(
    ("model", "name", "efforts"),
    [
        ("gpt-5", "openai-chat", "minimal low medium high"),
        ("openai/gpt-5-mini", "openai-chat", "minimal low medium high"),
        ("openai/gpt-5.1", "openai-chat", "none low medium high"),
        ("openai/gpt-5.2", "openai-chat", "none low medium high xhigh"),
        ("openai/gpt-6-sol", "openai-chat", "none low medium high xhigh"),
        ("openai/gpt-6.1-sol", "openai-chat", "low medium high xhigh"),
        ("openai/responses/gpt-6-sol", "openai-responses", "none low medium high xhigh max"),
        ("openai/gpt-5-pro", "openai-responses", "high"),
        ("openai/gpt-5.5-pro", "openai-responses", "medium high xhigh"),
        ("openai/o3", "openai-chat", "low medium high"),
        ("openai/o3-pro", "openai-responses", "low medium high"),
        ("openai/gpt-4o", "plain", ""),
        ("openai/gpt-5-chat-latest", "plain", ""),
        ("openai/gpt-oss-20b", "gpt-oss", "low medium high"),
        ("hosted_vllm/openai/gpt-oss-120b", "gpt-oss", "low medium high"),
        ("anthropic/claude-sonnet-4-5", "anthropic-budget", "none"),
        ("anthropic/claude-opus-4-5-20251101", "anthropic-budget", "none low medium high"),
        ("claude-3-7-sonnet", "anthropic-budget", "none"),
        ("claude-3-5-haiku", "plain", ""),
        ("anthropic/claude-opus-4-6", "anthropic-adaptive", "none low medium high max"),
        ("anthropic/claude-opus-5", "anthropic-adaptive", "none low medium high xhigh max"),
        ("anthropic/claude-opus-5-5", "anthropic-adaptive", "low medium high xhigh max"),
        ("gemini/gemini-2.5-pro", "gemini-2.5", ""),
        ("gemini/gemini-2.5-flash", "gemini-2.5", "none"),
        ("gemini/gemini-3-flash-preview", "gemini-3", "minimal low medium high"),
        ("gemini/gemini-3.8-flash", "gemini-3", "low medium high"),
        ("deepseek/deepseek-v4-pro", "deepseek", "none low high max"),
        ("dashscope/qwen3.7-plus", "dashscope", "none"),
        ("dashscope/qwq-plus", "dashscope", ""),
        ("hosted_vllm/Qwen/Qwen3-8B", "hosted-vllm", "none minimal low medium high xhigh max"),
        ("somebody/unknown", "plain", ""),
    ],
)
def test_model_names_find_their_row(model: str, name: str, efforts: str) -> None:
    found = dialect_for(model)
    assert (found.name, " ".join(found.efforts)) == (name, efforts)


def test_a_stated_wire_goes_before_the_name() -> None:
    assert dialect_for("openai/qwen", "hosted-vllm").name == "hosted-vllm"
    assert dialect_for("openai/gpt-5.2", "openai-responses").efforts[-1] == "xhigh"
    assert dialect_for("openai/anything", "llama-cpp-plain").thinking == "none"
    with pytest.raises(PolicyError, match=r"did you mean 'hosted-vllm'\?"):
        dialect_for("x", "hosted_vllm")


@pytest.mark.parametrize("model", ["azure/gpt-5", "vertex_ai/gemini-2.5-pro", "xai/grok-4", "openai/small"])
def test_of_a_model_without_a_row_nothing_is_known_but_what_is_stated(model: str) -> None:
    assert not dialect_for(model).known
    assert dialect_for(model, "plain").known
    assert dialect_for(model) == replace(PLAIN, models=("*",), known=False), "and all else is the same"


def test_of_every_other_row_it_is_known_whether_it_thinks() -> None:
    assert [row.models for row in DIALECTS if not row.known] == [("*",)]
    assert dialect_for("openai/gpt-4o").known
    assert dialect_for("hosted_vllm/q").known


@ROWS
def test_every_row_is_coherent(row: Dialect) -> None:
    assert set(row.efforts) <= set(EFFORTS)
    assert ("none" in row.efforts) == (row.off is not None)
    assert (row.thinking == "hard") == (row.budget is not None)
    assert bool(set(row.efforts) - {"none"}) == (row.effort is not None)
    assert row.budget is None or "{tokens}" in json.dumps(row.budget)
    assert row.effort is None or "{effort}" in json.dumps(row.effort)
    assert row.name in NAMES


RUNGS = st.builds(
    Rung,
    id=st.just("r"),
    model=st.just("m"),
    effort=st.sampled_from([None, *EFFORTS, "hgih"]),
    thinking_tokens=st.sampled_from([0, 1, 500, 1024, 4096, 50_000]),
    answer_tokens=st.integers(1, 100_000),
    temperature=st.sampled_from([None, 0.0, 0.7, 1.0]),
)


@given(RUNGS, st.sampled_from(DIALECTS))
def test_every_knob_is_sent_or_refused(rung: Rung, row: Dialect) -> None:
    blocking = {"effort", "thinking_tokens", "temperature"} & set(errors(rung, row))
    if blocking:
        with pytest.raises(PolicyError):
            wire(rung, row)
        return
    sent = wire(rung, row)
    assert sent["max_tokens"] == rung.thinking_tokens + rung.answer_tokens
    assert sent.get("temperature") == rung.temperature

    if rung.effort not in (None, "none"):
        assert f'"{rung.effort}"' in json.dumps(sent)
    if rung.effort == "none":
        assert row.off is not None
        assert set(row.off) <= set(sent)
    if hardness(rung, row) == "hard":
        assert f": {rung.thinking_tokens}" in json.dumps(sent)


@pytest.mark.parametrize(
    ("model", "fields", "field", "hint"),
    [
        ("openai/gpt-5", {"effort": "xhigh"}, "effort", "nearest is 'high'"),
        ("openai/gpt-5", {"effort": "none"}, "effort", "least it takes is effort 'minimal'"),
        ("openai/gpt-5.2", {"effort": "minimal"}, "effort", "nearest is 'low'"),
        ("openai/gpt-5.2", {"effort": "hgih"}, "effort", "did you mean 'high'"),
        ("openai/gpt-5.2", {"thinking_tokens": 100}, "effort", "give an effort"),
        ("openai/gpt-5.2", {"effort": "low", "temperature": 0.2}, "temperature", "remove it"),
        ("openai/o3", {"temperature": 0.2}, "temperature", "remove it"),
        ("openai/gpt-4o", {"thinking_tokens": 100}, "thinking_tokens", "set it to 0"),
        ("openai/gpt-4o", {"effort": "low"}, "effort", "remove it"),
        ("anthropic/claude-sonnet-4-5", {"thinking_tokens": 1000}, "thinking_tokens", "at least 1024"),
        ("anthropic/claude-sonnet-4-5", {"effort": "low"}, "effort", "thinking_tokens of at least 1024"),
        ("anthropic/claude-sonnet-4-5", {"thinking_tokens": 2000, "temperature": 0.0}, "temperature", "remove it"),
        ("anthropic/claude-opus-5", {"effort": "low", "temperature": 0.0}, "temperature", "remove it"),
        ("anthropic/claude-opus-5-5", {"effort": "none"}, "effort", "effort 'low'"),
        ("gemini/gemini-2.5-pro", {"effort": "none"}, "effort", "thinking_tokens: 128"),
        ("gemini/gemini-2.5-flash", {"thinking_tokens": 30_000}, "thinking_tokens", "at most 24576"),
        ("gemini/gemini-3-pro-preview", {"effort": "medium"}, "effort", "nearest is"),
        ("deepseek/deepseek-v4-pro", {"effort": "medium", "thinking_tokens": 9}, "effort", "nearest is"),
        ("dashscope/qwen3.7-plus", {"effort": "none", "thinking_tokens": 9}, "thinking_tokens", "set it to 0"),
    ],
)
def test_what_can_t_be_honoured_is_refused_with_a_hint(
    model: str, fields: dict[str, Any], field: str, hint: str
) -> None:
    found = [issue for issue in problems(rung(model, **fields), dialect_for(model)) if issue.severity == "error"]
    assert [issue.field for issue in found] == [field]
    assert hint in found[0].hint
    with pytest.raises(PolicyError, match=field):
        wire(rung(model, **fields), dialect_for(model))


def test_temperature_is_allowed_where_thinking_is_off() -> None:
    for model, effort in [("openai/gpt-5.2", "none"), ("openai/gpt-5.2", None), ("deepseek/deepseek-v4-pro", "none")]:
        assert wire(rung(model, effort=effort, temperature=0.2), dialect_for(model))["temperature"] == 0.2
    assert "temperature" in errors(rung("openai/gpt-5.5", temperature=0.2), dialect_for("openai/gpt-5.5"))


def test_thoughts_without_a_reserve_are_warned_of() -> None:
    assert warned(rung("openai/gpt-5", effort="low"), dialect_for("openai/gpt-5")) == ["thinking_tokens"]
    assert warned(rung("openai/gpt-5"), dialect_for("openai/gpt-5")) == ["thinking_tokens"]
    assert warned(rung("openai/gpt-5", effort="low", thinking_tokens=9), dialect_for("openai/gpt-5")) == []
    assert warned(rung("openai/gpt-4o"), dialect_for("openai/gpt-4o")) == []


def test_warnings_for_template_words_and_low_temperature() -> None:
    assert warned(rung(effort="low", thinking_tokens=9), dialect_for("hosted_vllm/x")) == ["effort"]
    gemini = dialect_for("gemini/gemini-3-flash-preview")
    assert warned(rung(effort="low", thinking_tokens=9, temperature=0.1), gemini) == ["temperature"]


def test_a_soft_reserve_is_refused_where_a_hard_cap_is_required() -> None:
    soft, hard = rung("openai/gpt-5", effort="low", thinking_tokens=2000), rung(thinking_tokens=2000)
    assert hardness(soft, dialect_for("openai/gpt-5")) == "soft"
    assert errors(soft, dialect_for("openai/gpt-5"), require_hard=True) == ["thinking_tokens"]
    assert hardness(hard, dialect_for("hosted_vllm/x")) == "hard"
    assert errors(hard, dialect_for("hosted_vllm/x"), require_hard=True) == []
    assert hardness(rung(), dialect_for("hosted_vllm/x")) == "none"


def test_limits_count_thinking_and_answer_together() -> None:
    big = rung("anthropic/claude-sonnet-4-5", thinking_tokens=60_000, answer_tokens=4_001)
    assert errors(big, dialect_for(big.model)) == ["answer_tokens"]
    assert errors(replace(big, answer_tokens=4_000), dialect_for(big.model)) == []
    assert errors(big, dialect_for(big.model), max_output_tokens=100_000) == []
    assert errors(rung(answer_tokens=2048), PLAIN, context_window=2048) == ["answer_tokens"]
    assert errors(rung(answer_tokens=2047), PLAIN, context_window=2048) == []


def test_rungs_that_end_as_the_same_request_are_found() -> None:
    def at(name: str, **fields: Any) -> Rung:
        return Rung(id=name, model="gemini/gemini-2.5-flash", **fields)

    ladder = (
        at("a", thinking_tokens=1000, answer_tokens=24),
        at("b", thinking_tokens=1000, answer_tokens=24, timeout=9.0),
        at("c", thinking_tokens=1000, answer_tokens=24, instruction="Think."),
        at("d", thinking_tokens=1000, answer_tokens=24, samples=3),
        at("e", thinking_tokens=999, answer_tokens=25),
        at("broken", effort="max"),
        at("broken too", effort="max"),
    )
    assert same_wire(ladder) == (("a", "b"),)
    local = (Rung(id="x", model="m", effort="low"), Rung(id="y", model="m", effort="low"))
    assert same_wire(local) == ()
    assert same_wire(local, {"m": "hosted-vllm"}) == (("x", "y"),)


def test_bodies_are_joined_not_replaced() -> None:
    assert merged({"a": {"b": 1}, "c": 1}, {"a": {"d": 2}, "c": 2}) == {"a": {"b": 1, "d": 2}, "c": 2}
    sent = wire(rung(effort="none"), dialect_for("m", "llama-cpp"))
    assert json_body(sent) == {"max_tokens": 1024, "chat_template_kwargs": {"enable_thinking": False}}


def test_continuation_follows_the_row() -> None:
    def can(model: str, wire: str | None = None, **fields: Any) -> bool:
        return can_continue(rung(model, **fields), dialect_for(model, wire))

    assert can("hosted_vllm/x", thinking_tokens=100)
    assert can("m", "llama-cpp-plain")
    assert can("anthropic/claude-sonnet-4-5")
    assert not can("anthropic/claude-sonnet-4-5", thinking_tokens=2000)
    assert not can("anthropic/claude-opus-5", effort="none")
    assert can("deepseek/deepseek-v4-pro", effort="none")
    assert not can("deepseek/deepseek-v4-pro")
    assert not can("openai/gpt-5.2", effort="none")


def call(*messages: dict[str, Any], **fields: Any) -> Call:
    instruction = fields.pop("instruction", None)
    return Call(step_id="s", rung=rung(instruction=instruction), messages=messages, **fields)


USER = {"role": "user", "content": "hi"}


def test_the_instruction_ends_the_system_message() -> None:
    system = {"role": "system", "content": "Be brief."}
    parts = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert messages_of(call(USER, instruction="Think.")) == [{"role": "system", "content": "Think."}, USER]
    assert messages_of(call(system, USER, instruction="Think."))[0]["content"] == "Be brief.\n\nThink."
    assert messages_of(call(parts, USER, instruction="Think."))[0]["content"][1] == {"type": "text", "text": "Think."}
    assert system["content"] == "Be brief."
    assert len(parts["content"]) == 1


def test_a_prefix_becomes_the_last_message() -> None:
    deepseek, llama = dialect_for("deepseek/deepseek-v4-pro"), dialect_for("m", "llama-cpp")
    resumed = call(USER, prefix="one, ")
    assert messages_of(resumed, deepseek)[-1] == {"role": "assistant", "content": "one, ", "prefix": True}
    assert messages_of(resumed, llama)[-1] == {"role": "assistant", "content": "one, "}
    assert without_echo("one, two", resumed, llama) == "two"
    assert without_echo("one, two", resumed, deepseek) == "one, two"
