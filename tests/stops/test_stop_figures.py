"""The figures of single rules: thresholds, means and variances as their papers define them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.stops.group import CEILING, confidence, warm_threshold
from governor.stops.margin import margin_of, sure
from governor.stops.phrases import NAMES, PHRASES, STUCK, ended_by
from governor.stops.settings import MAX_STEPS
from governor.stops.steps import variance


def test_confidence_is_the_mean_of_negative_logs() -> None:
    logprobs = np.log(np.array([[0.5, 0.25, 0.125, 0.125]]))
    ranks = np.arange(4)
    assert confidence(np, logprobs, np.array([2.0]), ranks)[0] == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert confidence(np, logprobs, np.array([20.0]), ranks)[0] == pytest.approx(
        -np.log([0.5, 0.25, 0.125, 0.125]).mean()
    )
    assert confidence(np, np.array([[0.0, -np.inf]]), np.array([2.0]), np.arange(2))[0] == CEILING / 2


def test_a_warm_threshold_lets_its_share_of_traces_pass() -> None:
    lowest = [float(value) for value in range(1, 17)]
    threshold = warm_threshold(lowest, keep=0.9)
    assert threshold == pytest.approx(2.5)
    assert sum(value >= threshold for value in lowest) == 14
    with pytest.raises(ValueError, match="warm-up traces"):
        warm_threshold([])


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=8), st.floats(0, 5))
def test_the_margin_decides_as_the_papers_own_does(logits: list[float], tau: float) -> None:
    """ThinkBrake: max over y != e of z(y) - z(e) <= tau, here with the maximum over all y."""
    ours = margin_of(max(logits), logits[0])
    papers = max(logits[1:]) - logits[0]
    assert (ours <= tau) is (papers <= tau)


def test_a_margin_counts_in_units_of_the_temperature_at_sentence_ends() -> None:
    margin, tau = np.array([0.5, 0.5, 0.5]), np.array([0.4, 0.4, 0.4])
    said = sure(margin, np.array([1.0, 2.0, 2.0]), tau, np.array([1.0, 1.0, 0.0]))
    assert said.tolist() == [False, True, False]


@given(st.lists(st.floats(0, 1), min_size=MAX_STEPS, max_size=MAX_STEPS), st.integers(1, MAX_STEPS))
def test_variance_is_that_of_the_newest_steps(recent: list[float], count: int) -> None:
    found = variance(np, np.array([recent]), np.array([float(count)]), np.arange(MAX_STEPS))
    assert found[0] == pytest.approx(np.var(recent[:count]), abs=1e-12)


def test_each_rule_is_known_by_its_words() -> None:
    assert {ended_by(f"so it is{PHRASES[code]}") for code in NAMES} == set(NAMES.values())
    assert ended_by("so it is") == ""
    assert set(NAMES.values()) >= STUCK
