from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.curves import Floats
from governor.learn.frontier import (
    Curve,
    Fixed,
    apgr,
    area,
    area_between,
    best_fixed,
    c_share,
    cpt,
    deployed,
    envelope,
    fixed,
    hull,
    measure,
    value_at,
)

PAIR = Fixed(("weak", "strong"), np.array([1.0, 5.0]), np.array([0.5, 0.9]))
POINTS = st.lists(st.tuples(st.floats(0.01, 10.0), st.floats(0.0, 1.0)), min_size=1, max_size=30)


def arrays(points: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    both = np.array(points, dtype=float)
    return both[:, 0], both[:, 1]


def by_definition(points: list[tuple[float, float]], at: float) -> float:
    """The best accuracy of any mixture of two points whose mean cost is at most `at`."""
    reached = [y for x, y in points if x <= at]
    for x0, y0 in points:
        reached += [y0 + (y1 - y0) * (at - x0) / (x1 - x0) for x1, y1 in points if x0 <= at < x1]
    return max(reached, default=0.0)


@given(POINTS, st.floats(0.0, 12.0))
def test_the_hull_is_the_best_mixture_of_any_two_points(points: list[tuple[float, float]], at: float) -> None:
    assert value_at(hull(*arrays(points)), at) == pytest.approx(by_definition(points, at), abs=1e-6)


@given(POINTS)
def test_the_hull_rises_and_bends_down_and_its_own_hull_is_itself(points: list[tuple[float, float]]) -> None:
    curve = hull(*arrays(points))
    rise, run = np.diff(curve.accuracy), np.diff(curve.cost)
    assert (run > 0).all()
    assert (rise > 0).all()
    assert (np.diff(rise / run) <= 1e-9 * np.abs(rise / run).max(initial=1.0)).all()
    again = hull(curve.cost, curve.accuracy)
    assert again.cost.tolist() == curve.cost.tolist()


def test_the_hull_is_worked_by_hand() -> None:
    curve = hull(np.array([1.0, 2.0, 3.0, 5.0, 4.0, 6.0]), np.array([0.2, 0.6, 0.65, 0.8, 0.75, 0.7]))
    assert curve.cost.tolist() == [1.0, 2.0, 4.0, 5.0]
    assert curve.accuracy.tolist() == [0.2, 0.6, 0.75, 0.8]
    assert value_at(curve, 0.99) == 0.0
    assert value_at(curve, 3.0) == pytest.approx(0.675)
    assert value_at(curve, 60.0) == 0.8


def test_the_hull_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        hull(np.empty(0), np.empty(0))


@given(POINTS, st.floats(0.0, 12.0), st.floats(0.0, 12.0))
def test_the_integral_is_that_of_a_fine_sum(points: list[tuple[float, float]], a: float, b: float) -> None:
    curve, low, high = hull(*arrays(points)), min(a, b), max(a, b)
    middle = low + (np.arange(4000) + 0.5) * (high - low) / 4000
    rough = sum(np.interp(middle, curve.cost, curve.accuracy, left=0.0)) * (high - low) / 4000
    assert curve.integral(low, high) == pytest.approx(rough, abs=0.01)


def test_c_shares_are_read_off_the_line_between_vertices() -> None:
    curve = Curve(np.array([1.0, 2.0, 4.0]), np.array([0.2, 0.6, 0.8]))
    assert c_share(curve, 0.7, 4.0) == pytest.approx(0.75)
    assert c_share(curve, 0.1, 4.0) == pytest.approx(0.25), "nothing is cheaper than the first point"
    assert c_share(curve, 0.8, 4.0) == pytest.approx(1.0)
    assert c_share(curve, 0.81, 4.0) is None
    assert c_share(curve, 0.7, 0.0) is None, "no share of a free rung"


def test_area_is_the_mean_height_over_the_hull() -> None:
    # a triangle of height .2 over the line from weak to strong: half of .2 on average
    assert area(PAIR, np.array([3.0]), np.array([0.9])) == pytest.approx(10.0)
    assert area(PAIR, np.array([3.0]), np.array([0.7])) == pytest.approx(0.0)
    assert area(PAIR, np.array([3.0]), np.array([0.1])) == 0.0, "a bad point is never used"


def test_area_of_no_width_is_nothing() -> None:
    curve = hull(PAIR.cost, PAIR.accuracy)
    assert area_between(curve, curve, 2.0, 2.0) == 0.0
    alone = Fixed(("only",), np.array([1.0]), np.array([0.5]))
    assert measure(alone, np.array([1.0]), np.array([0.5])).apgr is None


def test_the_best_rung_is_the_most_accurate_and_of_those_the_cheaper() -> None:
    rungs = fixed(
        ("dear", "cheap", "good"),
        np.array([[9.0, 9.0], [1.0, 3.0], [4.0, 4.0]]),
        np.array([[1.0, 0.0], [0.0, np.nan], [0.0, 1.0]]),
    )
    assert rungs.accuracy.tolist() == [0.5, 0.0, 0.5]
    assert best_fixed(rungs) == "good"
    assert rungs.rungs[rungs.cheapest] == "cheap"


def test_random_routing_recovers_half_the_gap() -> None:
    share = np.linspace(0.0, 1.0, 41)
    cost, accuracy = 1.0 + 4.0 * share, 0.5 + 0.4 * share
    assert apgr(PAIR, cost, accuracy) == pytest.approx(0.5)
    assert cpt(50, PAIR, cost, accuracy) == pytest.approx(50.0)
    assert cpt(80, PAIR, cost, accuracy) == pytest.approx(80.0)


def test_gap_recovered_is_worked_by_hand() -> None:
    cost, accuracy = np.array([2.0, 3.0, 9.0]), np.array([0.8, 0.7, 1.0])  # the last is dearer than always-strong
    # (0, 0) (.25, .75) (.5, .5) (1, 1): trapezoids .09375 + .15625 + .375
    assert apgr(PAIR, cost, accuracy) == pytest.approx(0.625)
    assert cpt(50, PAIR, cost, accuracy) == pytest.approx(100 * 0.25 * 50 / 75)
    assert cpt(80, PAIR, cost, accuracy) == pytest.approx(100 * (0.5 + 0.5 * 0.3 / 0.5))


def test_a_gap_recovered_at_no_cost_needs_no_strong_call() -> None:
    assert cpt(50, PAIR, np.array([1.0]), np.array([0.8])) == pytest.approx(100 * 0.0)


def test_the_points_of_one_method_give_every_figure() -> None:
    figures = measure(PAIR, np.array([2.0]), np.array([0.9]))
    assert figures.c98 == pytest.approx((1.0 + (0.882 - 0.5) / 0.4) / 5.0)
    assert figures.c100 == pytest.approx(0.4)
    assert figures.area == pytest.approx(100 * (0.4 * 4 - 0.4 * 1 / 2 - 0.4 * 4 / 2) / 4)
    curve = envelope(PAIR, np.array([2.0]), np.array([0.9]))
    assert curve.cost.tolist() == [1.0, 2.0]


def test_a_deployed_dial_is_chosen_without_its_own_fold() -> None:
    fold = np.array([0, 0, 1, 1])
    best = (np.full(4, 2.0), np.ones(4))
    # dial 0 keeps everything; dial 1 is cheaper and right on fold 0 only
    cost = np.array([[1.0] * 4, [0.5] * 4])
    accuracy = np.array([[1.0] * 4, [1.0, 1.0, 0.0, 0.0]])
    result = deployed(best, cost, accuracy, fold)
    assert result.accuracy_share == pytest.approx(0.5), "fold 1 gets the dial that looked good on fold 0"
    assert result.cost == pytest.approx((1.0 * 2 + 0.5 * 2) / (2.0 * 4))


def test_the_best_rung_stands_in_where_no_dial_keeps_enough_or_none_is_cheaper() -> None:
    fold, best = np.array([0, 1, 0, 1]), (np.full(4, 2.0), np.ones(4))
    poor = deployed(best, np.full((1, 4), 0.1), np.full((1, 4), 0.9), fold)
    dear = deployed(best, np.full((1, 4), 3.0), np.ones((1, 4)), fold)
    assert (poor.accuracy_share, poor.cost) == (dear.accuracy_share, dear.cost) == (1.0, 1.0)


def test_a_margin_asks_for_evidence() -> None:
    fold, best = np.arange(200) % 2, (np.full(200, 2.0), np.ones(200))
    one_lost = np.ones((1, 200))
    one_lost[0, [10, 11]] = 0.0  # .99 in each fold, with a standard error of .01
    cost = np.ones((1, 200))
    assert deployed(best, cost, one_lost, fold).cost == 0.5
    assert deployed(best, cost, one_lost, fold, margin=3.0).cost == 1.0
    assert deployed(best, cost, one_lost, fold, keep=0.9, margin=3.0).cost == 0.5
