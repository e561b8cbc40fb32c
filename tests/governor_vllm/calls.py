"""Rungs and calls for the tests of governor_vllm."""

from __future__ import annotations

from typing import Any

from governor.records import Call, Rung
from governor_vllm.backend import VllmBackend
from tests.governor_vllm.dialect import DialectServer

MODEL = "vllm/q"


def rung(**fields: Any) -> Rung:
    return Rung(**{"id": "r", "model": MODEL, "thinking_tokens": 10, "answer_tokens": 20, **fields})


def call(text: str = "What is six times seven?", **fields: Any) -> Call:
    given = fields.pop("rung", None) or rung()
    return Call(
        **{"step_id": "s", "rung": given, "messages": ({"role": "user", "content": text},), "timeout": 20, **fields}
    )


def backend(server: DialectServer, **engine: Any) -> VllmBackend:
    return VllmBackend({MODEL: {"api_base": server.url, "engine": engine}})
