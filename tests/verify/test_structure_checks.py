from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, Field

from governor.records import Amount, Step, ToolCall
from governor.verify import build_verifier
from tests.verify.driver import STEP, judged, reply

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "items": {"type": "array", "items": {"type": "number"}}},
    "required": ["name"],
    "additionalProperties": False,
}
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "required": ["a"]}}},
    {"name": "find", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}},
)
FREE: tuple[dict[str, Any], ...] = (
    {"type": "custom", "custom": {"name": "sql"}},
    {"type": "custom", "name": "run"},
    {"type": "local_shell"},
    {"type": "bash_20250124", "name": "bash"},
)
"""Tools without a schema: the first as chat has it, the next two as responses, the last as messages."""


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)


@pytest.mark.parametrize(
    ("text", "decision", "said"),
    [
        ('{"name": "x"}', "accept", ""),
        ('Sure!\n```json\n{"name": "x", "items": [1]}\n```', "accept", ""),
        ('{"name": 1}', "reject", "$.name: 1 is not of type 'string'"),
        ('{"name": "x", "items": [1, "b"]}', "reject", "$.items[1]: 'b' is not of type 'number'"),
        ("{}", "reject", "'name' is a required property"),
        ("no json here", "reject", "no JSON value"),
        ("[" * 100_000, "reject", "no JSON value"),
    ],
)
def test_json_schema(text: str, decision: str, said: str) -> None:
    verdict = judged({"json_schema": SCHEMA}, text)
    assert verdict.decision == decision
    assert said in verdict.feedback
    assert len(verdict.feedback) <= 1000


def test_json_schema_of_the_step() -> None:
    step = replace(STEP, response_schema=SCHEMA)
    assert judged({"json_schema": "from_step"}, '{"name": "x"}', step).decision == "accept"
    assert judged({"json_schema": {"schema": "from_step"}}, '{"name": 1}', step).failure == "format"
    assert judged({"json_schema": "from_step"}, '{"name": 1}').decision == "unsure"
    broken = judged({"json_schema": "from_step"}, "{}", replace(STEP, response_schema={"type": "objec"}))
    assert (broken.decision, "not a JSON Schema" in broken.error) == ("unsure", True)


def test_a_remote_reference_is_never_fetched() -> None:
    verdict = judged({"json_schema": {"schema": {"$ref": "http://127.0.0.1:1/schema.json"}}}, "{}")
    assert verdict.decision == "unsure"
    assert "Unresolvable" in verdict.error


@pytest.mark.parametrize(
    ("text", "decision", "said"),
    [
        ('{"name": "x", "age": 3}', "accept", ""),
        ('{"name": "x", "age": -3}', "reject", "age: "),
        ('{"age": "three"}', "reject", "name: Field required"),
        ("none", "reject", "no JSON"),
    ],
)
def test_pydantic(text: str, decision: str, said: str) -> None:
    verdict = judged({"pydantic": "tests.verify.test_structure_checks:Person"}, text)
    assert verdict.decision == decision
    assert said in verdict.feedback


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("add", '{"a": 1}', ""),
        ("find", '{"q": "x"}', ""),
        ("find", "", ""),
        ("add", "{}", "'a' is a required property"),
        ("find", '{"q": 1}', "$.q"),
        ("add", '{"a": 1', "not valid JSON"),
        ("add", '{"a": NaN}', "not valid JSON"),
        ("add", "[1]", "must be a JSON object"),
        ("remove", "{}", "there is no tool 'remove', only: add, find"),
    ],
)
def test_tool_arguments(name: str, arguments: str, said: str) -> None:
    step = replace(STEP, tools=TOOLS)
    given = reply("", tool_calls=(ToolCall(id="1", name=name, arguments=arguments),))
    verdict = judged("tool_arguments", given, step)
    assert verdict.decision == ("reject" if said else "accept")
    assert said in verdict.feedback


@pytest.mark.parametrize("name", ["sql", "run", "local_shell", "bash"])
def test_tool_arguments_may_be_free_text_where_a_tool_has_no_schema(name: str) -> None:
    given = reply("", tool_calls=(ToolCall(id="1", name=name, arguments="ls -l"),))
    assert judged("tool_arguments", given, replace(STEP, tools=FREE)).decision == "accept"
    assert "there is no tool" in judged("tool_arguments", given, replace(STEP, tools=TOOLS)).feedback


def test_tool_arguments_may_require_a_call() -> None:
    assert judged("tool_arguments", "just text").decision == "accept"
    assert judged({"tool_arguments": True}, "just text").decision == "reject"


def test_tool_arguments_count_calls_of_a_tool_that_has_few_left() -> None:
    step = replace(STEP, tools=TOOLS)
    twice = reply("", tool_calls=tuple(ToolCall(id=str(n), name="find", arguments="") for n in range(2)))
    assert judged({"tool_arguments": {"left": {"find": 2, "add": 0}}}, twice, step).decision == "accept"
    verdict = judged({"tool_arguments": {"left": {"find": 1}}}, twice, step)
    assert (verdict.decision, verdict.feedback) == ("reject", "the tool find may be called 1 more times, not 2")


@pytest.mark.parametrize(
    ("options", "whole"), [(None, True), ({"whole": False}, False), ({"whole": False, "required": True}, True)]
)
def test_tool_arguments_need_no_text_where_they_say_so(options: dict[str, Any] | None, whole: bool) -> None:
    verifier = build_verifier({"tool_arguments": options}, bound=lambda _: Amount())
    assert verifier is not None
    assert verifier.needs_whole_answer is whole


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ('{"name": "Ada Lovelace", "year": 1815}', "accept"),
        ('{"name": "ADA  LOVELACE", "paid": 1250.0}', "accept"),
        ('{"name": "Ada", "tags": ["London", null, true]}', "accept"),
        ('{"name": "Da Love"}', "reject"),
        ('{"year": 1816}', "reject"),
        ('{"year": 15}', "reject"),
        ('{"name": "Grace"}', "reject"),
        ('{"city": "\u4f26\u6566"}', "accept"),
        ("prose", "reject"),
    ],
)
def test_grounded(text: str, decision: str) -> None:
    prompt = "Ada Lovelace, born 1815 in London (\u751f\u4e8e\u4f26\u6566\u5e02), was paid 1,250."
    step = Step(id="g", messages=({"role": "user", "content": prompt},))
    assert judged("grounded", text, step).decision == decision


def test_grounded_ignores_what_the_model_said_before_and_named_keys() -> None:
    said = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Grace"})
    step = Step(id="g", messages=said)
    assert judged("grounded", '{"name": "Grace"}', step).decision == "reject"
    assert judged({"grounded": ["name"]}, '{"name": "Grace"}', step).decision == "accept"
