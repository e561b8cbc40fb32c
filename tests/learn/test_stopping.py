"""Thresholds of stop rules: how they are ordered, what is counted, and that what is certified holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import RecordError
from governor.estimate.curves import Floats
from governor.learn.certify import Bools
from governor.learn.looks import Looks
from governor.learn.stopping import (
    Rule,
    budget_rule,
    fit_stops,
    group_rule,
    margin_rule,
    repeat_rule,
    score_rule,
)
from governor.learn.thoughts import REPEATS, Thought
from governor.stops.tokens import Token

BUDGETS = np.array([0.0, 100.0, 200.0, 400.0])


def looks(right: Bools, signal: Floats | None = None, field: str = "p_top") -> Looks:
    count = len(right)
    return Looks(
        groups=tuple(f"q{at}" for at in range(count)),
        rungs=("b0", "b100", "b200", "full"),
        budgets=BUDGETS,
        tokens=np.tile(BUDGETS + 1.0, (count, 1)),
        known=np.ones_like(right),
        right=right,
        signals={} if signal is None else {field: signal},
    )


def drawn(count: int, seed: int = 0) -> tuple[Bools, Floats]:
    """Thoughts that turn right at some look, and a score that mostly knows."""
    rng = np.random.default_rng(seed)
    right = np.arange(4)[None, :] >= rng.integers(0, 5, size=count)[:, None]
    return right, np.clip(0.3 + 0.4 * right + 0.3 * rng.random((count, 4)), 0.0, 1.0)


def test_budgets_are_tried_from_the_largest_to_none() -> None:
    rule = budget_rule(looks(np.array([[False, True, True, True], [True, True, False, False]])))
    assert rule.thresholds.tolist() == [200, 100, 0]
    assert rule.lost.tolist() == [[False, False], [False, False], [True, False]]
    assert rule.ended.all()


def test_a_thought_that_ended_by_itself_before_the_budget_is_not_ended() -> None:
    short = looks(np.ones((1, 4), dtype=np.bool_))
    short.tokens[:] = [[1.0, 60.0, 60.0, 60.0]]
    assert budget_rule(short).ended[:, 0].tolist() == [False, False, True]


@given(st.integers(0, 9))
def test_eager_thresholds_end_whatever_careful_ones_do(seed: int) -> None:
    right, signal = drawn(80, seed)
    for rule in (
        score_rule(looks(right, signal), "p_top", seed=seed),
        margin_rule(looks(right, 1.0 - signal, "margin"), seed=seed),
    ):
        assert (np.diff(rule.ended.astype(int), axis=0) >= 0).all()
        assert len(rule.groups) == rule.lost.shape[1] == 60, "a quarter tells the thresholds"


def test_a_score_and_the_margin_that_mirrors_it_end_the_same_thoughts() -> None:
    right, signal = drawn(80)
    score = score_rule(looks(right, signal), "p_top", seed=0)
    margin = margin_rule(looks(right, 2.0 - signal, "margin"), seed=0)
    assert (np.diff(score.thresholds) < 0).all()
    assert (np.diff(margin.thresholds) > 0).all()
    np.testing.assert_allclose(margin.thresholds, 2.0 - score.thresholds)
    np.testing.assert_array_equal(margin.ended, score.ended)
    np.testing.assert_array_equal(margin.lost, score.lost)


def test_a_look_without_the_figure_ends_nothing() -> None:
    right, signal = drawn(80)
    told = signal.copy()
    told[:, :2] = np.nan
    rule = score_rule(looks(right, told), "p_top", seed=0)
    first = ~right[:, 2] & right[:, 3]
    assert rule.lost.any(axis=0).sum() <= first.sum()


def test_the_certified_threshold_is_the_last_that_passed_and_shares_the_risk() -> None:
    lost = np.zeros((4, 300), dtype=np.bool_)
    lost[2, :5], lost[3, :60] = True, True
    rule = Rule("repeat", np.array([9.0, 6.0, 4.0, 2.0]), tuple(map(str, range(300))), lost, lost)
    (alone,) = fit_stops([rule], risk=0.05, delta=0.05)
    assert (alone.threshold, alone.shown.failures, alone.ended) == (4.0, 5, (0, 0, 5, 60))
    shared, other = fit_stops([rule, rule], risk=0.05, delta=0.05)
    assert (shared.trials.risk, shared.trials.delta) == (0.025, 0.025)
    assert shared.threshold == other.threshold == 6.0


def test_where_not_even_the_first_passes_there_is_no_threshold() -> None:
    rule = Rule("budget", np.array([100.0]), ("a", "b"), np.ones((1, 2), np.bool_), np.zeros((1, 2), np.bool_))
    (found,) = fit_stops([rule], risk=0.05, delta=0.05)
    assert found.threshold is None
    assert found.trials.units_needed() == 59


def test_of_each_question_one_thought_is_counted() -> None:
    lost = np.zeros((1, 600), dtype=np.bool_)
    rule = Rule("repeat", np.array([4.0]), tuple(str(at // 10) for at in range(600)), lost, lost)
    assert fit_stops([rule], risk=0.05, delta=0.05)[0].shown.n == 60


def test_certificates_hold_as_often_as_they_claim() -> None:
    """The true risk is known: thresholds 1 and 2 lose .03 and .09 of right answers, where .05 is allowed."""
    rng = np.random.default_rng(5)
    violated = 0
    for _ in range(200):
        luck = rng.random(300)
        lost = np.array([luck < 0.03, luck < 0.09])
        rule = Rule("repeat", np.array([8.0, 4.0]), tuple(map(str, range(300))), lost, lost)
        violated += fit_stops([rule], risk=0.05, delta=0.05)[0].threshold == 4.0
    assert violated <= 19, "P(more than 19 of 200 at .05) is below .003"


def test_what_is_given_up_counts_as_lost_where_it_was_right() -> None:
    loop = "wait, but then it is not so, or is it? "
    thoughts = [Thought(group=str(at), right=at % 2 == 0, thinking=loop * 20 if at < 2 else "so") for at in range(4)]
    rule = repeat_rule(thoughts)
    assert rule.thresholds.tolist() == list(REPEATS)
    assert rule.ended[-1].tolist() == [True, True, False, False]
    assert rule.lost[-1].tolist() == [True, False, False, False]


def test_groups_fall_below_rising_thresholds() -> None:
    def thought(at: int) -> Thought:
        token = Token("a", -0.1, (("a", -0.01 * at), ("b", -0.01 * at)))
        return Thought(group=str(at), right=True, tokens=(token,) * 40)

    rule = group_rule([thought(at) for at in range(1, 81)], 32, 2, seed=0)
    assert (np.diff(rule.thresholds) > 0).all()
    assert (np.diff(rule.ended.sum(axis=1)) >= 0).all()
    assert rule.ended[-1].any()
    np.testing.assert_array_equal(rule.lost, rule.ended)


def test_traces_without_a_full_window_tell_nothing() -> None:
    with pytest.raises(RecordError, match="no thought here has log-probabilities over a full window of 64 tokens"):
        group_rule([Thought(group="a", right=True, thinking="so")], 64, 2, seed=0)
