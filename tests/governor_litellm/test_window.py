"""The hold-back window without a proxy."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor_litellm.window import LONGEST, Window, sentence_end
from governor_litellm.wires.sse import Blocks

TEXTS = st.lists(
    st.sampled_from(["a", " ", ". ", "b. c", "\n\n", "?", '" ', "bad", "\u3002", "x" * 90, ""]), max_size=40
)


def never(_: str) -> str:
    return ""


def bad(text: str) -> str:
    return "bad" if "bad" in text else ""


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("Half a sentence", 0),
        ("It is 3.14 so far", 0),
        ("One. Two", len("One. ")),
        ('"One!" Two? Three', len('"One!" Two? ')),
        ("**One.**\nTwo", len("**One.**\n")),
        ("A head\n\nand more", len("A head\n\n")),
        ("\u4e00\u3002\u4e8c", 2),
        ("One.", 0),
        ("word " * 80, 400),
        ("word " * 79 + "wordwordword", 395),
        ("x" * LONGEST, LONGEST),
        ("x" * (LONGEST - 1), 0),
    ],
)
def test_where_a_sentence_ends(text: str, end: int) -> None:
    assert sentence_end(text) == end


@given(TEXTS, st.lists(st.booleans(), max_size=40))
def test_chunks_leave_whole_in_order_and_only_when_cleared(texts: list[str], waiting: list[bool]) -> None:
    window, shown = Window(bad), list[int]()
    waits = [*waiting, *[False] * len(texts)][: len(texts)]
    for number, (text, wait) in enumerate(zip(texts, waits, strict=True)):
        shown += window.take(number, text, waits=wait)
        assert shown == list(range(window.shown))
        assert not window.shown or not bad("".join(texts[: window.shown]))
        if window.doubt:
            break
    assert not any(waits[: window.shown])
    assert not shown or any(texts[: len(shown)]), "nothing goes out before there is text"


@given(TEXTS)
def test_what_is_never_doubted_goes_out_as_far_as_sentences_reach(texts: list[str]) -> None:
    window, shown, end = Window(never), list[int](), 0
    for number, text in enumerate(texts):
        shown += window.take(number, text, waits=False)
        end += sentence_end("".join(texts[: number + 1])[end:]) if text else 0
    free = [upto for upto in accumulate(map(len, texts)) if upto <= end]
    assert len(shown) == len(free) * any(free)


def test_nothing_leaves_after_a_chunk_that_waits() -> None:
    window = Window(never)
    assert list(window.take("a", "One. ", waits=False)) == ["a"]
    assert not list(window.take("call", "", waits=True))
    assert not list(window.take("b", "Two. ", waits=False))


def test_a_doubt_at_the_end_is_one_too() -> None:
    window = Window(bad)
    assert list(window.take("a", "One. ", waits=False)) == ["a"]
    assert not list(window.take("b", "it is bad", waits=False))
    before = window.doubt
    window.close()
    assert (before, window.doubt) == ("", "bad")


def test_a_doubt_is_asked_for_once_a_sentence() -> None:
    asked: list[str] = []

    def noted(text: str) -> str:
        asked.append(text)
        return ""

    window = Window(noted)
    for word in ("One ", "two. ", "Three ", "four. "):
        list(window.take(word, word, waits=False))
    assert asked == ["One two. ", "One two. Three four. "]


@given(st.lists(st.integers(0, 60), max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_come_whole_however_they_are_cut(cuts: list[int], line: bytes) -> None:
    events = [b"event: a" + line + b"data: {}" + line * 2, b": ping" + line * 2, b"data: 2" + line * 2]
    stream, cut = b"".join(events), Blocks()
    places = sorted({0, len(stream), *(min(place, len(stream)) for place in cuts)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert [event for piece in pieces for event in cut.feed(piece)] == events
    assert not list(cut.feed(b"data: half"))
