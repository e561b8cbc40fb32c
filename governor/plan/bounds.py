"""Hard upper bounds of a call: what a reservation must hold so that spend can never pass a limit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from governor.ledger.sums import DIMENSIONS
from governor.plan import thought
from governor.records import Amount, Call, Limit, Message

MESSAGE_TOKENS = 16
"""Role marks and separators of one message in any known chat template."""

FIXED_TOKENS = 64
"""Beginning-of-text marks and the generation prompt."""

MEDIA_TOKENS = 16_384
"""Of one part that is not text and is given by reference (an image URL): its size can't be seen from here."""


def bound(call: Call, output: int | None = None) -> Amount:
    """The most one call can use; with `output`, where it is cut at that many output tokens.

    No byte-level tokenizer makes more tokens than bytes, so input tokens <= UTF-8 bytes of all texts plus
    the template's marks. Output: see `output_bound`, which backends must send. Price: the dearest of fresh input and
    of what is read from, or written to, a cache. Thought and answer may each take all of the output: no server keeps
    the two apart for sure.
    """
    price, given = call.rung.price, _input_bound(call)
    output = output_bound(call) if output is None else output
    return Amount(
        tokens=given + output,
        micros=math.ceil(given * price.dearest_input + output * price.output),
        millis=math.ceil(call.timeout * 1000),
        calls=1,
        input=given,
        thinking=output,
        answer=output,
    )


def output_bound(call: Call) -> int:
    """The most output tokens of one call: one that goes on with an answer may only use the answer reserve."""
    resumes_answer = bool(call.prefix) and not thought.is_open(call.prefix)
    return call.rung.answer_tokens if resumes_answer else call.rung.max_tokens


def parts_of(content: object) -> Iterator[Mapping[str, Any]]:
    """The parts of a message's content, and those inside of them: of a tool's result, or of a document's source."""
    waiting = [content]
    for held in waiting:  # it grows on the way: no recursion, as deep as a client likes to go
        if isinstance(held, str) or not isinstance(held, Iterable):
            continue
        for part in held:
            if isinstance(part, Mapping):
                yield part
                source = part.get("source")
                waiting += [part.get("content"), source.get("content") if isinstance(source, Mapping) else None]


def over(amount: Amount, allowed: Limit | Amount) -> str:
    """The first dimension in which `amount` passes what is allowed, as words; empty if it fits."""
    for name in DIMENSIONS:
        ceiling: int | None = getattr(allowed, name)
        asked: int = getattr(amount, name)
        if ceiling is not None and asked > ceiling:
            return f"up to {asked} {name} where {ceiling} are allowed"
    return ""


def _input_bound(call: Call) -> int:
    total = FIXED_TOKENS + sum(map(_message_bound, call.messages))
    total += sum(_json_bytes(tool) + MESSAGE_TOKENS for tool in call.tools)
    if call.response_schema is not None:
        total += _json_bytes(call.response_schema) + MESSAGE_TOKENS
    if call.rung.instruction:  # may become a message of its own
        total += _bytes(call.rung.instruction) + MESSAGE_TOKENS
    return total + _bytes(call.prefix)


def _message_bound(message: Message) -> int:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return _bytes(content) + MESSAGE_TOKENS
    return _json_bytes(message) + MESSAGE_TOKENS + MEDIA_TOKENS * _media(content)


def _media(content: object) -> int:
    return sum(1 for part in parts_of(content) if part.get("type", "text") != "text")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bytes(value: object) -> int:
    """Bytes of the value as JSON, at least those of any template that shows its keys and values."""
    return _bytes(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    """Read-only mappings and other containers as JSON can hold them."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, (set, frozenset)) else str(value)
