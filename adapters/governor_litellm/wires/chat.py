"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from governor.plan.dialects import Dialect
from governor.plan.effort import merged, wire
from governor.records import Call, Message, Reply, Rung, Usage
from governor_litellm.caps import Caps
from governor_litellm.reply import Assembly, Evidence, reply_of
from governor_litellm.wires.contract import (
    Asking,
    Fields,
    conversation,
    cooled,
    extended,
    extra_body,
    offered,
    smallest,
)

ROLES = frozenset({"system", "developer"})
_OWN = ("max_completion_tokens", "max_tokens", "reasoning_effort", "thinking")


class ChatWire:
    """OpenAI's chat completions. A request for several choices (`n`) is left alone."""

    call_type = "acompletion"
    bucket = "metadata"

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        if data.get("n") not in (None, 1):
            return None
        messages, tools = conversation(data.get("messages")), offered(data.get("tools"))
        return Asking(messages, tools, data.get("tool_choice"), _schema(data.get("response_format")), _caps(data))

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
        return await router.acompletion(**fields, **more, metadata=dict(bucket))

    def chunks(self, call: Call, dialect: Dialect) -> ChatChunks:
        return ChatChunks(call, dialect)

    def charged(self, raw: Any, usage: Usage) -> Any:
        copy = raw.model_copy()
        copy.usage = _counted(raw.usage, usage)
        return copy

    def charged_chunk(self, chunk: Any, usage: Usage) -> Any:
        return chunk if getattr(chunk, "usage", None) is None else self.charged(chunk, usage)

    def detailed(self, raw: Any, details: Mapping[str, Any]) -> Any:
        copy = raw.model_copy()
        copy.governor = dict(details)
        return copy


class ChatChunks:
    """The chunks of one chat stream."""

    def __init__(self, call: Call, dialect: Dialect) -> None:
        self.shown = 0
        self.chunks: tuple[Any, ...] = ()  # what LiteLLM's own wrapper would keep: the usage is read off the last chunk
        self._assembly = Assembly(call, dialect)
        self._counted = False

    def add(self, chunk: Any) -> None:
        self._counted = self._counted or getattr(chunk, "usage", None) is not None
        for delta in self._assembly.add(chunk, self):
            self.shown += len(f"{delta.text}{delta.thinking}".encode("utf-8", "surrogatepass"))

    def reply(self) -> Reply:
        self.shown += sum(len(part.encode()) for _, *parts in self._assembly.tools.values() for part in parts)
        return self._assembly.whole(Evidence(bool(self._assembly.finish), self._counted))


def _caps(data: Mapping[str, Any]) -> Caps:
    thinking = data.get("thinking")
    return Caps(
        smallest(data.get("max_tokens"), data.get("max_completion_tokens")),
        data.get("reasoning_effort") if isinstance(data.get("reasoning_effort"), str) else None,
        budget(thinking),
    )


def budget(thinking: Any) -> int | None:
    """The thinking tokens that Anthropic's `thinking` allows; None where it sets no number."""
    if not isinstance(thinking, Mapping):
        return None
    if thinking.get("type") == "disabled":
        return 0
    return smallest(thinking.get("budget_tokens"))


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
    prompt = getattr(copy, "prompt_tokens_details", None)
    if prompt is not None and getattr(prompt, "cached_tokens", None) is not None:
        prompt.cached_tokens = usage.cached_tokens
    return copy
