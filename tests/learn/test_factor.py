"""Loadings are recovered from outcomes drawn with known ones."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid
from governor.learn.factor import loadings


def drawn(loading: list[float], questions: int = 2500, seed: int = 0) -> tuple[Floats, Floats]:
    """(forecasts, outcomes): the forecasts are the log-odds averaged over the hidden difficulty."""
    rng = np.random.default_rng(seed)
    b = np.array(loading)
    centre = rng.normal(0.0, 1.0, (questions, len(b)))
    p = sigmoid(centre - b * rng.normal(size=(questions, 1)))
    odds = centre / np.sqrt(1.0 + np.pi * b**2 / 8.0)
    return odds, (rng.random(p.shape) < p).astype(np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_independent_rungs_load_on_nothing(seed: int) -> None:
    odds, y = drawn([0.0, 0.0, 0.0], seed=seed)
    assert loadings(odds, y, np.ones_like(y)).max() <= 0.5


@pytest.mark.parametrize("seed", range(3))
def test_rungs_that_fail_together_load_heavily(seed: int) -> None:
    odds, y = drawn([2.0, 2.0, 2.0], seed=seed)
    found = loadings(odds, y, np.ones_like(y))
    assert found.min() >= 1.5
    assert found.max() <= 3.0


def test_a_rung_of_its_own_kind_keeps_its_own_loading() -> None:
    odds, y = drawn([2.0, 2.0, 0.0], questions=3000)
    found = loadings(odds, y, np.ones_like(y))
    assert found[2] <= 0.5
    assert found[:2].min() >= 1.5


def test_missing_outcomes_do_not_count() -> None:
    odds, y = drawn([2.0, 2.0])
    weight = np.ones_like(y)
    weight[1500:] = 0.0
    assert (
        loadings(odds, np.where(weight > 0, y, 1.0 - y), weight).tolist()
        == loadings(odds[:1500], y[:1500], weight[:1500]).tolist()
    )


def test_one_rung_shares_with_nobody() -> None:
    odds, y = drawn([3.0], questions=100)
    assert loadings(odds, y, np.ones_like(y)).tolist() == [0.0]
