"""`keep` as a dial: the dial at which a frontier asks the same price."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.calibration import Frontier
from governor.plan.frontier import FrontierPrices
from governor.protocols import Situation, Terms
from governor.records import Rung, Step

LADDER = (Rung(id="a", model="m"),)
PRICES = FrontierPrices(
    Frontier(
        price=np.array([0.0, 0.2, 0.9, 4.0]),
        cost=np.array([1.0, 0.7, 0.3, 0.1]),
        quality=np.array([1.0, 0.99, 0.9, 0.5]),
        surely=np.array([0.99, 0.97, 0.86, 0.45]),
        unit=1.0,
    )
)


def price(terms: Terms, step_id: str) -> float:
    return PRICES.price(terms, Situation(step=Step(id=step_id, messages=()), terms=terms), 1.0)


@given(st.floats(0.01, 1.0), st.integers())
def test_both_ask_the_same_price_of_every_step(keep: float, number: int) -> None:
    kept = Terms(app="a", ladder=LADDER, dial=None, keep=keep)
    turned = Terms(app="a", ladder=LADDER, dial=PRICES.dial_keeping(keep))
    assert price(kept, str(number)) == price(turned, str(number))


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_keeping_more_never_asks_for_more_thrift(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert PRICES.dial_keeping(high) <= PRICES.dial_keeping(low)


def test_what_no_point_surely_keeps_is_dial_0_and_a_single_point_too() -> None:
    assert PRICES.dial_keeping(1.0) == 0.0
    one = np.array([1.0])
    single = FrontierPrices(Frontier(price=one, cost=one, quality=one, surely=one, unit=1.0))
    assert single.dial_keeping(0.5) == 0.0
    assert PRICES.dial_keeping(0.3) == pytest.approx(1.0)
