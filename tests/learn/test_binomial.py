"""The exact binomial tail, against exact fractions and against the table of failures that a risk allows."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.binomial import at_most, most_failures, trials_needed, upper_bound

DELTA = 0.05


@st.composite
def counts(draw: st.DrawFn, most: int = 60) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@given(counted=counts(), percent=st.integers(0, 100))
def test_the_tail_is_the_exact_sum(counted: tuple[int, int], percent: int) -> None:
    failures, n = counted
    rate = Fraction(percent, 100)
    exact = sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(failures + 1))
    assert at_most(failures, n, percent / 100) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@given(counted=counts(), percent=st.integers(1, 50))
def test_the_bound_is_where_the_tail_is_delta(counted: tuple[int, int], percent: int) -> None:
    failures, n = counted
    bound = upper_bound(failures, n, percent / 100)
    assert failures / n <= bound <= 1
    if failures < n:
        assert at_most(failures, n, bound) == pytest.approx(percent / 100)


def test_without_trials_nothing_is_known() -> None:
    assert upper_bound(0, 0, DELTA) == 1.0
    assert most_failures(0, 0.05, DELTA) == -1


@pytest.mark.parametrize(
    ("rate", "n", "allowed"),
    [
        (0.05, 58, -1),
        (0.05, 59, 0),
        (0.05, 100, 1),
        (0.05, 200, 4),
        (0.05, 500, 16),
        (0.05, 1000, 38),
        (0.01, 298, -1),
        (0.01, 300, 0),
        (0.01, 500, 1),
        (0.01, 1000, 4),
    ],
)
def test_failures_that_a_risk_allows(rate: float, n: int, allowed: int) -> None:
    assert most_failures(n, rate, DELTA) == allowed
    assert upper_bound(allowed + 1, n, DELTA) > rate
    assert allowed < 0 or upper_bound(allowed, n, DELTA) <= rate


def test_a_great_many_trials_lose_no_precision() -> None:
    # Normal approximation with continuity correction, mean 50,000, standard deviation 217.9.
    assert at_most(50_000, 1_000_000, 0.05) == pytest.approx(0.50114, abs=2e-4)
    assert upper_bound(50_000, 1_000_000, DELTA) == pytest.approx(0.05036, abs=1e-5)


@pytest.mark.parametrize(("share", "rate"), [(0.0, 0.05), (0.0, 0.01), (0.02, 0.05), (0.03, 0.05), (0.004, 0.01)])
def test_trials_needed_are_enough_and_few_more_than_the_least(share: float, rate: float) -> None:
    n = trials_needed(share, rate, DELTA)
    least = next(n for n in range(1, 5000) if math.ceil(share * n) <= most_failures(n, rate, DELTA))
    assert n is not None
    assert math.ceil(share * n) <= most_failures(n, rate, DELTA)
    assert least <= n <= least * 1.1


@pytest.mark.parametrize("share", [0.0499999, 0.05, 0.2])
def test_no_number_of_trials_certifies_a_rate_that_is_passed(share: float) -> None:
    assert trials_needed(share, 0.05, DELTA, limit=100_000) is None


@pytest.mark.parametrize(("failures", "n", "rate"), [(2, 1, 0.1), (-1, 5, 0.1), (1, 5, 1.5)])
def test_what_is_no_tail_is_refused(failures: int, n: int, rate: float) -> None:
    with pytest.raises(ValueError, match="no binomial tail"):
        at_most(failures, n, rate)
