"""As much of a forecast as outcomes bear out."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.estimate.learned import logit, sigmoid
from governor.learn.shrink import Shrinkage, shrinkage


def drawn(true: Floats, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    outcomes: Floats = (rng.random(true.shape) < sigmoid(true)).astype(np.float64)
    return outcomes


def fitted(raw: Floats, y: Floats, groups: Floats | None = None) -> Shrinkage:
    return shrinkage(raw, y, np.ones_like(y), np.arange(len(y), dtype=np.float64) if groups is None else groups)


def test_a_boastful_forecast_is_drawn_in() -> None:
    true = np.random.default_rng(1).normal(0.5, 1.0, (3000, 2))
    found = fitted(2.0 * true + 0.7, drawn(true))
    assert found.slope == pytest.approx([0.5, 0.5], abs=0.07)
    assert found.applied(2.0 * true + 0.7) == pytest.approx(true, abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_that_owe_nothing_to_the_forecast_give_the_base_rate(seed: int) -> None:
    raw = np.random.default_rng(seed).normal(0.0, 1.0, (600, 3))
    y = drawn(np.full((600, 3), 0.8), seed + 100)
    found = fitted(raw, y)
    assert found.slope.tolist() == [0.0, 0.0, 0.0]
    assert sigmoid(found.applied(raw)) == pytest.approx(np.tile(y.mean(axis=0), (600, 1)), abs=0.002)


def test_one_rung_may_be_known_and_another_not() -> None:
    raw = np.random.default_rng(2).normal(0.0, 1.5, (1500, 2))
    found = fitted(raw, np.column_stack([drawn(raw[:, 0]), drawn(np.zeros(1500), 5)]))
    assert found.slope[0] > 0.8
    assert found.slope[1] == 0.0


def test_what_a_single_group_tells_is_no_evidence() -> None:
    """Forty copies of one question are one observation."""
    raw = np.where(np.arange(400) < 40, 3.0, 0.0)[:, None] + np.random.default_rng(0).normal(0, 0.01, (400, 1))
    y = np.where(np.arange(400) < 40, 1.0, np.arange(400) % 2)[:, None]
    groups = np.where(np.arange(400) < 40, 0, np.arange(400)).astype(np.float64)
    assert fitted(raw, y, groups).slope[0] == 0.0
    assert fitted(raw, y).slope[0] > 0.0


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_rung_with_one_outcome_stays_finite(outcome: float) -> None:
    raw = np.random.default_rng(0).normal(size=(100, 2))
    y = np.column_stack([np.full(100, outcome), drawn(raw[:, 1])])
    found = fitted(raw, y)
    p = sigmoid(found.applied(raw))[:, 0]
    assert found.slope[0] == 0.0
    assert np.isfinite(p).all()
    assert abs(p - outcome).max() < 0.05


def test_rows_without_an_outcome_do_not_count() -> None:
    true = np.random.default_rng(3).normal(0.0, 1.5, (800, 1))
    y, weight = drawn(true), (np.arange(800) < 500).astype(np.float64)[:, None]
    spoilt = np.where(weight > 0, y, 1.0 - y)
    groups = np.arange(800, dtype=np.float64)
    here, there = shrinkage(true, spoilt, weight, groups), fitted(true[:500], y[:500])
    assert here.slope == pytest.approx(there.slope)
    assert here.applied(true) == pytest.approx(there.applied(true), abs=1e-6)


def test_logit_is_the_inverse_of_sigmoid() -> None:
    odds = np.linspace(-8.0, 8.0, 33)
    assert logit(sigmoid(odds)) == pytest.approx(odds)
