"""What the dial means: the frontier of rising prices, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.intervals import Spread
from governor.learn.pricing import PRICES, frontier_of
from governor.learn.routing import choose

BEST = np.full(4, 10.0), np.array([1.0, 1.0, 1.0, 0.0])
ALONE = np.arange(4)


def test_prices_that_save_nothing_are_left_out_and_quality_never_rises() -> None:
    cost = np.array([[10.0] * 4, [8.0] * 4, [9.0] * 4, [4.0] * 4])
    accuracy = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], dtype=float)
    found = frontier_of(np.array([0.0, 1.0, 2.0, 3.0]), Spread(cost, accuracy), BEST, ALONE, unit=7.0)
    assert found.price.tolist() == [0.0, 1.0, 3.0]  # at 2 more was spent than at 1
    assert found.cost == pytest.approx([1.0, 0.8, 0.4])
    assert found.quality == pytest.approx([1.0, 0.5, 0.5])  # 1/3 and 2/3 of the best's 0.75, pooled
    assert found.unit == 7.0


def test_no_price_buys_a_dearer_rung_for_the_last_digits_of_a_forecast() -> None:
    p, cost = np.array([[0.5, 0.89314, 0.89315]]), np.array([[0.1, 0.4, 1.0]])
    assert choose(p, cost, np.array([0.0])).tolist() == [[2]]
    assert choose(p, cost, PRICES).max() == 1
    assert choose(p, cost, PRICES[:1]).tolist() == [[1]]


def test_quality_is_surely_what_a_paired_bound_says() -> None:
    cost = np.array([[10.0] * 4, [8.0] * 4])
    accuracy = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=float)
    found = frontier_of(np.array([0.0, 1.0]), Spread(cost, accuracy), BEST, ALONE, unit=1.0)
    assert found.surely[0] == pytest.approx(1.0)  # equal to the best on every question: nothing is left to chance
    # quality 1/3; the differences 2/3, -1/3, -1/3, 0 have the mean 0 and the deviation sqrt(1/6)
    assert found.surely[1] == pytest.approx(1 / 3 - 1.645 * (1 / 6) ** 0.5 / 2 / 0.75)


def test_questions_of_one_group_are_one_draw() -> None:
    cost = np.array([[10.0] * 4, [8.0] * 4])
    accuracy = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=float)
    found = frontier_of(np.array([0.0, 1.0]), Spread(cost, accuracy), BEST, np.array([1, 0, 0, 1]), unit=1.0)
    # the differences 2/3 + 0 and -1/3 - 1/3 of the two groups: the root of their squares over four questions
    assert found.surely[1] == pytest.approx(1 / 3 - 1.645 * (8 / 9) ** 0.5 / 4 / 0.75)


def test_equal_spending_keeps_the_lower_price() -> None:
    cost = np.full((3, 4), 5.0)
    found = frontier_of(np.array([0.0, 1.0, 2.0]), Spread(cost, np.ones((3, 4))), BEST, ALONE, unit=1.0)
    assert found.price.tolist() == [0.0]


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 9))
def test_whatever_was_played_the_frontier_is_one(seed: int, prices: int, questions: int) -> None:
    random = np.random.default_rng(seed)
    cost, accuracy = random.random((prices, questions)) + 0.1, random.random((prices, questions))
    best = random.random(questions) + 0.1, random.random(questions) + 0.1
    found = frontier_of(np.arange(float(prices)), Spread(cost, accuracy), best, np.arange(questions), unit=1.0)
    assert (np.diff(found.price) > 0).all()
    assert (np.diff(found.cost) < 0).all()
    assert (np.diff(found.quality) <= 1e-12).all()
    assert (found.surely <= found.quality + 1e-12).all()
    kept = accuracy[found.price.astype(int)].mean(axis=1) / best[1].mean()
    assert found.quality.mean() == pytest.approx(kept.mean())  # pooling moves no quality away
    off = kept - found.quality
    assert (np.cumsum(off) <= 1e-9).all()  # as least squares under the order has it (Ayer et al. 1955)
    assert float(off @ found.quality) == pytest.approx(0.0, abs=1e-9)
