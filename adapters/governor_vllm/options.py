"""How a policy says a vLLM model is reached, and what may stand in for what its server does not honour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from governor.errors import PolicyError, Problem

Fallback = Literal["error", "stream", "prompt"]
"""What becomes of a rung whose thinking the server can't limit: refused; the stream is cut at the budget and the answer
asked for; or the model is told how much to think, which binds nobody."""

PREFIX = "vllm/"
ADDRESS = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """When a loop ends a reply: a pattern of `min_pattern_size` to `max_pattern_size` tokens, `min_count` times."""

    max_pattern_size: int = 16
    min_pattern_size: int = 1
    min_count: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """One model's `engine` in the policy.

    `priority` is the application's: lower goes first, in vLLM's queue and when the engine is full (see
    `governor_vllm.load`). `xargs` go to the server's logits processors as they are.
    """

    fallback: Fallback = "error"
    priority: int = 0
    repetition: Repetition | None = None
    xargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How one model is reached, and its engine's options. Without `api_base` a server on this machine is asked."""

    api_base: str = ADDRESS
    api_key_env: str | None = None
    wire: str | None = None
    engine: EngineOptions = EngineOptions()

    @classmethod
    def read(cls, model: str, values: Mapping[str, Any]) -> ModelOptions:
        """Options from a mapping. PolicyError names a key that is none."""
        known = {item.name for item in fields(cls)}
        if strange := sorted(set(values) - known):
            hint = f"one of {', '.join(sorted(known))}"
            raise PolicyError(
                [Problem(f"unknown option '{key}'", field=f"models.{model}", hint=hint) for key in strange]
            )
        given: dict[str, Any] = {**values, "engine": _engine(values.get("engine", {}))}
        return cls(**given)


def _engine(values: Mapping[str, Any] | EngineOptions) -> EngineOptions:
    if isinstance(values, EngineOptions):
        return values
    rule = values.get("repetition")
    given: dict[str, Any] = {**values, "repetition": Repetition(**rule) if isinstance(rule, Mapping) else rule}
    return EngineOptions(**given)
