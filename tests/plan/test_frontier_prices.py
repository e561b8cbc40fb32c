"""The dial along a measured frontier: ends, mixtures, and what `keep` surely keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.calibration import Frontier
from governor.estimate.curves import Floats
from governor.plan.frontier import FrontierPrices
from governor.protocols import Situation, Terms
from governor.records import Rung, Step

FRONTIER = Frontier(
    price=np.array([0.1, 0.5, 2.0]),
    cost=np.array([1.0, 0.6, 0.2]),
    quality=np.array([1.0, 0.98, 0.70]),
    surely=np.array([0.99, 0.96, 0.66]),
    unit=4.0,
)
TERMS = Terms(app="a", ladder=(Rung(id="r", model="m"),))


def prices(
    frontier: Frontier = FRONTIER,
    steps: int = 1,
    unit: float = 4.0,
    dial: float | None = None,
    keep: float | None = None,
) -> list[float]:
    asked = replace(TERMS, dial=dial, keep=keep)
    situations = (
        Situation(step=Step(id=f"s{at}", messages=()), terms=asked, sensitivity=1.0, false_accept=0.0)
        for at in range(steps)
    )
    return [FrontierPrices(frontier).price(asked, situation, unit) for situation in situations]


def _same(points: Floats) -> Frontier:
    return Frontier(price=points, cost=points, quality=points, surely=points, unit=1.0)


def test_the_ends_of_the_dial_are_the_ends_of_the_curve() -> None:
    assert set(prices(dial=0.0, steps=50)) == {0.1}
    assert set(prices(dial=1.0, steps=50)) == {2.0}


def test_between_two_points_steps_are_shared_among_them() -> None:
    """The curve is .4/.8 + .02/.3 = .567 long, then 1.433: dial .2 is .4 along it, 71 % of the first part."""
    found = prices(dial=0.2, steps=4000)
    assert set(found) == {0.1, 0.5}
    assert np.mean(np.array(found) == 0.5) == pytest.approx(0.4 / (0.5 + 0.02 / 0.3), abs=0.03)
    assert found == prices(dial=0.2, steps=4000)  # each step always the same


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_dial_is_never_dearer(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert prices(dial=low, steps=20) <= prices(dial=high, steps=20)
    assert all(a <= b for a, b in zip(prices(dial=low, steps=20), prices(dial=high, steps=20), strict=True))


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [(0.999, {0.1}), (0.96, {0.5}), (0.5, {2.0}), (0.975, {0.1, 0.5})],
)
def test_keep_is_the_cheapest_point_that_surely_keeps_it(keep: float, wanted: set[float]) -> None:
    assert set(prices(keep=keep, steps=200)) == wanted


def test_half_way_between_two_bounds_steps_are_halved() -> None:
    found = prices(keep=0.975, steps=4000)
    assert np.mean(np.array(found) == 0.5) == pytest.approx(0.5, abs=0.03)


def test_a_dip_of_the_bound_is_not_passed() -> None:
    dipping = replace(FRONTIER, surely=np.array([0.99, 0.90, 0.97]))
    assert set(prices(dipping, keep=0.96, steps=300)) == {0.1, 0.5}


def test_prices_follow_the_unit() -> None:
    assert prices(dial=1.0, unit=8.0) == [4.0]
    assert prices(replace(FRONTIER, unit=0.0), dial=1.0, unit=8.0) == [2.0]


def test_one_point_is_every_dial() -> None:
    alone = _same(np.array([1.0]))
    assert {prices(alone, dial=dial, unit=1.0)[0] for dial in (0.0, 0.5, 1.0)} == {1.0}
    assert prices(alone, keep=0.9, unit=1.0) == [1.0]


def test_without_a_frontier_the_dial_means_what_it_did() -> None:
    none = _same(np.empty(0))
    assert prices(none, dial=0.0) < prices(none, dial=0.5) < prices(none, dial=0.9)
    assert prices(none) == prices(none, dial=0.3)
