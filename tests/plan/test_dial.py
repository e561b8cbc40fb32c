from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate.curves import GRID, curves
from governor.estimate.latent import normal_weights
from governor.plan.dial import price_at, price_keeping, price_keeping_about
from governor.plan.exact import index_policy, value_of
from governor.plan.odds import Odds, choose
from governor.records import Price, Rung

LADDER = tuple(
    Rung(id=name, model=name, price=Price(input=p, output=4 * p)) for name, p in (("a", 0.1), ("b", 1), ("c", 5))
)
CURVES = curves(LADDER)
COSTS = np.array([0.02, 0.2, 1.0])


def test_price_rises_from_nothing_to_infinity() -> None:
    assert price_at(0.0) == 0.0
    assert math.isinf(price_at(1.0))
    prices = [price_at(at / 100) for at in range(101)]
    assert all(low < high for low, high in pairwise(prices))


@pytest.mark.parametrize("dial", [-0.1, 1.1, math.nan])
def test_a_dial_outside_its_range_is_refused(dial: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        price_at(dial)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 1.0), st.floats(-2, 2), st.floats(0.4, 1.5), st.floats(0.7, 1.0), st.floats(0.0, 0.2))
def test_keep_is_kept_and_is_as_thrifty_as_it_can_be(
    keep: float, mean: float, sd: float, seen: float, passed: float
) -> None:
    weights = normal_weights(mean, sd)
    odds = Odds.of(CURVES.success, COSTS, seen, passed, 0.5)
    wanted = keep * float(CURVES.success[-1] @ weights)
    price = price_keeping(keep, odds, weights, attempts=3)

    def quality(at: float) -> float:
        return value_of(index_policy(at), odds, weights, at, attempts=3, answer=True).quality

    if price > 0:
        assert quality(price) >= wanted - 1e-9
    dial = price / (price + 0.5)
    assert dial > 1 - 2 / 512 or quality(price_at(min(dial + 1.01 / 512, 1.0))) < wanted


def test_keeping_less_is_never_dearer() -> None:
    prior = normal_weights(0.1, 0.9)
    prices = [price_keeping_about(k, CURVES, COSTS, prior, (1.0, 1.0), 0.5, 3) for k in (0.5, 0.8, 0.95, 1.0)]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > prices[-1]


def test_a_rounded_answer_still_keeps_the_step_at_hand() -> None:
    for mean in np.linspace(-2.0, 2.0, 23):
        prior = normal_weights(float(mean), 0.9)
        price = price_keeping_about(0.97, CURVES, COSTS, prior, (1.0, 1.0), 0.5, 3)
        odds = Odds.of(CURVES.success, COSTS, 1.0, 1.0, 0.5)
        quality = value_of(index_policy(price), odds, prior, price, attempts=3, answer=True).quality
        assert quality >= 0.97 * float(CURVES.success[-1] @ prior) - 1e-9


def test_the_index_is_the_formula_of_the_design() -> None:
    weights = normal_weights(0.0, 1.0)
    seen, passed, harm, price = 0.9, 0.2, 0.5, 0.1
    odds = Odds.of(CURVES.success, COSTS, seen, passed, harm)
    choice = choose(odds, weights, np.empty((0, len(GRID))), price, attempts_left=3)
    for arm in range(3):
        q = float(CURVES.success[arm] @ weights)
        formula = (q * seen - harm * (1 - q) * passed - price * COSTS[arm]) / (q * seen + (1 - q) * passed)
        assert choice.index[arm] == pytest.approx(formula)


def test_an_arm_is_worth_only_what_it_adds_to_the_answer_held() -> None:
    weights = normal_weights(-1.0, 0.8)
    odds = Odds.of(CURVES.success, COSTS, 0.97, 0.05, 0.5)
    nothing = choose(odds, weights, np.empty((0, len(GRID))), 0.05, 3)
    doubtful = choose(odds, weights, CURVES.answer[1:2], 0.05, 3)
    assert doubtful.stop > 0.5 > nothing.stop == 0.0
    assert doubtful.worth - doubtful.stop < 0.5 * (nothing.worth - nothing.stop)
