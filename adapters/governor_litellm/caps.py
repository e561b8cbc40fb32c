"""The client's own limits, and the ladder that keeps inside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from governor.plan.dialects import EFFORTS, Dialect
from governor.records import Rung

LEAST_ANSWER = 64
"""Tokens that must be left for the answer of a rung that thinks, where it reserves as many."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What the client allows: output tokens, an effort word, thinking tokens (0: none). None is no limit."""

    max_tokens: int | None = None
    effort: str | None = None
    thinking: int | None = None

    def __post_init__(self) -> None:
        if self.effort is not None and self.effort not in EFFORTS:
            object.__setattr__(self, "effort", "")  # a client's text, of any length: all that counts is that it is none


@lru_cache(maxsize=1024)
def fitting(
    ladder: tuple[Rung, ...], caps: Caps, dialects: tuple[Dialect, ...], least: Callable[[Dialect], int]
) -> tuple[Rung, ...]:
    """The ladder inside the client's limits. `dialects` are the rungs', `least` tells what is asked for in any case.

    The same limits give the very same rungs, so that what is known of their ladder is found at once.
    """
    spoken = {rung.model: dialect for rung, dialect in zip(ladder, dialects, strict=True)}
    rungs = capped(ladder, caps, lambda rung: spoken[rung.model])
    return tuple(held(rung, least(spoken[rung.model])) for rung in rungs)


def capped(ladder: Sequence[Rung], caps: Caps, dialect: Callable[[Rung], Dialect]) -> tuple[Rung, ...]:
    """The rungs that fit, with shorter answers where they must be; where none does, the least one cut to size."""
    if caps == Caps():
        return tuple(ladder)
    kept = [fitted for rung in ladder if (fitted := _fitted(rung, caps, dialect(rung))) is not None]
    if kept:
        return tuple(kept)
    least = min(ladder, key=lambda rung: (_rank(rung.effort), rung.thinking_tokens))
    return (_cut(least, caps, dialect(least)),)


def held(rung: Rung, least: int) -> Rung:
    """The rung with room for the output that will be asked for in any case."""
    return _answering(rung, max(rung.answer_tokens, least - rung.thinking_tokens))


def _answering(rung: Rung, tokens: int) -> Rung:
    return rung if rung.answer_tokens == tokens else replace(rung, answer_tokens=tokens)


def _fitted(rung: Rung, caps: Caps, dialect: Dialect) -> Rung | None:
    if caps.thinking is not None and rung.thinking_tokens > caps.thinking:
        return None
    if caps.thinking == 0:
        if rung.effort not in (None, "none"):
            return None
        rung = replace(rung, effort=_off(dialect))
    if caps.effort is not None:
        if _rank(rung.effort) > _rank(caps.effort):
            return None
        if rung.effort is None and dialect.thinks_by_default and caps.effort in dialect.efforts:
            rung = replace(rung, effort=caps.effort)  # it would think as hard as the provider likes
    if caps.max_tokens is None:
        return rung
    room = caps.max_tokens - rung.thinking_tokens
    needed = min(rung.answer_tokens, LEAST_ANSWER) if rung.thinking_tokens else 1
    return _answering(rung, min(rung.answer_tokens, room)) if room >= needed else None


def _cut(rung: Rung, caps: Caps, dialect: Dialect) -> Rung:
    """The rung without its reserve of thinking: the client left no room for both."""
    effort = _off(dialect) if caps.thinking == 0 else rung.effort
    if caps.effort is not None and _rank(effort) > _rank(caps.effort):
        effort = caps.effort if caps.effort in dialect.efforts else None
    answer = rung.answer_tokens if caps.max_tokens is None else min(rung.max_tokens, caps.max_tokens)
    return replace(rung, effort=effort, thinking_tokens=0, answer_tokens=max(1, answer))


def _off(dialect: Dialect) -> str | None:
    """The word by which a model is told not to think; None where it has none."""
    return "none" if dialect.off is not None else None


def _rank(effort: str | None) -> int:
    """How hard a word makes a model think; one that is not known counts as no word."""
    return EFFORTS.index(effort) if effort in EFFORTS else -1
