"""Rungs and calls for the tests of governor_vllm."""

from __future__ import annotations

from typing import Any

from governor.records import Call, Rung
from governor_vllm.backend import VllmBackend
from tests.governor_vllm.dialect import DialectServer

MODEL = "vllm/q"


def rung(**fields: Any) -> Rung:
    given: dict[str, Any] = {"id": "r", "model": MODEL, "thinking_tokens": 10, "answer_tokens": 20, **fields}
    return Rung(**given)


def call(text: str = "What is six times seven?", **fields: Any) -> Call:
    given: dict[str, Any] = {"step_id": "s", "rung": rung(), "timeout": 20, **fields}
    return Call(messages=({"role": "user", "content": text},), **given)


def backend(server: DialectServer, **engine: Any) -> VllmBackend:
    return VllmBackend({MODEL: {"api_base": server.url, "engine": engine}})
