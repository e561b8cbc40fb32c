"""Where a row stands, told token by token, and told at once of tokens that bring no event."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.stops.arrays import names
from governor.stops.marks import FENCE, MARK, NODE_AT, TOOLS, Marks, braces_of, events
from governor.stops.place import HOLD, Place, free, moved, passed

WORDS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "```", "`", "{", "}"),
    *("<", "think", "a", ". ", "\n", "\n\n"),
)
TABLE = Marks().among(WORDS).table(WORDS)
EVENTS = events(TABLE)
ONE = np.ones(1)
TEXTS = st.lists(st.tuples(st.integers(0, len(WORDS) - 1), st.integers(1, 2 * HOLD)), max_size=12)
"""Tokens, and how often each comes in a row."""


def begun() -> Place:
    return Place(*(np.zeros(1) for _ in names(Place)))


def after(place: Place, token: int) -> Place:
    return moved(np, place, TABLE[place.node.astype(int), token], ONE)


def told(place: Place) -> list[float]:
    """All that is known of it, but whether a sentence ends here."""
    return [float(getattr(place, name)[0]) for name in names(Place) if name != "sentence"]


@given(runs=TEXTS)
def test_tokens_without_an_event_may_be_told_at_once(runs: list[tuple[int, int]]) -> None:
    each = at_once = begun()
    node, waiting = 0, 0
    for token in (token for token, times in runs for _ in range(times)):
        each = after(each, token)
        if EVENTS[node, token]:
            at_once = after(passed(np, at_once, np.array([waiting]), np.array([node])), token)
            waiting = 0
        else:
            waiting += 1
        node = int(TABLE[node, token] >> NODE_AT)
    assert told(passed(np, at_once, np.array([waiting]), np.array([node]))) == told(each)


@pytest.mark.parametrize(("opens", "closes"), TOOLS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_tool_call_ends_the_thought_and_nothing_is_forced_inside_it(opens: str, closes: str, cut: bool) -> None:
    def written(text: str, place: Place) -> Place:
        for word in text if cut else [text]:
            place = moved(np, place, table[place.node.astype(int), words.index(word)], ONE)
        return place

    words = ["<think>", "a", opens, closes, *dict.fromkeys(opens + closes)]
    table = Marks().among(words).table(words)
    thinking = written("a", moved(np, begun(), table[np.zeros(1, dtype=int), words.index("<think>")], ONE))
    called = written(opens, thinking)
    over = written(closes, called)
    assert [bool(free(place, anywhere=True)[0]) for place in (thinking, called, over)] == [True, False, True]
    assert [bool(free(place)[0]) for place in (thinking, called, over)] == [True, False, False]


@pytest.mark.parametrize("opened", ["```", "{"])
def test_what_was_opened_is_taken_for_prose_after_a_while(opened: str) -> None:
    inside = after(after(begun(), WORDS.index("<think>")), WORDS.index(opened))
    still, prose = (passed(np, inside, np.array([tokens]), np.zeros(1)) for tokens in (HOLD - 1, HOLD))
    assert (still.open_for[0], prose.open_for[0], prose.fence[0], prose.depth[0]) == (HOLD, 0, 0, 0)


def test_an_event_is_what_completes_a_mark_or_a_fence_or_holds_braces() -> None:
    for node, row in enumerate(TABLE):
        for token, packed in enumerate(row):
            expected = bool(packed & MARK) or bool(packed & FENCE) or braces_of(packed) != 0
            assert EVENTS[node, token] == expected
    assert [word for at, word in enumerate(WORDS) if EVENTS[0, at]] == [
        "<think>", "</think>", "<tool_call>", "</tool_call>", "```", "{", "}",
    ]  # fmt: skip
