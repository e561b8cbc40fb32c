from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.scores import (
    Row,
    brier,
    brier_base_rate,
    ece,
    ece_by_chance,
    equal_mass,
    reliability,
    score,
)

CHANCES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200)


def test_scores_are_worked_by_hand() -> None:
    p, y = np.array([0.25, 0.25, 0.75, 0.75]), np.array([0.0, 1.0, 1.0, 1.0])
    assert brier(p, y) == pytest.approx((3 * 0.0625 + 0.5625) / 4)
    assert brier(p, y, np.array([1.0, 0.0, 1.0, 0.0])) == pytest.approx(0.0625)
    assert brier_base_rate(y) == pytest.approx(0.75 * 0.25)
    assert ece(p, y, bins=2) == pytest.approx((0.25 + 0.25) / 2)
    assert reliability(p, y, bins=2) == (Row(2, 0.25, 0.5), Row(2, 0.75, 1.0))


def test_heads_have_a_base_rate_each() -> None:
    y, heads = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    assert brier_base_rate(y, heads=heads) == pytest.approx(0.125)
    assert brier_base_rate(y, np.array([1.0, 3.0, 1.0, 1.0]), heads) == pytest.approx(4 * 0.75 * 0.25 / 6)


@given(CHANCES)
def test_equal_forecasts_share_a_bin_and_bins_follow_their_order(chances: list[float]) -> None:
    p = np.array(chances)
    into, order = equal_mass(p), np.argsort(p)
    assert (np.diff(into[order]) >= 0).all()
    assert all(len(set(into[p == one].tolist())) == 1 for one in set(chances))
    assert int(into.max()) < 10


def test_bins_hold_equal_numbers_where_forecasts_differ() -> None:
    p = np.random.default_rng(0).random(1000)
    assert np.bincount(equal_mass(p)).tolist() == [100] * 10


def test_a_constant_forecast_is_judged_as_one_bin() -> None:
    y = np.repeat([0.0, 1.0], 50)  # ordered: bins by position would see an error of .5
    assert ece(np.full(100, 0.5), y) == 0.0


def test_a_calibrated_forecast_shows_the_error_of_chance_and_a_bad_one_more() -> None:
    rng = np.random.default_rng(4)
    p = rng.beta(2.0, 2.0, 3000)
    y = (rng.random(3000) < p).astype(float)
    scores, too_sure = score(p, y), score(np.clip(2 * p - 0.5, 0.0, 1.0), y)
    assert abs(scores.ece - scores.ece_by_chance) < 0.01
    assert too_sure.ece - too_sure.ece_by_chance > 0.08
    assert scores.brier < scores.brier_base_rate
    assert sum(row.items for row in scores.rows) == 3000


def test_the_error_of_chance_falls_with_the_root_of_the_number_and_repeats() -> None:
    few, many = np.full(100, 0.5), np.full(10_000, 0.5)
    # one bin: E|mean - .5| = .5 * sqrt(2 / (pi n))
    assert ece_by_chance(few, simulations=2000) == pytest.approx(0.5 * np.sqrt(2 / (np.pi * 100)), rel=0.1)
    assert ece_by_chance(many, simulations=300) == pytest.approx(0.5 * np.sqrt(2 / (np.pi * 10_000)), rel=0.2)
    assert ece_by_chance(few, seed=7) == ece_by_chance(few, seed=7) != ece_by_chance(few, seed=8)


def test_weights_count_an_item_as_often_as_they_say() -> None:
    p, y = np.array([0.1, 0.1, 0.9]), np.array([0.0, 1.0, 1.0])
    again = np.array([0, 0, 0, 1, 2])
    weighted = ece(p, y, np.array([3.0, 1.0, 1.0]), bins=2)
    assert weighted == pytest.approx((abs(4 * 0.1 - 1) + 0.1) / 5)
    assert brier(p, y, np.array([3.0, 1.0, 1.0])) == pytest.approx(brier(p[again], y[again]))
