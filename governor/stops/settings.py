"""What may end a thought: the thresholds of one request, the same in policies, on the wire and in the engine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "governor_"
"""What the keys of `vllm_xargs` begin with."""

MIN_WINDOW, MAX_WINDOW = 32, 4096
"""Window of the group rule, in tokens; it is longer than any draft of speculative decoding."""
MAX_PERIOD = 64
"""Longest pattern that the repetition rule looks for, in tokens."""
MAX_STEPS = 8
"""Longest window of the step rule, in steps."""
MAX_TOP = 20
"""Most alternatives a token that the group rule reads; providers report no more."""
MAX_PHRASE = 400
"""Longest phrase, in characters."""

_LARGEST = 10_000_000
_SHOWN = 60  # letters of a wrong value
_HALF = re.compile("[\ud800-\udfff]")  # which no tokenizer takes
_QUADRANT = ("low_confidence", "high_confidence", "low_variance", "high_variance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """The stop rules of one request; what is None or 0 is off. Lengths are tokens, confidences probabilities.

    `budget`, `least`, `reserve`: the most and fewest tokens of thought, and the tokens of `max_tokens` kept for the
    answer. `phrase` leads over to the answer where the budget ends the thought, `again` back into it before `least`.
    `margin`: ThinkBrake's tau in units of the temperature, `wide_margin` the same while the model hesitates.
    `group`: DeepConf's threshold s, over `group_window` tokens and `group_top` alternatives. The four edges of the
    quadrant and `step_window` are ReBalance's; sureness is suspicious while fewer than `few` tokens were thought.
    `repeat`: how often a pattern of at most `repeat_period` tokens must stand in a row, over `repeat_tokens` or more.
    """

    budget: int | None = None
    least: int = 0
    reserve: int = 0
    phrase: str | None = None
    again: str | None = None
    margin: float | None = None
    wide_margin: float | None = None
    group: float | None = None
    group_window: int = 2048
    group_top: int = MAX_TOP
    low_confidence: float | None = None
    high_confidence: float | None = None
    low_variance: float | None = None
    high_variance: float | None = None
    step_window: int = 2
    few: int = 0
    repeat: int | None = None
    repeat_period: int = 32
    repeat_tokens: int = 24

    def __post_init__(self) -> None:
        for key, message in self.flaws():
            raise ValueError(f"{key}: {message}")

    def flaws(self) -> Iterator[tuple[str, str]]:
        """What is wrong, as (key, message)."""
        for key, (least, most) in _RANGES.items():
            value = getattr(self, key)
            if value is not None and not least <= value <= most:
                yield key, f"{_shown(value)} is not within {least:g} and {most:g}"
        for key in ("phrase", "again"):
            text = getattr(self, key)
            if text is not None and not 0 < len(text) <= MAX_PHRASE:
                yield key, f"must have 1 to {MAX_PHRASE} characters"
            elif text is not None and _HALF.search(text):
                yield key, "holds half a letter (a lone surrogate)"
        yield from self._contradictions()

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.budget is not None and self.least > self.budget:
            yield "least", f"{self.least} is more than the budget of {self.budget}"
        if self.wide_margin is not None and (self.margin is None or self.wide_margin < self.margin):
            yield "wide_margin", "must come with a margin that is no wider"
        edges = [getattr(self, key) for key in _QUADRANT]
        if any(edge is None for edge in edges) and any(edge is not None for edge in edges):
            yield _QUADRANT[edges.index(None)], "the step rule needs all four edges of its quadrant"
        for low, high in (_QUADRANT[:2], _QUADRANT[2:]):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                yield low, f"{least} is more than {high} ({most})"

    @property
    def reads_confidence(self) -> bool:
        """Whether any rule reads log-probabilities."""
        return self.margin is not None or self.group is not None or self.steps

    @property
    def alternatives(self) -> int:
        """How many of the likeliest tokens in each place the confidence rules read."""
        return MAX_TOP if self.group is None else self.group_top

    @property
    def steps(self) -> bool:
        """Whether steps are diagnosed."""
        return self.low_confidence is not None

    @property
    def acts(self) -> bool:
        """Whether anything is governed at all."""
        return (
            self.budget is not None
            or self.repeat is not None
            or self.reads_confidence
            or self.least > 0
            or self.reserve > 0
        )

    def args(self) -> dict[str, str | int | float]:
        """The settings that differ from the defaults, as `vllm_xargs`."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return {PREFIX + name: value for name, value in held.items() if value != _DEFAULTS[name]}

    @classmethod
    def read(cls, args: Mapping[str, Any] | None) -> Stops | None:
        """Settings out of `vllm_xargs`, None where it has no key of ours. ValueError in one line for any mistake."""
        given = {key: value for key, value in (args or {}).items() if key.startswith(PREFIX)}
        if not given:
            return None
        values = {key.removeprefix(PREFIX): value for key, value in given.items()}
        for name, value in values.items():
            if name not in _KINDS:
                raise ValueError(
                    f"{PREFIX}{repr(name)[1:-1]}: unknown; known are {', '.join(PREFIX + one for one in _KINDS)}"
                )
            if not _fits(_KINDS[name], value):
                raise ValueError(f"{PREFIX}{name}: {_shown(value)} is not {_WORDS[_KINDS[name]]}")
        try:
            return cls(**values)
        except ValueError as mistake:
            raise ValueError(f"{PREFIX}{mistake}") from None


_RANGES: Mapping[str, tuple[float, float]] = {
    "budget": (0, _LARGEST),
    "least": (0, _LARGEST),
    "reserve": (0, _LARGEST),
    "margin": (0, 1000),
    "wide_margin": (0, 1000),
    "group": (0, 100),
    "group_window": (MIN_WINDOW, MAX_WINDOW),
    "group_top": (1, MAX_TOP),
    **dict.fromkeys(_QUADRANT, (0, 1)),
    "step_window": (2, MAX_STEPS),
    "few": (0, _LARGEST),
    "repeat": (2, 1000),
    "repeat_period": (1, MAX_PERIOD),
    "repeat_tokens": (1, 10_000),
}

_TEXTS = ("phrase", "again")
_REALS = ("margin", "wide_margin", "group", *_QUADRANT)
_DEFAULTS: Mapping[str, Any] = {one.name: one.default for one in fields(Stops)}
_KINDS: Mapping[str, type] = {name: str if name in _TEXTS else float if name in _REALS else int for name in _DEFAULTS}
_WORDS: Mapping[type, str] = {str: "text", int: "a whole number", float: "a number"}


def _fits(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and -math.inf < value < math.inf  # isfinite fails at 10**400
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    """A value as an error shows it: on one line, the first of a long one."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
