"""Marks in text, however it is cut into tokens."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.stops.marks import (
    CODE,
    END,
    FENCE,
    MARK,
    NODE_AT,
    PARAGRAPH,
    SENTENCE,
    START,
    TOOL,
    TOOL_END,
    TOOLS,
    USUAL,
    Marks,
    braces_of,
    ends_sentence,
)

MARKS = Marks()
OPENED, CLOSED = zip(*TOOLS, strict=True)
NAMES = {"<think>": START, "</think>": END, **dict.fromkeys(OPENED, TOOL), **dict.fromkeys(CLOSED, TOOL_END)}
texts = st.lists(
    st.sampled_from([*NAMES, "```", "`", "\n\n", "\n", "<", "think", ">", "/", "a{", "}", " é"]), max_size=12
)


@given(texts.map("".join))
def test_what_is_found_is_what_a_search_finds(text: str) -> None:
    found = re.findall("|".join(map(re.escape, [*NAMES, "```", "\n\n"])), text)
    code = MARKS.read(0, text)[1]
    assert code & MARK == next((NAMES[mark] for mark in reversed(found) if mark in NAMES), 0)
    assert bool(code & FENCE) is bool(found.count("```") % 2)
    assert bool(code & PARAGRAPH) is ("\n\n" in found)


@given(texts.map("".join), st.lists(st.integers(1, 5), min_size=1))
def test_a_cut_hides_no_mark(text: str, cuts: list[int]) -> None:
    whole, node, at, fences, mark = MARKS.read(0, text), 0, 0, 0, 0
    for length in [*cuts, len(text)]:
        node, code = MARKS.read(node, text[at : at + length])
        fences, mark, at = fences ^ (code & FENCE), code & MARK or mark, at + length
    assert (node, fences, mark) == (whole[0], whole[1] & FENCE, whole[1] & MARK)


def test_a_vocabulary_becomes_a_table_of_the_same_readings() -> None:
    tokens = [
        "",
        "<th",
        "ink>",
        ">\n",
        "</think>",
        "</",
        "think",
        ">",
        "```\n",
        "``",
        "\n\n",
        "\n",
        "{}",
        "{{",
        "x.",
        "é",
        "<tool_call>",
    ]
    table = MARKS.table(tokens)
    for node in range(len(table)):
        for at, token in enumerate(tokens):
            after, code = MARKS.read(node, token)
            assert table[node, at] == after << NODE_AT | code


@pytest.mark.parametrize("pair", TOOLS)
def test_a_table_holds_only_the_tool_marks_that_are_tokens_of_the_model(pair: tuple[str, str]) -> None:
    usual = Marks(tools=(USUAL,))
    known = MARKS.among([*pair, "tool", "<"])
    assert set(known.tools) == {USUAL, pair}
    assert MARKS.among(["<|tool_call_begin|>"]) == usual
    assert len(known.table([""])) <= 2 * len(usual.table([""]))


def test_braces_and_sentence_ends_are_told() -> None:
    codes = np.array([MARKS.read(0, text)[1] for text in ("{{", "}", "plain", "{" * 30)])
    assert braces_of(codes).tolist() == [2, -1, 0, 7]
    assert codes.max() <= CODE
    assert MARKS.read(0, "done.")[1] & SENTENCE


@pytest.mark.parametrize("text", ["So.", "So?", "so!\n", "line\n", 'he said "so."', "(so.)", "好。"])
def test_sentences_end_here(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["So", "So,", "", " ", "a:"])
def test_and_not_here(text: str) -> None:
    assert not ends_sentence(text)
