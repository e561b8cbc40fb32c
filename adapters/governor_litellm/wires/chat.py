"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from governor.plan.dialects import Dialect
from governor.plan.effort import allows, merged, wire
from governor.protocols import Delta
from governor.records import Call, Message, Reply, Rung, Usage
from governor_litellm.caps import Caps
from governor_litellm.reply import Assembly, Evidence, called, calls_in, counted, counts_of, read, reply_of
from governor_litellm.sampling import cooled
from governor_litellm.wires.contract import (
    Asking,
    Fields,
    Splitter,
    budget,
    conversation,
    effort,
    extended,
    extra_body,
    hosted,
    offered,
    smallest,
)
from governor_litellm.wires.parts import referred

ROLES = frozenset({"system", "developer"})
_READ = ("cached_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_creation_tokens", "cache_write_tokens", "cache_creation_input_tokens")
"""LiteLLM's names for tokens that were read from, and written to, a prompt cache."""

_MEDIA = ("images", "audio")
"""Pieces that cost tokens of their own, whatever their size is."""

_OWN = ("max_completion_tokens", "max_tokens", "reasoning_effort", "thinking")


class ChatWire:
    """OpenAI's chat completions. A request for several choices (`n`) is left alone."""

    call_type = "acompletion"
    bucket = "metadata"
    limit = "max_tokens"
    reads = frozenset(
        {
            *("messages", "tools", "functions", "tool_choice", "response_format", "web_search_options", "n"),
            *("max_tokens", "max_completion_tokens", "reasoning_effort", "thinking", "temperature", "top_p"),
            *("logprobs", "top_logprobs"),
        }
    )

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        if data.get("n") not in (None, 1):
            return None
        messages = conversation(data.get("messages"))
        tools = (*offered(data.get("tools")), *offered(data.get("functions")))
        searched = "web_search_options" if data.get("web_search_options") is not None else ""
        unbounded = hosted(tools) or searched or referred(messages)
        schema = _schema(data.get("response_format"))
        return Asking(messages, tools, data.get("tool_choice"), schema, _caps(data), unbounded)

    def least(self, dialect: Dialect) -> int:
        del dialect
        return 1

    def fields(self, rung: Rung, dialect: Dialect, data: Mapping[str, Any]) -> Fields:
        params = dict(wire(rung, dialect))
        extra = merged(extra_body(data), params.pop("extra_body", {}))
        return {
            **dict.fromkeys(_OWN),
            **cooled(rung, dialect, data),
            **params,
            "model": rung.model,
            **({"extra_body": extra} if extra else {}),
        }

    def following(self, data: Mapping[str, Any], more: Sequence[Message], instruction: str | None) -> Fields:
        if not more and not instruction:
            return {}
        messages = [*data["messages"], *map(dict, more)]
        return {"messages": _instructed(messages, instruction) if instruction else messages}

    def reply(self, raw: Any, call: Call, dialect: Dialect) -> Reply:
        return reply_of(raw, call, dialect)

    async def send(self, router: Any, fields: Mapping[str, Any], bucket: Mapping[str, Any]) -> Any:
        more = {"stream_options": {"include_usage": True}} if fields.get("stream") else {}
        return await router.acompletion(**{**more, **fields, "metadata": dict(bucket)})

    def chunks(self, call: Call, dialect: Dialect, source: Any = None, *, cuttable: bool = False) -> ChatChunks:
        del cuttable
        return ChatChunks(call, dialect, source)

    def splitter(self) -> Splitter:
        return lambda chunk: (chunk,)

    def waits(self, chunk: Any) -> bool:
        choices = getattr(chunk, "choices", None) or ()
        return not choices or any(choice.finish_reason or _acts(choice.delta) for choice in choices)

    def listening(self, call: Call, dialect: Dialect, data: Mapping[str, Any], *, told: bool) -> Fields:
        more: dict[str, Any] = {}
        if (call.logprobs or call.top_logprobs) and allows(dialect.logprobs, call.rung, dialect):
            most = max(call.top_logprobs, _alternatives(data))
            more |= {"logprobs": True, **({"top_logprobs": most} if most else {})}
        if dialect.counts and told:
            more["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return more

    def veiled(self, chunk: Any, data: Mapping[str, Any]) -> Any:
        choices = getattr(chunk, "choices", None) or ()
        if not any(getattr(choice, "logprobs", None) for choice in choices):
            return chunk
        seen = [choice.model_copy(update={"logprobs": _asked_for(choice.logprobs, data)}) for choice in choices]
        return chunk.model_copy(update={"choices": seen})

    def charged(self, raw: Any, usage: Usage) -> Any:
        if getattr(raw, "usage", None) is None:  # a server that tells none: what is booked of it is no count
            return raw
        copy = raw.model_copy()
        copy.usage = _counted(raw.usage, usage)
        return copy

    def charged_chunk(self, chunk: Any, usage: Usage) -> Any:
        return self.charged(chunk, usage)

    def detailed(self, raw: Any, details: Mapping[str, Any]) -> Any:
        copy = raw.model_copy()
        copy.governor = dict(details)
        return copy


class ChatChunks:
    """The chunks of one chat stream."""

    def __init__(self, call: Call, dialect: Dialect, source: Any = None) -> None:
        self.shown: int | None = 0
        self._source = source
        self._assembly = Assembly(call, dialect)
        self._counted = False
        self._last: Any = None
        self._so_far: Usage | None = None

    @property
    def ended(self) -> bool:
        return bool(self._assembly.finish)

    @property
    def chunks(self) -> Sequence[Any]:
        """What LiteLLM's own wrapper keeps: the usage with each chunk is read there, for it takes it out."""
        return getattr(self._source, "chunks", None) or ()

    def add(self, chunk: Any) -> Sequence[Delta]:
        self._last = chunk
        self._counted = self._counted or getattr(chunk, "usage", None) is not None
        deltas = tuple(self._assembly.add(chunk, self))
        for delta in deltas:
            self._so_far = delta.usage
        pieces = [choice.delta for choice in getattr(chunk, "choices", None) or ()]
        if self.shown is None or any(getattr(piece, name, None) for piece in pieces for name in _MEDIA):
            self.shown = None
        else:
            said = (f"{delta.text}{delta.thinking}" for delta in deltas)
            self.shown += sum(map(_bytes, (*said, *map(_beside, pieces))))
        return deltas

    def reply(self) -> Reply:
        if not self._counted:
            self._assembly.usage = counted(self.chunks)
            self._counted = self._assembly.usage is not None
        return self._assembly.whole(Evidence(bool(self._assembly.finish), self._counted))

    def cut(self) -> Reply:
        return self._assembly.so_far(self._assembly.finish or "length", self._so_far)

    def trimmed(self, chunk: Any) -> Any:
        return chunk

    def ending(self, usage: Usage, *, told: bool) -> Sequence[Any]:
        last = self._last
        named = {name: getattr(last, name, None) for name in ("id", "created", "model")}
        end = {"index": 0, "delta": {}, "finish_reason": "length"}
        chunks = [] if self.ended else [type(last)(**named, choices=[end])]
        if told:
            chunks.append(type(last)(**named, choices=[]))
            chunks[-1].usage = counts_of(usage)
        return chunks


def _acts(delta: Any) -> bool:
    """Whether a piece holds anything beside text and thought."""
    return any(getattr(delta, name, None) for name in ("tool_calls", "function_call", *_MEDIA))


def _beside(delta: Any) -> str:
    """What a piece holds beside text and thought: tool calls, and why the model declines."""
    declined = read(delta, "refusal") or read(read(delta, "provider_specific_fields"), "refusal")
    return "".join((*(word for call in calls_in(delta) for word in called(call)), str(declined or "")))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _alternatives(data: Mapping[str, Any]) -> int:
    """How many of the likeliest tokens the client asked for itself."""
    return smallest(data.get("top_logprobs")) or 0 if data.get("logprobs") else 0


def _asked_for(logprobs: Any, data: Mapping[str, Any]) -> Any:
    """Log-probabilities as the client asked for them; None where it did not."""
    if not data.get("logprobs"):
        return None
    copy, most = logprobs.model_copy(deep=True), _alternatives(data)
    for token in copy.content or ():
        token.top_logprobs = list(token.top_logprobs or ())[:most]
    return copy


def _caps(data: Mapping[str, Any]) -> Caps:
    limit = smallest(data.get("max_tokens"), data.get("max_completion_tokens"))
    return Caps(limit, effort(data.get("reasoning_effort")), budget(data.get("thinking")))


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    stated = response_format.get("json_schema")
    schema = stated.get("schema") if isinstance(stated, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _instructed(messages: list[Any], instruction: str) -> list[Any]:
    for place, message in enumerate(messages):
        if message.get("role") in ROLES:
            told = {**message, "content": extended(message.get("content"), instruction)}
            return [*messages[:place], told, *messages[place + 1 :]]
    return [{"role": "system", "content": instruction}, *messages]


def _counted(known: Any, usage: Usage) -> Any:
    """LiteLLM's usage with other numbers; its details only where it had any."""
    copy = known.model_copy(deep=True)
    copy.prompt_tokens, copy.completion_tokens = usage.input_tokens, usage.output_tokens
    copy.total_tokens = usage.total_tokens
    output = getattr(copy, "completion_tokens_details", None)
    if output is not None and getattr(output, "reasoning_tokens", None) is not None:
        output.reasoning_tokens = usage.thinking_tokens
    for part in (copy, getattr(copy, "prompt_tokens_details", None)):
        for names, tokens in ((_READ, usage.cached_tokens), (_WRITTEN, usage.written_tokens)):
            for name in names:
                if getattr(part, name, None) is not None:
                    setattr(part, name, tokens)
    return copy
