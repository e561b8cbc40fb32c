from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from governor.protocols import Delta
from governor.records import Call, Reply, Rung, ToolCall, Usage
from governor.testing import ScriptedBackend
from governor_local.backend import LocalBackend
from governor_local.schema_tools import SchemaTools

RUNG = Rung(id="r", model="local/smollm2-135m", answer_tokens=60)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "function": {"name": "population", "description": "Count.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "description": "The time."}},
)
CALLED = '{"tool": "population", "arguments": {"city": "Paris"}}'


def call(*messages: dict[str, Any], **more: Any) -> Call:
    asked = messages or ({"role": "user", "content": "How many?"},)
    more.setdefault("tools", TOOLS)
    return Call(step_id="s", rung=RUNG, messages=asked, **more)


def read(pieces: Any) -> Reply:
    last = list(pieces)[-1]
    assert isinstance(last, Reply)
    return last


async def aread(pieces: Any) -> Reply:
    return read([one async for one in pieces])


WAYS: dict[str, Callable[[SchemaTools, Call], Reply]] = {
    "call": lambda models, one: models.call(one),
    "acall": lambda models, one: asyncio.run(models.acall(one)),
    "stream": lambda models, one: read(models.stream(one)),
    "astream": lambda models, one: asyncio.run(aread(models.astream(one))),
}


@pytest.mark.parametrize("way", WAYS)
def test_json_that_names_a_tool_is_a_call_of_it(way: str) -> None:
    reply = WAYS[way](SchemaTools(ScriptedBackend([CALLED])), call())
    (made,) = reply.tool_calls
    assert (made.name, json.loads(made.arguments)) == ("population", {"city": "Paris"})
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("way", WAYS)
def test_json_that_answers_is_the_answer(way: str) -> None:
    assert WAYS[way](SchemaTools(ScriptedBackend(['{"answer": "two"}'])), call()).text == "two"


def test_an_answer_that_has_a_schema_is_json_of_it() -> None:
    wanted = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    inner = ScriptedBackend(['{"answer": {"n": 2}}'])
    assert json.loads(SchemaTools(inner).call(call(response_schema=wanted)).text) == {"n": 2}
    assert not allowed(inner, {"answer": {"n": "two"}})


def allowed(inner: ScriptedBackend, value: Any) -> bool:
    """Whether the schema that was asked for allows a value."""
    schema: Any = inner.calls[-1].response_schema
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("choice", "may_call", "may_answer"),
    [
        (None, {"population", "now"}, True),
        ("auto", {"population", "now"}, True),
        ("required", {"population", "now"}, False),
        ({"type": "function", "function": {"name": "now"}}, {"now"}, False),
    ],
)
def test_the_schema_allows_what_may_be_called_and_no_more(choice: Any, may_call: set[str], may_answer: bool) -> None:
    inner = ScriptedBackend([CALLED])
    SchemaTools(inner).call(call(tool_choice=choice))
    for name in ("population", "now", "other"):
        assert allowed(inner, {"tool": name, "arguments": {"city": "Paris"}}) is (name in may_call)
    assert not allowed(inner, {"tool": "population", "arguments": {"town": 1}})
    assert allowed(inner, {"answer": "two"}) is may_answer
    assert inner.calls[0].tools == ()
    assert inner.calls[0].tool_choice is None


@pytest.mark.parametrize("plain", [{"tools": ()}, {"tool_choice": "none"}])
def test_where_no_tool_may_be_called_nothing_is_changed(plain: dict[str, Any]) -> None:
    inner = ScriptedBackend(['{"answer": "two"}', "two words"])
    models, asked = SchemaTools(inner), call(**plain)
    assert models.call(asked).text == '{"answer": "two"}'
    assert inner.calls[0] is asked
    assert [one.text for one in models.stream(asked) if isinstance(one, Delta)] == ["two", " words"]


def test_the_model_is_told_of_the_tools_and_of_what_they_said() -> None:
    made = {"id": "1", "type": "function", "function": {"name": "population", "arguments": '{"city": "Paris"}'}}
    history = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "1", "content": "two million"},
    )
    inner = ScriptedBackend([CALLED])
    SchemaTools(inner).call(call(*history))
    system, user, said, told = inner.calls[0].messages
    assert system["content"].startswith("Be brief.\n")
    assert 'Count. {"tool": "population", "arguments": {"city": "..."}}' in system["content"]
    assert (user["content"], json.loads(said["content"])) == ("How many?", json.loads(CALLED))
    assert (told["role"], told["content"]) == ("user", "The tool says: two million")


@pytest.mark.parametrize("text", ['{"tool": "population", "argum', "no json"])
def test_what_can_not_be_read_stays_as_it_is(text: str) -> None:
    cut = Reply(text=text, finish_reason="length" if text.startswith("{") else "stop")
    assert SchemaTools(ScriptedBackend([cut])).call(call()) == cut


def test_no_piece_of_the_json_is_shown_and_every_piece_is_counted() -> None:
    inner = ScriptedBackend([Reply(text='{"answer": "two million"}', usage=Usage(9, 4))], counted={"r"})
    models = SchemaTools(inner)
    *pieces, reply = models.stream(call())
    shown = [one.text for one in pieces if isinstance(one, Delta)]
    assert "".join(shown) == "two million" == shown[-1]
    assert all(isinstance(one, Delta) and one.usage is not None for one in pieces)
    assert isinstance(reply, Reply)
    assert models.counts(RUNG)


def test_calls_have_names_of_their_own_that_stay_the_same() -> None:
    models = SchemaTools(ScriptedBackend([CALLED] * 4))
    which = [{"attempt": 1}, {"attempt": 1}, {"attempt": 2}, {"attempt": 1, "sample": 1}]
    made: list[ToolCall] = [models.call(call(**one)).tool_calls[0] for one in which]
    assert made[0].id == made[1].id
    assert len({one.id for one in made}) == 3


def test_a_cut_reply_is_not_gone_on_from_and_the_inner_backend_is_closed() -> None:
    inner = ScriptedBackend([], continues={"r"})
    models = SchemaTools(inner)
    assert not models.continues(RUNG)
    models.close()
    assert inner.closed


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_a_real_small_model_calls_a_tool() -> None:
    models = SchemaTools(LocalBackend({"smollm2-135m": {}}))
    try:
        reply = models.call(call({"role": "user", "content": "How many people live in Paris?"}, tool_choice="required"))
    finally:
        models.close()
    assert reply.tool_calls[0].name in {"population", "now"}
    assert isinstance(json.loads(reply.tool_calls[0].arguments), dict)
