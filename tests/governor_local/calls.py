"""Calls as tests make them."""

from __future__ import annotations

from typing import Any

from governor.records import Call, Rung

STORY = "Tell me a long story about a lighthouse."
RAIN = "Explain how rain forms, in three sentences."


def ask(prompt: str, *, tokens: int = 40, thinking: int = 0, rung: dict[str, Any] | None = None, **call: Any) -> Call:
    values: dict[str, Any] = {"model": "local/smollm2-135m", "answer_tokens": tokens, "thinking_tokens": thinking}
    values |= rung or {}
    return Call(step_id="s", rung=Rung(id="r", **values), messages=({"role": "user", "content": prompt},), **call)
