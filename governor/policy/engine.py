"""What a policy may ask of an engine that Governor reaches without a provider between them (models `vllm/NAME`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from governor.policy.part import Part
from governor.policy.scalars import Text

_Number: TypeAlias = Annotated[int, Field(ge=1, le=1_000)]

Argument: TypeAlias = str | int | float | Annotated[tuple[str | int | float, ...], Field(strict=False)]
"""What vLLM takes as the value of an extra argument: no truth values, nothing nested."""


class RepetitionSpec(Part):
    """A reply ends where a pattern of tokens comes again and again."""

    max_pattern_size: _Number = 16
    """Longest pattern that is looked for, in tokens."""
    min_pattern_size: _Number = 1
    """Shortest pattern, in tokens."""
    min_count: Annotated[int, Field(ge=2, le=1_000)] = 8
    """How often the pattern must come in a row."""


class EngineSpec(Part):
    """What is asked of a vLLM server, each proved by a canary before the first call."""

    fallback: Literal["error", "stream", "prompt"] = "error"
    """Where the server keeps no thinking budget: refuse the rung; cut the stream there and ask for the answer; or tell
    the model in its prompt, which binds nobody."""
    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    """The application's: lower goes first in the queue, and gives way last when the engine is full."""
    repetition: RepetitionSpec | None = None
    """End replies that loop."""
    xargs: Mapping[Text, Argument] = Field(default_factory=dict, examples=[{"governor_repeat": 4}])
    """Arguments for the server's logits processors, as they are."""
