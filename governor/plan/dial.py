"""What the dial means: the price lambda of one unit of cost, a unit being the dearest rung's expected cost."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np

from governor.estimate.curves import GRID, Curves, Floats
from governor.estimate.latent import normal_weights
from governor.plan.exact import index_policy, value_of
from governor.plan.odds import Odds
from governor.protocols import Situation, Terms

SCALE = 0.5
"""Lambda at dial 0.5: the dearest rung's whole cost is then worth half a correct answer."""

_STEPS = 9
_COARSE = 2  # halves of a unit of latent difficulty
_CHEAPEST = 1e-4  # of the dearest: below it, costs are all alike
_SLACK = 1e-9
_LOWER = 0.7
_LEAST = 1e-3  # a lower price changes no decision worth making


DIAL = 0.3
"""Where the dial stands when a policy says nothing."""


def price_at(dial: float) -> float:
    """Lambda for a dial position: 0 at 0, rising, infinite (cheapest admissible) at 1.

    `scale * dial / (1 - dial)` until a recorded frontier says which dial saves which share of the cost.
    """
    if not 0.0 <= dial <= 1.0:
        raise ValueError(f"dial must lie between 0 and 1, not {dial}")
    return math.inf if dial == 1.0 else SCALE * dial / (1.0 - dial)


class Prices(Protocol):
    """Where lambda comes from, in place of `price_at` and `price_keeping`: a calibration's own map, for example."""

    def price(self, terms: Terms, situation: Situation, unit: float) -> float:
        """Lambda for this step, 0 or more, in value per `unit`: its dearest rung's expected cost.

        `unit` is in micro-USD, or in millionths of a token where nothing has a price.

        Pure, and the same for every attempt of a step: a map that mixes two prices tosses by a stable hash of
        `situation.step.id`.
        """
        ...


def price_keeping(keep: float, odds: Odds, weights: Floats, attempts: int) -> float:
    """The largest lambda at which the planner's own policy is still correct `keep` times as often as the top rung.

    Quality is P(the shipped answer is correct) under the belief, escalations included and exactly evaluated;
    the top rung is the last of the ladder, asked once. 0 if not even a price of nothing keeps it.
    """
    wanted = keep * _top_quality(odds, weights)

    def keeps(dial: float) -> bool:
        return _quality(price_at(dial), odds, weights, attempts) >= wanted - _SLACK

    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return price_at(low)


def price_keeping_about(
    keep: float,
    curves: Curves,
    costs: Floats,
    prior: Floats,
    rates: tuple[float, float],
    harm: float,
    attempts: int,
    repeat: Floats | None = None,
) -> float:
    """`price_keeping` from the answer for like steps (belief and costs rounded), lowered until this step keeps too."""
    mean = float(GRID @ prior)
    sd = math.sqrt(max(float((GRID - mean) ** 2 @ prior), 0.0))
    centre = round(mean * _COARSE) / _COARSE
    width = max(round(sd * _COARSE), 1) / _COARSE
    rounded = tuple(2.0 ** round(math.log2(max(cost, _CHEAPEST))) for cost in costs.tolist())
    shares = None if repeat is None else tuple(repeat.tolist())
    price = _solved(keep, curves, rounded, centre, width, *rates, harm, attempts, shares)
    odds = Odds.of(curves.success, costs, *rates, harm, repeat)
    wanted = keep * _top_quality(odds, prior) - _SLACK
    while price > _LEAST and _quality(price, odds, prior, attempts) < wanted:
        price *= _LOWER
    return price if price > _LEAST else 0.0


@lru_cache(maxsize=4096)
def _solved(
    keep: float,
    curves: Curves,
    costs: tuple[float, ...],
    mean: float,
    sd: float,
    sensitivity: float,
    false_accept: float,
    harm: float,
    attempts: int,
    repeat: tuple[float, ...] | None,
) -> float:
    shares = None if repeat is None else np.array(repeat)
    odds = Odds.of(curves.success, np.array(costs), sensitivity, false_accept, harm, shares)
    return price_keeping(keep, odds, normal_weights(mean, sd), attempts)


def _quality(price: float, odds: Odds, weights: Floats, attempts: int) -> float:
    return value_of(index_policy(price), odds, weights, price, attempts=attempts, answer=True).quality


def _top_quality(odds: Odds, weights: Floats) -> float:
    """P(correct) of the last rung: accepted or rejected, an always-top policy ships it."""
    accepted_correct = (odds.good[-1] + odds.harm * (1.0 - odds.reject[-1])) / (1.0 + odds.harm)
    return float((accepted_correct + odds.kept[-1]) @ weights)
