"""Words and context as buckets: what counts as a word, what order changes, and how much is read."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.features import SCAN_HEAD, SCAN_TAIL
from governor.estimate.hashed import Sparse, context_of, words_of
from governor.records import Step

BUCKETS = 1 << 16


def pairs(found: Sparse) -> dict[int, float]:
    return dict(zip(found.at.tolist(), found.value.tolist(), strict=True))


def test_words_and_their_neighbours_count_once_each_by_logarithm() -> None:
    assert sorted(words_of("alpha beta", BUCKETS).value.tolist()) == [1.0, 1.0, 1.0]
    repeated = sorted(words_of("alpha alpha alpha", BUCKETS).value.tolist())
    assert repeated == [1.0 + math.log(2), 1.0 + math.log(3)]  # twice as a pair, three times as a word


def test_case_and_signs_do_not_matter_and_order_does() -> None:
    plain = pairs(words_of("prove that sum", BUCKETS))
    assert pairs(words_of("PROVE: that (sum)!", BUCKETS)) == plain
    assert pairs(words_of("sum that prove", BUCKETS)) != plain
    assert len(pairs(words_of("sum that prove", BUCKETS)).keys() & plain.keys()) == 3


@pytest.mark.parametrize("text", ["", " \n", "?!", "a b c", "\ud800"])
def test_a_text_without_words_is_empty_or_a_mark(text: str) -> None:
    found = words_of(text, BUCKETS)
    assert found.at.size == 0


@pytest.mark.parametrize("text", ["数学の問題を解く", "Докажите теорему", "αβγ δε", "naïve café"])
def test_words_of_every_script_are_seen(text: str) -> None:
    assert words_of(text, BUCKETS).at.size
    assert pairs(words_of(text.upper(), BUCKETS)) == pairs(words_of(text, BUCKETS))


@given(st.text(max_size=400))
def test_buckets_are_each_named_once_and_in_range(text: str) -> None:
    found = words_of(text, 64)
    assert len(set(found.at.tolist())) == len(found.at)
    assert all(0 <= at < 64 for at in found.at.tolist())
    assert (found.value >= 1.0).all()


def test_of_a_very_long_text_head_and_tail_are_read() -> None:
    head, tail = "first " * (SCAN_HEAD // 6), "last " * (SCAN_TAIL // 5)
    long = f"{head:{SCAN_HEAD}}{'middle ' * 300_000}{tail:>{SCAN_TAIL}}"
    found = pairs(words_of(long, BUCKETS))
    assert pairs(words_of("middle", BUCKETS)).keys() & found.keys() == set()
    assert pairs(words_of("first", BUCKETS)).keys() <= found.keys()
    assert pairs(words_of("last", BUCKETS)).keys() <= found.keys()


def test_node_tools_numbers_and_short_words_of_the_state_are_context() -> None:
    plain = context_of(Step(id="s", messages=(), node="plan"), BUCKETS)
    assert plain.at.size == 1
    told = Step(
        id="s",
        messages=(),
        node="plan",
        tools=({"type": "function", "function": {"name": "search"}}, {"name": "calc"}),
        state={"depth": -3, "ratio": math.nan, "phase": "review", "notes": "more than a word", "found": {"a": 1}},
    )
    found = context_of(told, BUCKETS)
    assert found.at.size == 5
    other = context_of(replace(told, state={**told.state, "phase": "draft"}), BUCKETS)
    assert np.setdiff1d(found.at, other.at).size == 1
    assert plain.at[0] in found.at
    assert np.isfinite(found.value).all()
    assert found.value.min() == pytest.approx(-0.2 * math.log(4))
    assert context_of(Step(id="s", messages=(), node="act"), BUCKETS).at[0] != plain.at[0]
