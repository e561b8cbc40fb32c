"""The report of a calibration: figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.calibration import Lengths
from governor.learn.shrink import Shrinkage
from governor.learn.worth import worth
from tests.learn.recorded_tables import table_of

ODDS = np.array([[0.0, np.log(3.0)], [0.0, np.log(3.0)], [np.log(4.0), -np.log(3.0)], [0.0, 50.0]])
Y = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
WEIGHT = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
PLACES = np.array([[0.0], [1.0], [2.0], [10.0]])
LENGTHS = Lengths(
    start=np.array([np.log(100.0), 0.0]),
    slope=np.array([[np.log(2.0), 0.0]]),
    spread=np.array([0.5, np.nan]),
    whole=np.array([0.9, 1.0]),
)
SHRUNK = Shrinkage(np.zeros(2), np.array([0.8, 0.0]), np.zeros(2))


def test_every_rung_is_judged_on_what_is_known_of_it() -> None:
    found = worth(table_of(Y), ODDS, Y, WEIGHT, SHRUNK, LENGTHS, PLACES, seed=3)
    assert (found["questions"], found["groups"], found["seed"]) == (4, 4, 3)
    low, high = found["rungs"]["low"], found["rungs"]["high"]
    assert (low["outcomes"], high["outcomes"]) == (4, 3)  # the forecast of 50 log-odds was never put to the test
    assert low["base_rate"] == 0.75
    assert low["brier"] == pytest.approx((3 * 0.25 + 0.2**2) / 4)
    assert low["brier_base_rate"] == pytest.approx(0.75 * 0.25)
    assert low["ece"] == pytest.approx((3 * abs(0.5 - 2 / 3) + abs(0.8 - 1.0)) / 4)
    assert low["deciles"] == [[3, pytest.approx(0.5), pytest.approx(2 / 3)], [1, pytest.approx(0.8), 1.0]]
    assert high["brier"] == pytest.approx(0.25**2)
    assert high["brier_base_rate"] == pytest.approx(2 / 9)
    assert high["ece"] == pytest.approx(0.25)


def test_it_says_where_the_forecast_knows_nothing() -> None:
    rungs = worth(table_of(Y), ODDS, Y, WEIGHT, SHRUNK, LENGTHS, PLACES, seed=0)["rungs"]
    assert [(one["slope"], one["known"]) for one in rungs.values()] == [(0.8, True), (0.0, False)]


def test_lengths_are_the_forecasts_median_and_the_share_that_was_cut() -> None:
    rungs = worth(table_of(Y), ODDS, Y, WEIGHT, SHRUNK, LENGTHS, PLACES, seed=0)["rungs"]
    assert rungs["low"]["median_tokens"] == pytest.approx(300.0)  # between the middle two: 100 * 2 and 100 * 4
    assert rungs["low"]["cut"] == pytest.approx(0.1)
    assert (rungs["high"]["median_tokens"], rungs["high"]["cut"]) == (None, None)


def test_chance_is_drawn_by_the_seed() -> None:
    def by_chance(seed: int) -> float:
        found = worth(table_of(Y), ODDS, Y, WEIGHT, SHRUNK, LENGTHS, PLACES, seed)
        return float(found["rungs"]["low"]["ece_by_chance"])

    assert by_chance(1) == by_chance(1) != by_chance(2)
    assert 0.0 < by_chance(1) < 0.6
