"""Points over random mixing at the same cost."""

from __future__ import annotations

import numpy as np
import pytest

from governor.learn.harm import lead, lead_over
from governor.learn.intervals import Resamples, Spread

FIXED = Spread(np.array([[1.0] * 200, [11.0] * 200]), np.array([[0.0, 1.0] * 100, [1.0] * 200]))


def resamples() -> Resamples:
    return Resamples.draw(200, 200)


def test_mixing_at_random_leads_by_nothing() -> None:
    mixed = Spread(FIXED.cost.mean(axis=0)[None], FIXED.accuracy.mean(axis=0)[None])
    found = lead(mixed, FIXED, resamples())
    assert found.points == pytest.approx(0.0)
    assert found.interval == pytest.approx((0.0, 0.0), abs=1e-9)


def test_paying_for_nothing_falls_behind_where_an_area_would_not_tell() -> None:
    wasteful = Spread(FIXED.cost[1:], FIXED.accuracy[:1])
    found = lead(wasteful, FIXED, resamples())
    assert found.points == pytest.approx(-50.0)
    assert found.interval[0] < -50.0 < found.interval[1] < -40.0


def test_sending_each_question_where_it_is_needed_leads() -> None:
    hard = FIXED.accuracy[0] == 0.0
    wise = Spread(np.where(hard, 11.0, 1.0)[None], np.ones((1, 200)))
    found = lead(wise, FIXED, resamples())
    assert found.points == pytest.approx(25.0)
    assert found.interval[0] > 20.0


def test_what_is_cheaper_than_any_rung_is_held_against_the_cheapest() -> None:
    free = Spread(np.zeros((1, 200)), FIXED.accuracy[:1])
    assert lead(free, FIXED, resamples()).points == pytest.approx(0.0)


def test_against_a_control_what_both_lose_to_the_hull_cancels() -> None:
    wasteful = Spread(FIXED.cost[1:], FIXED.accuracy[:1])
    assert lead(wasteful, FIXED, resamples()).interval[1] < 0.0
    itself = lead_over(wasteful, wasteful, FIXED, resamples())
    assert (itself.points, itself.interval) == (0.0, (0.0, 0.0))
    thrifty = Spread(FIXED.cost[:1], FIXED.accuracy[:1])
    behind = lead_over(wasteful, thrifty, FIXED, resamples())
    assert behind.points == pytest.approx(-50.0)
    assert behind.interval[1] < -40.0
