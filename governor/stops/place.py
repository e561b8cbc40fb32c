"""Where in its output a row stands: in a thought, a tool call, a code fence, JSON; and how much it has thought."""

from __future__ import annotations

from dataclasses import dataclass

from governor.stops.arrays import Array, Namespace, flag, highest_so_far, index
from governor.stops.marks import (
    END,
    FENCE,
    MARK,
    NODE_AT,
    PARAGRAPH,
    SENTENCE,
    START,
    TOOL,
    TOOL_END,
    braces_of,
)

HOLD = 256
"""Tokens after which an open fence or brace is taken for prose: half an interval, a fence that was forgotten."""

_PASSES = 8
"""How often `left_open` takes something for prose before it goes on as if the rest were none."""


@dataclass(frozen=True, slots=True)
class Place:
    """State (rows,): all float64, truth as 1 and 0. `count` are the tokens of thought, `made` all that were generated.

    `node` is the state of the marks' automaton. `open_for` are tokens since a fence or a brace was opened.
    """

    node: Array
    inside: Array
    tool: Array
    fence: Array
    depth: Array
    open_for: Array
    sentence: Array
    count: Array
    made: Array


def moved(xp: Namespace, place: Place, packed: Array, generated: Array, *, anywhere: bool = False) -> Place:
    """The place after one more token, whose entry in the marks' table is `packed`.

    `generated` (rows,) is 1 for tokens that the model made: those of the prompt are not counted. The mark that ends a
    thought is its last token. A tool call ends it too. With `anywhere` fences and braces count outside thoughts, too.
    """
    mark = packed & MARK
    was = place.inside > 0
    tool = ((place.tool > 0) | (mark == TOOL)) & (mark != TOOL_END)
    inside = (was & (mark != END) & (mark != TOOL)) | ((mark == START) & (place.tool == 0))
    within = inside | anywhere
    fence = within & ((place.fence > 0) != ((packed & FENCE) > 0))
    depth = (place.depth + braces_of(packed)).clip(0.0) * flag(xp, within)
    open_for = (place.open_for + 1.0) * flag(xp, fence | (depth > 0))
    prose = open_for > HOLD
    return Place(
        node=flag(xp, packed >> NODE_AT),
        inside=flag(xp, inside),
        tool=flag(xp, tool),
        fence=flag(xp, fence & ~prose),
        depth=depth * flag(xp, ~prose),
        open_for=open_for * flag(xp, ~prose),
        sentence=flag(xp, (packed & SENTENCE) > 0),
        count=place.count + generated * flag(xp, was),
        made=place.made + generated,
    )


def passed(xp: Namespace, place: Place, tokens: Array, node: Array) -> Place:
    """The place after so many generated `tokens` (rows,) that brought no event (see `marks.events`), at a new `node`.

    The same as `moved` by each of them, but for `sentence`, which is not known.
    """
    open_for = (place.open_for + tokens) * flag(xp, (place.fence > 0) | (place.depth > 0))
    held = flag(xp, open_for <= HOLD)
    return Place(
        node=flag(xp, node),
        inside=place.inside,
        tool=place.tool,
        fence=place.fence * held,
        depth=place.depth * held,
        open_for=open_for * held,
        sentence=0.0 * place.sentence,
        count=place.count + tokens * place.inside,
        made=place.made + tokens,
    )


def left_open(xp: Namespace, packed: Array, at: Array, since: Array) -> tuple[Array, Array, Array]:
    """Fence, depth and `open_for` behind the last of (length,) tokens of one reply, as `moved` by each of them.

    `at` numbers the tokens from 1, `since` are those of the thought that is open. What is taken for prose takes a pass
    over all of them each time. How many passes are made depends on the length alone, so that no device is asked.
    """
    for _ in range(min(len(at) // HOLD, _PASSES)):
        over = _open(xp, packed, at, since)[2] > HOLD
        first = len(at) - (over * (len(at) - at)).max()
        since = since & ((at > first) | ~over.any())
    fence, depth, open_for = _open(xp, packed, at, since)
    return fence[-1], depth[-1], open_for[-1]


def _open(xp: Namespace, packed: Array, at: Array, since: Array) -> tuple[Array, Array, Array]:
    """The same behind each token, with nothing taken for prose."""
    fence = ((((packed & FENCE) > 0) & since).cumsum(0) % 2) > 0
    depth = (braces_of(packed) * since).cumsum(0)
    depth = depth + highest_so_far(xp, -depth).clip(0)
    is_open = fence | (depth > 0)
    return fence, depth, (at - highest_so_far(xp, at * ~is_open)) * is_open


def free(place: Place, *, anywhere: bool = False) -> Array:
    """Whether a thought may be ended here: inside it, and in no tool call, fence or JSON."""
    clear = (place.tool == 0) & (place.open_for == 0)
    return clear if anywhere else clear & (place.inside > 0)


def paragraph(packed: Array) -> Array:
    """Whether a token completed a blank line."""
    return (packed & PARAGRAPH) > 0


def node(xp: Namespace, place: Place) -> Array:
    """The automaton's state as an index into its table."""
    return index(xp, place.node)
