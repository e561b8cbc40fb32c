"""The benchmark of stop rules: what a look costs, what is held against what, and that a blind rule gains nothing."""

from __future__ import annotations

import numpy as np

from benchmarks.stops import Figures, cross_fitted, figures, fixed_figures, leads, measure
from governor.estimate.curves import Floats
from governor.learn.certify import Bools
from governor.learn.looks import Looks

BUDGETS = np.array([0.0, 256.0, 512.0, 1024.0])


def looks(right: Bools, signal: Floats, samples: int = 1) -> Looks:
    count = len(right)
    return Looks(
        groups=tuple(f"q{at // samples:03d}" for at in range(count)),
        rungs=("b0", "b256", "b512", "full"),
        budgets=BUDGETS,
        tokens=np.tile(BUDGETS + 1.0, (count, 1)),
        known=np.ones_like(right),
        right=right,
        signals={"p_top": signal, "p_margin": signal},
    )


def turning(count: int, seed: int) -> Bools:
    right: Bools = np.arange(4)[None, :] >= np.random.default_rng(seed).integers(0, 6, size=count)[:, None]
    return right


def test_looks_before_the_last_are_paid_and_fixed_budgets_pay_none() -> None:
    found = looks(np.array([[False, False, True, True], [True] * 4]), np.zeros((2, 4)))
    ends = [np.array([2, 0]), np.array([3, 3])]
    assert figures(found, iter(ends)).cost.tolist() == [[513 + 2, 1], [1025 + 3, 1025 + 3]]
    assert figures(found, iter(ends), first=2).cost.tolist() == [[513, 1], [1025 + 1, 1025 + 1]]
    assert fixed_figures(found).cost.tolist() == [[1, 1], [257, 257], [513, 513], [1025, 1025]]


def test_a_question_weighs_one_whatever_its_samples() -> None:
    found = looks(np.array([[True] * 4, [False] * 4]), np.zeros((2, 4)), samples=2)
    assert figures(found, [np.array([0, 3])]).accuracy.tolist() == [[0.5]]


def test_each_fold_is_stopped_by_what_the_others_chose() -> None:
    fold = np.arange(50) % 5
    rule = Figures(np.array([np.where(fold == 0, 1300.0, 100.0), np.full(50, 300.0)]), np.zeros((2, 50)))
    held = cross_fitted(rule, np.full(50, 100.0), fold, 0.0)
    assert set(held.cost[0, fold == 0]) == {1300.0}, "chosen where it cost 100, without a look at its own fold"
    assert set(held.cost[0, fold != 0]) == {300.0}


def test_of_settings_that_cost_as_much_the_one_that_was_right_is_taken() -> None:
    rule = Figures(np.array([[100.0] * 10, [104.0] * 10, [150.0] * 10]), np.array([[0.2] * 10, [0.5] * 10, [0.9] * 10]))
    held = cross_fitted(rule, np.full(10, 100.0), np.arange(10) % 5, 0.05)
    assert held.accuracy[0].tolist() == [0.5] * 10


def test_a_mixture_of_budgets_leads_by_nothing() -> None:
    found = looks(turning(40, 0), np.zeros((40, 4)))
    fixed = fixed_figures(found)
    half = Figures(fixed.cost[1:3].mean(axis=0)[None], fixed.accuracy[1:3].mean(axis=0)[None])
    weights = np.random.default_rng(1).dirichlet(np.ones(40), size=20)
    over_fixed, over_mixing = leads(half, fixed, weights).T
    np.testing.assert_allclose(over_fixed, 0.0, atol=1e-9)
    assert (over_mixing <= 1e-9).all()


def test_a_signal_that_knows_leads_and_noise_does_not() -> None:
    right = turning(400, 2)
    noise = np.random.default_rng(3).random(right.shape)
    knowing, blind = (
        next(row for row in measure(looks(right, signal), resamples=50) if (row.rule, row.budget) == ("p_top", "mean"))
        for signal in (0.5 * right + 0.5 * noise, noise)
    )
    assert knowing.over_mixing > 3.0
    assert knowing.over_mixing_interval[0] > 0.0
    assert blind.over_mixing < 0.0
    assert blind.over_fixed_interval[1] < knowing.over_fixed
