"""The e-process: it alarms rarely where the claim holds, whatever the order of outcomes, and soon where it doesn't."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.curves import Floats
from governor.estimate.drift import Wealth

DELTA = 0.05
RATES = st.floats(0.001, 0.999)
HISTORIES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30)
FORMS = pytest.mark.parametrize("form", [Wealth.one_sided, Wealth.two_sided])


def played(wealth: Wealth, history: Iterable[tuple[float, float]]) -> Wealth:
    for outcome, expected in history:
        wealth = wealth.after(outcome, expected)
    return wealth


def delay(outcomes: Iterable[bool], expected: float, wealth: Wealth) -> int:
    """How many outcomes until the alarm; as many as there are and one more if it never comes."""
    number = 0
    for number, outcome in enumerate(outcomes, 1):
        wealth = wealth.after(outcome, expected)
        if wealth.alarmed(DELTA):
            return number
    return number + 1


def most_allowed(runs: int) -> float:
    """DELTA of the runs, and three standard errors."""
    return runs * DELTA + 3 * math.sqrt(runs * DELTA * (1 - DELTA))


@FORMS
@given(history=HISTORIES, expected=st.floats(0, 1))
def test_the_wealth_is_fair_at_every_outcome(
    form: Callable[[], Wealth], history: list[tuple[float, float]], expected: float
) -> None:
    wealth = played(form(), history)
    mean = expected * wealth.after(1, expected).value + (1 - expected) * wealth.after(0, expected).value
    assert mean <= wealth.value * (1 + 1e-9)
    if 0.001 <= expected <= 0.999:
        assert mean == pytest.approx(wealth.value)


@given(history=HISTORIES, expected=RATES, share=st.floats(0, 1))
def test_a_lower_rate_than_claimed_never_pays_one_sided(
    history: list[tuple[float, float]], expected: float, share: float
) -> None:
    wealth = played(Wealth.one_sided(), history)
    truth = expected * share
    mean = truth * wealth.after(1, expected).value + (1 - truth) * wealth.after(0, expected).value
    assert mean <= wealth.value * (1 + 1e-9)


def test_one_sided_false_alarms_stay_within_delta() -> None:
    rng, runs = np.random.default_rng(1), 2000
    draws = rng.random((runs, 500)) < 0.05
    alarms = sum(delay(row, 0.05, Wealth.one_sided()) <= 500 for row in draws.tolist())
    assert 0 < alarms <= most_allowed(runs)


def test_outcomes_that_answer_to_the_wealth_raise_no_more_alarms() -> None:
    """An adversary who keeps each mean at or below what is expected, and looks at the wealth to choose it."""
    rng, runs, alarms = np.random.default_rng(2), 400, 0
    for draws in rng.random((runs, 300)).tolist():
        wealth = Wealth.one_sided()
        for draw in draws:
            expected = 0.02 if wealth.value > 2 else 0.3
            wealth = wealth.after(draw < expected, expected)
        alarms += wealth.alarmed(DELTA)
    assert alarms <= most_allowed(runs)


def test_two_sided_false_alarms_stay_within_delta() -> None:
    rng, runs = np.random.default_rng(3), 400
    forecasts = rng.beta(2, 1, (runs, 300))
    outcomes = rng.random((runs, 300)) < forecasts
    histories = (zip(row, told, strict=True) for row, told in zip(outcomes.tolist(), forecasts.tolist(), strict=True))
    alarms = sum(played(Wealth.two_sided(), history).alarmed(DELTA) for history in histories)
    assert alarms <= most_allowed(runs)


@pytest.mark.parametrize(("good", "within"), [(0, 200), (2000, 350)])
def test_a_risk_that_trebles_is_alarmed_soon_even_after_a_long_good_time(good: int, within: int) -> None:
    rng = np.random.default_rng(4)
    delays: list[int] = []
    while len(delays) < 60:
        before = played(Wealth.one_sided(), ((outcome, 0.05) for outcome in rng.random(good) < 0.03))
        if not before.alarmed(DELTA):
            delays.append(delay(rng.random(600) < 0.15, 0.05, before))
    assert np.quantile(delays, 0.9) <= within


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(lambda p: np.clip(p + 0.15, 0, 1), id="higher"),
        pytest.param(lambda p: np.clip(p - 0.15, 0, 1), id="lower"),
        pytest.param(lambda p: 0.5 + 0.5 * (p - 0.5), id="forecasts too sure"),
        pytest.param(lambda p: 0.5 + 0.5 * np.sign(p - 0.5) * np.abs(2 * p - 1) ** 0.3, id="not sure enough"),
    ],
)
def test_forecasts_off_in_any_of_four_ways_are_alarmed(truth: Callable[[Floats], Floats]) -> None:
    rng = np.random.default_rng(5)
    forecasts = rng.random((20, 500))
    outcomes = rng.random((20, 500)) < truth(forecasts)
    histories = (zip(row, told, strict=True) for row, told in zip(outcomes.tolist(), forecasts.tolist(), strict=True))
    assert sum(played(Wealth.two_sided(), history).alarmed(DELTA) for history in histories) >= 18


@FORMS
@given(history=HISTORIES)
def test_the_state_comes_back_whole(form: Callable[[], Wealth], history: list[tuple[float, float]]) -> None:
    wealth = played(form(), history)
    assert Wealth.from_floats(wealth.to_floats()) == wealth


@pytest.mark.parametrize(
    "state", [(), (1.0, 1.0, 0.5), (0.5, 1.0, *[0.0] * 6), (1.0, 0.5, *[0.0] * 6), (1.0, math.nan, *[0.0] * 6)]
)
def test_what_is_no_state_is_refused(state: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="not the state of a wealth"):
        Wealth.from_floats(state)


@pytest.mark.parametrize(("outcome", "expected"), [(1.1, 0.5), (0.5, -0.1), (math.nan, 0.5), (0.5, math.nan)])
def test_what_is_no_share_is_refused(outcome: float, expected: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Wealth.one_sided().after(outcome, expected)


def test_an_alarm_is_not_forgotten() -> None:
    wealth = played(Wealth.one_sided(), [(1.0, 0.1)] * 5)
    calm = played(wealth, [(0.0, 0.5)] * 500)
    assert calm.value < 1 / DELTA < calm.peak
    assert calm.alarmed(DELTA)


@FORMS
def test_wealth_never_overflows(form: Callable[[], Wealth]) -> None:
    wealth = played(form(), [(1.0, 0.0)] * 1000)
    assert 1e300 <= wealth.value < math.inf
