"""Whole recorded thoughts, read again by the rules that end one as stuck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from governor.errors import RecordError
from governor.learn.looks import STRICT
from governor.learn.schema import Row
from governor.learn.tabulate import group_of
from governor.stops.marks import Marks
from governor.stops.settings import MAX_TOP, Stops
from governor.stops.tokens import Token
from governor.stops.watch import Watch

REPEATS = (64, 48, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2)
"""Repetitions after which a thought may be ended, from hardly ever to eagerly."""

TRACE = "logprobs"
"""The field of a row that holds its tokens: `content` of chat completions, a list of token, logprob, top_logprobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """One whole reply with its label: `tokens` where they were recorded, else its texts."""

    group: str
    right: bool
    thinking: str = ""
    answer: str = ""
    tokens: tuple[Token, ...] = ()


def read_thoughts(rows: Iterable[Row], rung: str | None = None) -> tuple[Thought, ...]:
    """The labelled replies of one rung that no rule ended and whose thought or tokens were recorded.

    RecordError where there is none, or where several rungs are recorded and none is named: how a model repeats itself,
    and how sure it is of its tokens, is its own.
    """
    found: list[tuple[str, Thought]] = []
    texts: dict[str, str] = {}
    for row in rows:
        texts.setdefault(row.qid, row.question or "")
        if rung in (None, row.rung) and row.label is not None and row.alone and not row.fields.get("stopped"):
            thought = _thought(row, texts[row.qid])
            if thought.tokens or thought.thinking:  # an answer alone, often one letter, tells nothing of thoughts
                found.append((row.rung, thought))
    rungs = sorted({name for name, _ in found})
    if not rungs:
        raise RecordError("no reply here has a label and a recorded thought ('thinking', or tokens in 'logprobs')")
    if len(rungs) > 1:
        raise RecordError(f"replies of {len(rungs)} rungs are recorded here: name one with --rung ({', '.join(rungs)})")
    return tuple(thought for _, thought in found)


def repeats(thought: Thought) -> int:
    """The most repetitions of REPEATS at which `repeat` would have ended this; 0 where none would.

    What ends a thought at many repetitions ends it at fewer, too: most are done with after one reading, and of the rest
    the place is found by halving.
    """
    if not _ends(thought, Stops(repeat=REPEATS[-1])):
        return 0
    low, high = 0, len(REPEATS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _ends(thought, Stops(repeat=REPEATS[middle])) else (middle + 1, high)
    return REPEATS[low]


def alternatives(thoughts: Iterable[Thought]) -> int:
    """Of the likeliest tokens that were recorded in each place, the fewest; places that tell none count for nothing.

    A token's confidence depends on how many it is the mean of: a threshold is fitted on as many everywhere.
    """
    told = {len(token.top) for thought in thoughts for token in thought.tokens} - {0}
    return min({MAX_TOP, *told})


def lowest_group(thought: Thought, window: int, top: int) -> float | None:
    """The least mean confidence of a full window; None where no window was full or no log-probability is known.

    Thought and answer count alike, as on the client; the engine judges the thought alone, and inside code or a tool
    call the rule holds back, so that it can only end fewer thoughts than this says.
    """
    watch = Watch(Stops(group=0.0, group_window=window, group_top=top))
    _read(watch, thought)
    return watch.lowest


def _ends(thought: Thought, stops: Stops) -> bool:
    return bool(_read(Watch(stops), thought))


def _read(watch: Watch, thought: Thought) -> str:
    if not thought.tokens:
        return watch.read(thought.thinking, thinking=True) or watch.read(thought.answer, thinking=False)
    text = "".join(token.text for token in thought.tokens)
    marks = Marks()
    inside = marks.start not in text  # else the template, or the server, wrote the mark
    return watch.read(text, thinking=inside, tokens=thought.tokens)


def _thought(row: Row, question: str) -> Thought:
    return Thought(
        group=group_of(row.qid, question),
        right=(row.label or 0.0) >= STRICT,
        thinking=row.thinking,
        answer=row.answer_text or "",
        tokens=_tokens(row),
    )


def _tokens(row: Row) -> tuple[Token, ...]:
    told = row.fields.get(TRACE)
    content = told.get("content") if isinstance(told, dict) else told
    if content is None:
        return ()
    try:
        return tuple(map(_token, content))
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        said = "must be a list of {token, logprob, top_logprobs}"
        raise RecordError(f"{row.place}: {TRACE}: {said}, as chat completions give it") from fault


def _token(entry: Mapping[str, Any]) -> Token:
    likeliest: Sequence[Mapping[str, Any]] = entry.get("top_logprobs") or ()
    return Token(
        str(entry["token"]),
        float(entry["logprob"]),
        tuple((str(one["token"]), float(one["logprob"])) for one in likeliest),
    )
