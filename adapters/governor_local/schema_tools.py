"""Tool calls of models that make none by themselves: answers are held to a JSON Schema of the tools that are offered.

Small models know no format of tool calls, or miss it. Under the schema every call names an offered tool and fits its
parameters, whatever the model: {"tool": NAME, "arguments": {...}} or {"answer": ...}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from governor.protocols import Backend, Counting, Delta
from governor.records import Call, Message, Reply, Rung, ToolCall, text_of

_ASK = """{before}Answer with JSON alone. You can use these tools:
{tools}
When you know the answer, give it as {{"answer": "a sentence"}}."""


@dataclass(frozen=True, slots=True)
class SchemaTools:
    """A Backend whose calls with tools go to `inner` as calls for JSON; all others as they are.

    Text of a call with tools comes at its end: it is part of the JSON until then. Cut replies are not gone on from.
    """

    inner: Backend

    def call(self, call: Call) -> Reply:
        return _read(call, self.inner.call(_asked(call)))

    async def acall(self, call: Call) -> Reply:
        return _read(call, await self.inner.acall(_asked(call)))

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        for item in self.inner.stream(_asked(call)):
            yield from _shown(call, item)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        async for item in self.inner.astream(_asked(call)):
            for piece in _shown(call, item):
                yield piece

    def continues(self, rung: Rung) -> bool:
        del rung
        return False

    def counts(self, rung: Rung) -> bool:
        return isinstance(self.inner, Counting) and self.inner.counts(rung)

    def close(self) -> None:
        self.inner.close()


def _asked(call: Call) -> Call:
    if not _offers(call):
        return call
    told = tuple(_plain(message) for message in call.messages)
    before = "".join(f"{text_of(one)}\n" for one in told if one["role"] == "system")
    system = _ASK.format(before=before, tools="\n".join(_described(tool) for tool in call.tools))
    rest = tuple(one for one in told if one["role"] != "system")
    schema = {"anyOf": list(_branches(call))}
    messages = ({"role": "system", "content": system}, *rest)
    return replace(call, messages=messages, tools=(), tool_choice=None, response_schema=schema)


def _offers(call: Call) -> bool:
    return bool(call.tools) and call.tool_choice != "none"


def _branches(call: Call) -> Iterator[Mapping[str, Any]]:
    """What may be said: each tool that may be called, and the answer where no call is asked for."""
    chosen = call.tool_choice["function"]["name"] if isinstance(call.tool_choice, Mapping) else None
    for tool in call.tools:
        spec = tool.get("function", tool)
        if chosen in (None, spec["name"]):
            arguments = spec.get("parameters") or {"type": "object"}
            yield _object({"tool": {"const": spec["name"]}, "arguments": arguments})
    if call.tool_choice in (None, "auto"):
        yield _object({"answer": call.response_schema or {"type": "string"}})


def _object(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _described(tool: Mapping[str, Any]) -> str:
    spec = tool.get("function", tool)
    names = dict.fromkeys((spec.get("parameters") or {}).get("properties") or (), "...")
    return f"{spec.get('description', '')} {json.dumps({'tool': spec['name'], 'arguments': names})}".strip()


def _plain(message: Message) -> dict[str, Any]:
    """A message without tool calls, which chat templates may know nothing of."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"The tool says: {text_of(message)}"}
    calls = message.get("tool_calls")
    if not calls:
        return {"role": message["role"], "content": message.get("content")}
    said = [_said(one["function"]) for one in calls]
    return {"role": message["role"], "content": "\n".join(said)}


def _said(function: Mapping[str, str]) -> str:
    """A call as the schema has it; the arguments are JSON already."""
    return f'{{"tool": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'


def _shown(call: Call, item: Delta | Reply) -> Iterator[Delta | Reply]:
    if isinstance(item, Reply):
        reply = _read(call, item)
        if _offers(call) and reply.text:
            yield Delta(text=reply.text, usage=reply.usage)
        yield reply
    else:
        yield replace(item, text="") if _offers(call) else item


def _read(call: Call, reply: Reply) -> Reply:
    """The reply as if the model had called the tool, or answered, by itself; one that was cut stays as it is."""
    if not _offers(call) or reply.truncated:
        return reply
    try:
        said = json.loads(reply.text)
    except ValueError:
        return reply
    if "answer" in said:
        answer = said["answer"]
        return replace(reply, text=answer if isinstance(answer, str) else json.dumps(answer))
    made = ToolCall(id=_id(call), name=said["tool"], arguments=json.dumps(said["arguments"]))
    return replace(reply, text="", tool_calls=(made,), finish_reason="tool_calls")


def _id(call: Call) -> str:
    """Of its own for each call, and the same each time that it is made."""
    named = f"{call.step_id}\0{call.attempt}\0{call.sample}"
    return f"call_{hashlib.sha256(named.encode()).hexdigest()[:16]}"
