"""/v1/messages."""

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
    extended,
    extra_body,
    hosted,
    mappings,
    offered,
    smallest,
)
from governor_litellm.wires.parts import referred
from governor_litellm.wires.sse import Blocks, Events, blocks, data_of, written

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_CACHE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_SHOWN_BLOCKS = {"text", "thinking", "redacted_thinking"}
_SHOWN_DELTAS = {"text_delta", "thinking_delta", "signature_delta"}


class MessagesWire:
    """Anthropic's messages. LiteLLM gives responses as dicts and streams as raw bytes."""

    call_type = "anthropic_messages"
    bucket = "litellm_metadata"
    limit = "max_tokens"
    reads = frozenset(
        {
            *("messages", "system", "tools", "tool_choice", "mcp_servers", "output_config", "output_format"),
            *("max_tokens", "thinking", "reasoning_effort", "temperature", "top_p"),
        }
    )

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        messages, tools = conversation(data.get("messages")), offered(data.get("tools"))
        if any(str(tool.get("type")).startswith("advisor") for tool in tools):
            return None  # another model's calls, as many as the client likes
        system = [{"role": "system", "content": data["system"]}] if data.get("system") else []
        said = tuple(one for message in messages for one in _chat(message))
        functions = tuple(_function(tool) for tool in tools)
        unbounded = hosted(tools) or ("mcp_servers" if data.get("mcp_servers") else "") or referred(said)
        choice = _choice(data.get("tool_choice"))
        return Asking((*system, *said), functions, choice, _schema(data), _caps(data), unbounded)

    def least(self, dialect: Dialect) -> int:
        """LiteLLM may carry a message to another provider's model over the Responses API."""
        return 1 if dialect.messages else LEAST_OUTPUT

    def fields(self, rung: Rung, dialect: Dialect, data: Mapping[str, Any]) -> Fields:
        params = dict(wire(rung, dialect))
        word, extra = params.pop("reasoning_effort", None), params.pop("extra_body", {})
        own = data.get("output_config")
        config = {key: value for key, value in (own if isinstance(own, Mapping) else {}).items() if key != "effort"}
        config |= params.pop("output_config", {})
        thinking: Mapping[str, Any] | None = None
        if word == "none":
            thinking = {"type": "disabled"}
        elif word:
            thinking, config["effort"] = {"type": "adaptive"}, word
        extra = merged(extra_body(data), extra)
        return {
            **cooled(rung, dialect, data),
            "thinking": thinking,
            "reasoning_effort": None,
            **params,
            "max_tokens": smallest(params["max_tokens"], data.get("max_tokens")),
            "output_config": config or None,
            "model": rung.model,
            **({"extra_body": extra} if extra else {}),
        }

    def following(self, data: Mapping[str, Any], more: Sequence[Message], instruction: str | None) -> Fields:
        changed: dict[str, Any] = {}
        if more:
            changed["messages"] = [*data["messages"], *map(dict, more)]
        if instruction:
            changed["system"] = extended(data.get("system"), instruction)
        return changed

    def reply(self, raw: Any, call: Call, dialect: Dialect) -> Reply:
        content = mappings(raw.get("content")) if isinstance(raw, Mapping) else None
        if content is None:
            raise BackendReplyError(f"{call.rung.model}: the reply holds no content", model=call.rung.model)
        usage = _usage(raw.get("usage"))
        stop = raw.get("stop_reason") or "end_turn"
        return Reply(
            text="".join(block.get("text") or "" for block in content if block.get("type") == "text"),
            thinking="".join(block.get("thinking") or "" for block in content if block.get("type") == "thinking"),
            tool_calls=tuple(_tool_call(block) for block in content if block.get("type") == "tool_use"),
            finish_reason=_FINISH.get(stop, stop),
            usage=usage or Usage(),
            usage_known=usage is not None,
            model=raw.get("model") or call.rung.model,
        )

    async def send(self, router: Any, fields: Mapping[str, Any], bucket: Mapping[str, Any]) -> Any:
        return await router.aanthropic_messages(**fields, litellm_metadata=dict(bucket))

    def chunks(self, call: Call, dialect: Dialect, source: Any = None, *, cuttable: bool = False) -> MessagesChunks:
        del source, cuttable
        return MessagesChunks(self, call, dialect)

    def splitter(self) -> Splitter:
        cut = Blocks()
        return lambda chunk: cut.feed(_raw(chunk))

    def waits(self, chunk: Any) -> bool:
        event = data_of(chunk) or {}
        kind, block, delta = (event.get(name) or {} for name in ("type", "content_block", "delta"))
        match kind:
            case "content_block_start":
                return block.get("type") not in _SHOWN_BLOCKS
            case "content_block_delta":
                return delta.get("type") not in _SHOWN_DELTAS
            case _:
                return kind not in ("message_start", "content_block_stop", "ping")

    def listening(self, call: Call, dialect: Dialect, data: Mapping[str, Any], *, told: bool) -> Fields:
        """Nothing: the format has no log-probabilities, and no count before the end."""
        del call, dialect, data, told
        return {}

    def veiled(self, chunk: Any, data: Mapping[str, Any]) -> Any:
        del data
        return chunk

    def charged(self, raw: Any, usage: Usage) -> Any:
        return {**raw, "usage": _counted(raw.get("usage") or {}, usage)}

    def charged_chunk(self, chunk: Any, usage: Usage) -> Any:
        """Rewrites the event that tells the usage at the end; a client takes the last number it is told."""
        if not isinstance(chunk, bytes) or b"message_delta" not in chunk:
            return chunk
        return b"".join(_charged_block(block, usage) for block in blocks(chunk))

    def detailed(self, raw: Any, details: Mapping[str, Any]) -> Any:
        return {**raw, "governor": dict(details)}


class MessagesChunks:
    """The events of one stream, put together as the message that it would have been."""

    def __init__(self, wire: MessagesWire, call: Call, dialect: Dialect) -> None:
        self.shown = 0
        self._wire, self._call, self._dialect = wire, call, dialect
        self._events = Events()
        self._message: dict[str, Any] = {}
        self._content: dict[int, dict[str, Any]] = {}
        self._open: set[int] = set()
        self._stopped = False

    @property
    def ended(self) -> bool:
        return self._stopped

    def add(self, chunk: Any) -> Sequence[Delta]:
        events = self._events.feed(_raw(chunk))
        return [delta for event in events if (delta := self._take(event)) is not None]

    def reply(self) -> Reply:
        if not self._stopped:
            model = self._call.rung.model
            raise BackendReplyError(f"{model}: the stream broke off before the reply was finished", model=model)
        return self._made(self._message)

    def cut(self) -> Reply:
        """The usage at a message's start is not what it comes to."""
        if self._stopped:
            return self._made(self._message)
        return self._made({**self._message, "usage": None, "stop_reason": "max_tokens"})

    def trimmed(self, chunk: Any) -> Any:
        return chunk[: len(chunk) - self._events.waiting] if isinstance(chunk, bytes) else chunk

    def ending(self, usage: Usage, *, told: bool) -> Sequence[Any]:
        del told
        if self._stopped:
            return ()
        stops = ({"type": "content_block_stop", "index": index} for index in sorted(self._open))
        end: Mapping[str, Any] = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {"output_tokens": usage.output_tokens},
        }
        return [*map(written, stops), written(end), written({"type": "message_stop"})]

    def _made(self, message: Mapping[str, Any]) -> Reply:
        whole = {**message, "content": [self._content[index] for index in sorted(self._content)]}
        return self._wire.reply(whole, self._call, self._dialect)

    def _take(self, event: Mapping[str, Any]) -> Delta | None:
        match event.get("type"):
            case "message_start":
                self._message = dict(event.get("message") or {})
            case "content_block_start":
                self._content[int(event.get("index") or 0)] = dict(event.get("content_block") or {})
                self._open.add(int(event.get("index") or 0))
            case "content_block_delta":
                return self._grow(int(event.get("index") or 0), event.get("delta") or {})
            case "content_block_stop":
                self._open.discard(int(event.get("index") or 0))
            case "message_delta":
                self._message |= event.get("delta") or {}
                self._message["usage"] = {**(self._message.get("usage") or {}), **_told(event.get("usage"))}
            case "message_stop":
                self._stopped = True
            case _:
                pass
        return None

    def _grow(self, index: int, delta: Mapping[str, Any]) -> Delta | None:
        block = self._content.setdefault(index, {"type": "text"})
        for name, grows in (("text", "text"), ("thinking", "thinking"), ("partial_json", "input")):
            piece = delta.get(name)
            if isinstance(piece, str):
                before = block.get(grows)
                block[grows] = (before if isinstance(before, str) else "") + piece
                self.shown += len(piece.encode("utf-8", "surrogatepass"))
        text, thinking = delta.get("text"), delta.get("thinking")
        return Delta(text or "", thinking or "") if text or thinking else None


def _raw(chunk: Any) -> bytes:
    return chunk if isinstance(chunk, bytes) else str(chunk).encode()


def _chat(message: Mapping[str, Any]) -> Iterator[Message]:
    """A message of blocks as chat messages: what tools answered stands apart, what they are asked beside the text."""
    content = mappings(message.get("content"))
    if isinstance(message.get("content"), str) or content is None:
        yield message
        return
    rest = [block for block in content if block.get("type") not in ("tool_use", "tool_result")]
    for block in content:
        if block.get("type") == "tool_result":
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": block.get("content")}
    calls = [_called(block) for block in content if block.get("type") == "tool_use"]
    if rest or calls:
        yield {"role": message.get("role"), "content": rest, **({"tool_calls": calls} if calls else {})}


def _called(block: Mapping[str, Any]) -> Mapping[str, Any]:
    function = {"name": block.get("name"), "arguments": json.dumps(block.get("input"), ensure_ascii=False)}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool_call(block: Mapping[str, Any]) -> ToolCall:
    given = block.get("input")
    arguments = given if isinstance(given, str) else json.dumps(given if given is not None else {})
    return ToolCall(id=block.get("id") or "", name=block.get("name") or "", arguments=arguments)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if "input_schema" not in tool:
        return tool
    function = {key: tool[key] for key in ("name", "description") if key in tool}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def _choice(given: Any) -> str | Mapping[str, Any] | None:
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "tool":
        return {"type": "function", "function": {"name": given.get("name")}}
    return {"any": "required", "auto": "auto", "none": "none"}.get(str(kind))


def _schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    config = data.get("output_config")
    stated = data.get("output_format") or (config.get("format") if isinstance(config, Mapping) else None)
    schema = stated.get("schema") if isinstance(stated, Mapping) and stated.get("type") == "json_schema" else None
    return schema if isinstance(schema, Mapping) else None


def _caps(data: Mapping[str, Any]) -> Caps:
    word = effort(data.get("output_config"), data.get("reasoning_effort"))
    return Caps(smallest(data.get("max_tokens")), word, budget(data.get("thinking")))


def _usage(told: Any) -> Usage | None:
    counts = _billed(_told(told))
    fresh, output = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
    if not (fresh or output):
        return None
    read, written = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
    return Usage(fresh + read + written, output, 0, read, written)


def _billed(counts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The counts with what compaction cost, which `iterations` alone tell (platform.claude.com, compaction).

    These hold the counts at the top once more, unless LiteLLM wrote them: then without what a cache was read for.
    """
    rounds = [_told(one) for one in mappings(counts.get("iterations") or ()) or ()]
    return {**counts, **{name: max(counts.get(name, 0), sum(one.get(name, 0) for one in rounds)) for name in _COUNTS}}


def _told(usage: Any) -> Mapping[str, Any]:
    """The counts that are there, without the empty ones."""
    return {key: value for key, value in usage.items() if value} if isinstance(usage, Mapping) else {}


def _counted(known: Mapping[str, Any], usage: Usage) -> dict[str, Any]:
    """Anthropic's input tokens are those that were not read from, or written to, a cache.

    Iterations would tell of one attempt alone what these counts hold of all.
    """
    counts: dict[str, Any] = {
        **{name: told for name, told in known.items() if name != "iterations"},
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.written_tokens),
        "output_tokens": usage.output_tokens,
    }
    if "cache_read_input_tokens" in known:
        counts["cache_read_input_tokens"] = usage.cached_tokens
    if "cache_creation_input_tokens" in known:
        counts["cache_creation_input_tokens"] = usage.written_tokens
    if "total_tokens" in known:
        counts["total_tokens"] = usage.total_tokens
    return counts


def _charged_block(block: bytes, usage: Usage) -> bytes:
    event = data_of(block)
    if event is None or event.get("type") != "message_delta":
        return block
    told = event.get("usage")
    known: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    return written({**event, "usage": _counted({**_CACHE, **known}, usage)})  # the start told the first input alone
