"""/v1/responses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from governor.errors import BackendReplyError
from governor.plan.dialects import Dialect
from governor.plan.effort import merged, wire
from governor.protocols import Delta
from governor.records import Call, Message, Reply, Rung, ToolCall, Usage
from governor_litellm.caps import Caps
from governor_litellm.sampling import cooled
from governor_litellm.wires.contract import (
    LEAST_OUTPUT,
    Asking,
    Fields,
    Splitter,
    budget,
    conversation,
    effort,
    extra_body,
    hosted,
    mappings,
    offered,
    smallest,
)
from governor_litellm.wires.items import Items
from governor_litellm.wires.parts import referred

_OWN = ("max_output_tokens", "reasoning_effort", "thinking")
_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_BEGINS = {
    "response.created",
    "response.in_progress",
    "response.content_part.added",
    "response.output_text.delta",
}
_INCOMPLETE: Mapping[str, Any] = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
_THOUGHT = {"response.reasoning_text.delta", "response.reasoning_summary_text.delta"}
_TEXTS = {"input_text", "output_text", "text", "summary_text"}
_STREAMED = {"message", "reasoning", "function_call", "custom_tool_call"}
"""Items that come in pieces, which are counted as they come."""
_GIVEN = ("arguments", "input", "action", "actions", "operation")
"""Under which names a call holds what its tool is given: JSON, a custom tool's free text, or what is to be done."""


class ResponsesWire:
    """OpenAI's Responses API. A request that runs in the background is left alone."""

    call_type = "aresponses"
    bucket = "litellm_metadata"
    limit = "max_output_tokens"
    reads = frozenset(
        {
            *("input", "instructions", "tools", "tool_choice", "text", "background", "max_output_tokens"),
            *("reasoning", "reasoning_effort", "thinking", "temperature", "top_p"),
        }
    )

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        if data.get("background"):
            return None
        items, tools = conversation(_items(data.get("input"))), offered(data.get("tools"))
        system = [{"role": "system", "content": data["instructions"]}] if data.get("instructions") else []
        functions = tuple(_function(tool) for tool in tools)
        said = (*system, *_messages(items))
        unbounded = hosted(tools) or _held(items) or referred(said)
        return Asking(said, functions, data.get("tool_choice"), _schema(data), _caps(data), unbounded)

    def least(self, dialect: Dialect) -> int:
        del dialect
        return LEAST_OUTPUT

    def fields(self, rung: Rung, dialect: Dialect, data: Mapping[str, Any]) -> Fields:
        params = dict(wire(rung, dialect))
        word, extra = params.pop("reasoning_effort", None), params.pop("extra_body", {})
        own = data.get("reasoning")
        kept = {key: value for key, value in (own if isinstance(own, Mapping) else {}).items() if key != "effort"}
        reasoning = {**kept, **({"effort": word} if word else {})}
        extra = merged(extra_body(data), extra)
        return {
            **dict.fromkeys(_OWN),
            **cooled(rung, dialect, data),
            "max_output_tokens": smallest(params.pop("max_tokens"), data.get("max_output_tokens")),
            **params,
            "reasoning": reasoning or None,
            "model": rung.model,
            **({"extra_body": extra} if extra else {}),
        }

    def following(self, data: Mapping[str, Any], more: Sequence[Message], instruction: str | None) -> Fields:
        changed: dict[str, Any] = {}
        if more:
            changed["input"] = [*_items(data["input"]), *map(dict, more)]
        if instruction:
            told = data.get("instructions")
            changed["instructions"] = f"{told}\n\n{instruction}" if told else instruction
        return changed

    def reply(self, raw: Any, call: Call, dialect: Dialect) -> Reply:
        body = _plain(raw)
        output = mappings(body.get("output"))
        if output is None or body.get("status") == "failed":
            raise BackendReplyError(f"{call.rung.model}: the response failed", model=call.rung.model)
        calls = tuple(_tool_calls(output))
        usage = _usage(body.get("usage"))
        return Reply(
            text="".join(_texts(output, "message", "content")),
            thinking="".join(_texts(output, "reasoning", "summary")),
            tool_calls=calls,
            finish_reason=_finish(body, calls),
            usage=usage or Usage(),
            usage_known=usage is not None,
            model=body.get("model") or call.rung.model,
        )

    async def send(self, router: Any, fields: Mapping[str, Any], bucket: Mapping[str, Any]) -> Any:
        return await router.aresponses(**fields, litellm_metadata=dict(bucket))

    def chunks(self, call: Call, dialect: Dialect, source: Any = None, *, cuttable: bool = False) -> ResponsesChunks:
        del source
        return ResponsesChunks(self, call, dialect, cuttable=cuttable)

    def splitter(self) -> Splitter:
        return lambda chunk: (chunk,)

    def waits(self, chunk: Any) -> bool:
        kind, item = str(_kind(chunk)), getattr(chunk, "item", None)
        if kind.startswith("response.output_item."):
            what = _plain(item).get("type") if item is not None else None
            return what != "reasoning" and (what, kind) != ("message", "response.output_item.added")
        return not (kind in _BEGINS or kind.startswith("response.reasoning_"))

    def listening(self, call: Call, dialect: Dialect, data: Mapping[str, Any], *, told: bool) -> Fields:
        """Nothing: no row of the effort table has log-probabilities here, and nothing counts before the end."""
        del call, dialect, data, told
        return {}

    def veiled(self, chunk: Any, data: Mapping[str, Any]) -> Any:
        del data
        return chunk

    def charged(self, raw: Any, usage: Usage) -> Any:
        if getattr(raw, "usage", None) is None:  # a server that tells none: what is booked of it is no count
            return raw
        copy = raw.model_copy()
        copy.usage = _counted(raw.usage, usage)
        return copy

    def charged_chunk(self, chunk: Any, usage: Usage) -> Any:
        response = getattr(chunk, "response", None)
        if getattr(response, "usage", None) is None:
            return chunk
        return chunk.model_copy(update={"response": self.charged(response, usage)})

    def detailed(self, raw: Any, details: Mapping[str, Any]) -> Any:
        copy = raw.model_copy()
        copy.governor = dict(details)
        return copy


class ResponsesSocket(ResponsesWire):
    """The same over a WebSocket: what will be asked on it, and how often, nobody knows when it is opened."""

    call_type = "_aresponses_websocket"

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        del data
        return None


class ResponsesChunks:
    """The events of one stream; its last one holds the whole response."""

    def __init__(self, wire: ResponsesWire, call: Call, dialect: Dialect, *, cuttable: bool) -> None:
        self.shown = 0
        self._wire, self._call, self._dialect = wire, call, dialect
        self._begun: Any = None
        self._whole: Any = None
        self._items = Items() if cuttable else None
        """Kept only where the stream may be ended early."""

    @property
    def ended(self) -> bool:
        return self._whole is not None

    def add(self, chunk: Any) -> Sequence[Delta]:
        kind = str(_kind(chunk))
        if kind in _ENDS:
            self._whole = chunk.response
        elif kind == "response.created":
            self._begun = chunk.response
        if self._items is not None:
            self._items.take(kind, chunk.model_dump(exclude_none=True))
        if kind == "response.output_item.done":
            self.shown += _unstreamed(getattr(chunk, "item", None))
        delta = getattr(chunk, "delta", None)
        if not isinstance(delta, str):
            return ()
        self.shown += len(delta.encode("utf-8", "surrogatepass"))
        if kind in _THOUGHT:
            return (Delta(thinking=delta),)
        return (Delta(delta),) if kind == "response.output_text.delta" else ()

    def reply(self) -> Reply:
        if self._whole is None:
            model = self._call.rung.model
            raise BackendReplyError(f"{model}: the stream broke off before the reply was finished", model=model)
        return self._wire.reply(self._whole, self._call, self._dialect)

    def cut(self) -> Reply:
        if self._whole is not None:
            return self.reply()
        output = self._items.output if self._items is not None else []
        return self._wire.reply({**_INCOMPLETE, "output": output}, self._call, self._dialect)

    def trimmed(self, chunk: Any) -> Any:
        return chunk

    def ending(self, usage: Usage, *, told: bool) -> Sequence[Any]:
        del told
        if self._whole is not None or self._begun is None or self._items is None:
            return ()
        from litellm.types.llms.openai import GenericEvent, ResponseIncompleteEvent

        closing = [GenericEvent(**event) for event in self._items.closing()]
        held = {**_plain(self._begun), **_INCOMPLETE, "output": self._items.output, "usage": _counts(usage)}
        end = {"type": "response.incomplete", "response": held, "sequence_number": self._items.next_number()}
        return [*closing, ResponseIncompleteEvent.model_validate(end)]


def _unstreamed(item: Any) -> int:
    """Bytes of an item that comes whole; most come in pieces first."""
    held = {} if item is None else _plain(item)
    if not held or held.get("type") in _STREAMED:
        return 0
    return len(json.dumps(held, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))


def _kind(chunk: Any) -> Any:
    kind = getattr(chunk, "type", "")
    return getattr(kind, "value", kind)


def _items(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return list(given) if isinstance(given, Sequence) else []


def _messages(items: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    """The items as chat messages; those of a kind that is not known are kept as they are, to be counted."""
    for item in items:
        match item.get("type", "message"):
            case "message":
                yield {**item, "content": _parts(item.get("content"))}
            case "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                call = {"id": item.get("call_id"), "type": "function", "function": function}
                yield {"role": "assistant", "content": None, "tool_calls": [call]}
            case "function_call_output" | "custom_tool_call_output":
                yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": _parts(item.get("output"))}
            case "computer_call_output":
                yield {**item, "role": "tool", "output": None, "content": [item.get("output")]}
            case _:
                yield {"role": "assistant", **item}


def _held(items: Sequence[Mapping[str, Any]]) -> str:
    """The first kind of item that the server puts in itself: by its id, or what a tool of the provider's found."""
    bare = any(item.get("type") in (None, "item_reference") and item.get("content") is None for item in items)
    return "item_reference" if bare else hosted([item for item in items if item.get("type")])


def _parts(content: Any) -> Any:
    """Text parts under the name that chat gives them; all others count as media."""
    parts = mappings(content)
    if isinstance(content, str) or parts is None:
        return content
    return [{**part, "type": "text"} if part.get("type") in _TEXTS else part for part in parts]


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if str(tool.get("type")).startswith("computer"):
        return {"name": "computer", **tool}  # its calls' name, whichever of its types is offered
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = data.get("text")
    stated = text.get("format") if isinstance(text, Mapping) else None
    schema = stated.get("schema") if isinstance(stated, Mapping) and stated.get("type") == "json_schema" else None
    return schema if isinstance(schema, Mapping) else None


def _caps(data: Mapping[str, Any]) -> Caps:
    word = effort(data.get("reasoning"), data.get("reasoning_effort"))
    return Caps(smallest(data.get("max_output_tokens")), word, budget(data.get("thinking")))


def _plain(raw: Any) -> Mapping[str, Any]:
    """A response as JSON would hold it."""
    dumped: Mapping[str, Any] = raw if isinstance(raw, Mapping) else raw.model_dump()
    return dumped


def _texts(output: Sequence[Mapping[str, Any]], kind: str, field: str) -> Iterator[str]:
    for item in output:
        if item.get("type") == kind:
            yield from (part.get("text") or "" for part in mappings(item.get(field) or ()) or ())


def _tool_calls(output: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
    """What the client is to run. What the provider runs itself has no `call_id`, or its result beside it."""
    done = {item.get("call_id") for item in output if str(item.get("type")).endswith("_call_output")}
    for item in output:
        kind, made = str(item.get("type")), item.get("call_id") or ""
        if kind == "function_call" or (kind.endswith("_call") and made and made not in done):
            yield ToolCall(id=made, name=item.get("name") or kind.removesuffix("_call"), arguments=_given(item))


def _given(item: Mapping[str, Any]) -> str:
    held = next((item[name] for name in _GIVEN if item.get(name) is not None), "")
    return held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)


def _finish(body: Mapping[str, Any], calls: Sequence[ToolCall]) -> str:
    if body.get("status") == "incomplete":
        why = (body.get("incomplete_details") or {}).get("reason") or ""
        return {"max_output_tokens": "length", "content_filter": "content_filter"}.get(why, why or "length")
    return "tool_calls" if calls else "stop"


def _usage(told: Any) -> Usage | None:
    if not isinstance(told, Mapping) or not (told.get("input_tokens") or told.get("output_tokens")):
        return None
    given, made = told.get("input_tokens_details") or {}, told.get("output_tokens_details") or {}
    return Usage(
        told.get("input_tokens") or 0,
        told.get("output_tokens") or 0,
        made.get("reasoning_tokens") or 0,
        given.get("cached_tokens") or 0,
        given.get("cache_write_tokens") or 0,
    )


def _counts(usage: Usage) -> Mapping[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.total_tokens,
    }


def _counted(known: Any, usage: Usage) -> Any:
    copy = known.model_copy(deep=True)
    copy.input_tokens, copy.output_tokens = usage.input_tokens, usage.output_tokens
    copy.total_tokens = usage.total_tokens
    if copy.output_tokens_details is not None:
        copy.output_tokens_details.reasoning_tokens = usage.thinking_tokens
    if copy.input_tokens_details is not None:
        copy.input_tokens_details.cached_tokens = usage.cached_tokens
        if getattr(copy.input_tokens_details, "cache_write_tokens", None) is not None:
            copy.input_tokens_details.cache_write_tokens = usage.written_tokens
    return copy
