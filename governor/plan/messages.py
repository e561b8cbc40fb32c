"""The messages that a call sends: the step's own, the rung's instruction, and the text to go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from governor.plan.dialects import Dialect
from governor.records import Call, Message


def messages_of(call: Call, dialect: Dialect | None = None) -> list[dict[str, Any]]:
    """Messages for the wire, as new lists and dicts.

    The instruction ends the first system message (one is put in front if there is none). A prefix becomes the trailing
    assistant message, marked as the dialect wants it.
    """
    messages = [dict(message) for message in call.messages]
    if call.rung.instruction:
        messages = _instructed(messages, call.rung.instruction)
    if call.prefix:
        resume = dialect.continuation if dialect is not None else None
        marks: Mapping[str, Any] = resume.message if resume is not None else {}
        messages.append({"role": "assistant", "content": call.prefix, **marks})
    return messages


def without_echo(text: str, call: Call, dialect: Dialect) -> str:
    """Only what the model added: some servers repeat the prefix in front of it."""
    echoes = dialect.continuation is not None and dialect.continuation.echoes
    return text.removeprefix(call.prefix) if echoes else text


def _instructed(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    for message in messages:
        if message.get("role") == "system":
            message["content"] = _appended(message, instruction)
            return messages
    return [{"role": "system", "content": instruction}, *messages]


def _appended(message: Message, instruction: str) -> Any:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [*content, {"type": "text", "text": instruction}]
    return f"{content}\n\n{instruction}" if content else instruction
