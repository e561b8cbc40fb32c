"""Rungs and calls for the tests marked `engine`, and the tokens that an engine really made of them."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

from governor.records import Call, Reply, Rung
from governor_vllm.backend import VllmBackend
from governor_vllm.probe import Probe, chat_tokens, completion_tokens
from governor_vllm.request import COMPLETIONS, Request, Target, request_of
from tests.governor_vllm.engines import Engine

MODEL = "vllm/q"


def tell(figures: str) -> None:
    """What was measured, for who reads the suite's output (pytest -s)."""
    sys.stdout.write(f"{figures}\n")


def rung(**fields: Any) -> Rung:
    given: dict[str, Any] = {"thinking_tokens": 24, "answer_tokens": 16, "temperature": 0.0, **fields}
    return Rung(id="r", model=MODEL, **given)


def call(text: str = "What is six times seven?", **fields: Any) -> Call:
    given: dict[str, Any] = {"step_id": "s", "rung": rung(), "timeout": 120, **fields}
    return Call(messages=({"role": "user", "content": text},), **given)


def tokens_of(backend: VllmBackend, asked: Call) -> list[str]:
    """The very tokens of a call's request, where the model may not end its turn before the budget is used up."""
    target, probe = parts(backend)
    request: Request = request_of(asked, target, probe)
    plain = {key: value for key, value in request.body.items() if not key.startswith("stream")}
    done = request.path == COMPLETIONS
    answer = probe.link.post(
        request.path, {**plain, "logprobs": 1 if done else True, "min_tokens": asked.rung.thinking_tokens}, 120
    )
    return completion_tokens(answer) if done else chat_tokens(answer)


def parts(backend: VllmBackend) -> tuple[Target, Probe]:
    behind = backend._engine(MODEL)
    return behind.target(), behind.probe()


def cut_after(backend: VllmBackend, asked: Call, tokens: int) -> Reply:
    """The reply of a stream that is left after so many tokens."""
    pieces = []
    with closing(backend.stream(asked)) as stream:  # type: ignore[type-var]  # a generator
        for piece in stream:
            assert not isinstance(piece, Reply)
            pieces.append(piece)
            if piece.usage is not None and piece.usage.output_tokens >= tokens:
                break
    usage = pieces[-1].usage
    assert usage is not None
    return Reply(text="", thinking="".join(one.thinking for one in pieces), finish_reason="length", usage=usage)


def backend_of(engine: Engine, **options: Any) -> VllmBackend:
    return VllmBackend({MODEL: {"api_base": engine.url, "engine": options}})
