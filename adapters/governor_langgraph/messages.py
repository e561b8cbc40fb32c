"""LangChain's messages, tools and schemas as Governor's, and replies as LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, InvalidToolCall, convert_to_openai_messages
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.utils.function_calling import convert_to_openai_tool

from governor.records import Message, Outcome, Reply, ToolCall, Usage

TOOL_CHOICES = {"any": "required", "required": "required", "auto": "auto", "none": "none", True: "required"}


def messages_of(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Chat messages in OpenAI's shape."""
    converted: Any = convert_to_openai_messages(list(messages))
    return tuple(converted)


def tool_choice_of(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str | Mapping[str, Any] | None:
    """LangChain's word for which tools must be called, in OpenAI's shape; ValueError for a tool that is not there."""
    if choice is None or choice is False or isinstance(choice, Mapping):
        return choice or None
    if choice in TOOL_CHOICES:
        return TOOL_CHOICES[choice]
    names = [str(tool["function"]["name"]) for tool in tools]
    if choice not in names:
        raise ValueError(f"tool_choice {choice!r} is none of the tools that are bound: {', '.join(names) or 'none'}")
    return {"type": "function", "function": {"name": choice}}


def tools_of(tools: Sequence[Any], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Tools of any kind that LangChain takes, in OpenAI's shape."""
    return [convert_to_openai_tool(tool, strict=strict) for tool in tools]


def schema_of(response_format: Any) -> Mapping[str, Any] | None:
    """The JSON Schema of OpenAI's `response_format`; None where it asks for text."""
    if not isinstance(response_format, Mapping):
        return None
    kind = response_format.get("type")
    if kind == "json_schema":
        schema: Mapping[str, Any] = response_format["json_schema"]["schema"]
        return schema
    return {"type": "object"} if kind == "json_object" else None


def message_of(reply: Reply, usage: Usage, details: Mapping[str, Any]) -> AIMessage:
    """A reply as LangChain has it. `usage` is what it came to in all, `details` what Governor says of it."""
    calls, invalid = _tool_calls(reply.tool_calls)
    return AIMessage(
        content=reply.text,
        additional_kwargs={"reasoning_content": reply.thinking} if reply.thinking else {},
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage_metadata(usage),
        response_metadata={
            "model_name": reply.model,
            "finish_reason": reply.finish_reason,
            "governor": dict(details),
        },
    )


def details_of(outcome: Outcome) -> dict[str, Any]:
    """What a message says of the step that it ended: JSON, so that checkpoints and traces can hold it."""
    accepted = next((one for one in reversed(outcome.attempts) if one.reply is outcome.reply), None)
    return {
        "step": outcome.step_id,
        "status": outcome.status,
        "rung": outcome.rung,
        "attempts": len(outcome.attempts),
        "tokens": outcome.spent.tokens,
        "micro_usd": outcome.spent.micros,
        "answer_tokens": accepted.usage.answer_tokens if accepted else 0,
    }


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Token counts as LangChain has them."""
    read = InputTokenDetails(cache_read=usage.cached_tokens)
    if usage.written_tokens:
        read["cache_creation"] = usage.written_tokens
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=read,
        output_token_details=OutputTokenDetails(reasoning=usage.thinking_tokens),
    )


def usage_of(metadata: Mapping[str, Any] | None) -> Usage | None:
    """Token counts of a LangChain message; None where it says none."""
    if not metadata or not (metadata.get("input_tokens") or metadata.get("output_tokens")):
        return None
    given = metadata.get("input_token_details") or {}
    return Usage(
        input_tokens=metadata.get("input_tokens", 0),
        output_tokens=metadata.get("output_tokens", 0),
        thinking_tokens=(metadata.get("output_token_details") or {}).get("reasoning") or 0,
        cached_tokens=given.get("cache_read") or 0,
        written_tokens=given.get("cache_creation") or 0,
    )


def reply_of(message: BaseMessage, usage: Usage | None, seconds: float = 0.0) -> Reply:
    """A LangChain message as a reply; its text without parts that are no text."""
    calls = [
        ToolCall(id=one.get("id") or "", name=one["name"], arguments=json.dumps(one["args"], ensure_ascii=False))
        for one in getattr(message, "tool_calls", ())
    ]
    broken = [
        ToolCall(id=one.get("id") or "", name=one.get("name") or "", arguments=one.get("args") or "")
        for one in getattr(message, "invalid_tool_calls", ())
    ]
    said = message.response_metadata
    return Reply(
        text=message.text if isinstance(message.text, str) else message.text(),
        thinking=str(message.additional_kwargs.get("reasoning_content") or ""),
        tool_calls=(*calls, *broken),
        finish_reason=_finish(said, bool(calls or broken)),
        usage=usage or Usage(),
        usage_known=usage is not None,
        seconds=seconds,
        model=str(said.get("model_name") or ""),
    )


def _finish(said: Mapping[str, Any], calls: bool) -> str:
    """The providers' words (`finish_reason`, Anthropic's `stop_reason`) as Governor's."""
    word = str(said.get("finish_reason") or said.get("stop_reason") or ("tool_calls" if calls else "stop"))
    return {"max_tokens": "length", "end_turn": "stop", "tool_use": "tool_calls"}.get(word, word)


def _tool_calls(calls: Sequence[ToolCall]) -> tuple[list[LangChainToolCall], list[InvalidToolCall]]:
    sound: list[LangChainToolCall] = []
    broken: list[InvalidToolCall] = []
    for call in calls:
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError as error:
            broken.append(_broken(call, str(error)))
            continue
        if isinstance(arguments, dict):
            sound.append(LangChainToolCall(id=call.id, name=call.name, args=arguments))
        else:
            broken.append(_broken(call, "arguments must be an object"))
    return sound, broken


def _broken(call: ToolCall, why: str) -> InvalidToolCall:
    return InvalidToolCall(type="invalid_tool_call", id=call.id, name=call.name, args=call.arguments, error=why)
