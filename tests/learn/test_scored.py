"""What a verifier's score adds to the forecast."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.estimate.learned import logit, sigmoid
from governor.learn.scored import fit_scores


def drawn(gain: float, questions: int = 1500, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """(forecasts, outcomes, scores): the first rung's score says by `gain` whether it, and the second, are right."""
    rng = np.random.default_rng(seed)
    odds, z = rng.normal(0.0, 1.0, (questions, 2)), rng.normal(size=questions)
    y = (rng.random((questions, 2)) < sigmoid(odds + gain * np.array([1.0, 0.5]) * z[:, None])).astype(np.float64)
    score = np.full((questions, 2), np.nan)
    score[:, 0] = sigmoid(z)
    return odds, y[:, :, None], score[:, :, None]


def test_nothing_scored_is_nothing_known() -> None:
    odds, y, score = drawn(1.0, 50)
    assert fit_scores(odds, y, np.full_like(score, np.nan)) is None


def test_a_telling_score_moves_its_own_rung_most() -> None:
    found = fit_scores(*drawn(1.5))
    assert found is not None
    assert found.gain[0] == pytest.approx([1.5, 0.75], abs=0.25)
    assert found.base == pytest.approx(np.zeros((2, 2)), abs=0.2)
    assert np.isnan(found.centre[1])
    assert found.gain[1].tolist() == [0.0, 0.0]
    assert found.seen[0] - found.passed[0] > 0.3
    assert (found.seen[1], found.passed[1]) == (1.0, 1.0)


def test_a_score_that_tells_nothing_moves_nothing() -> None:
    found = fit_scores(*drawn(0.0))
    assert found is not None
    assert abs(found.gain[0]).max() < 0.15
    assert found.seen[0] - found.passed[0] < 0.1


def test_scores_at_the_ends_stay_finite() -> None:
    odds, y, score = drawn(1.0, 200)
    score[:, 0, 0] = (score[:, 0, 0] > 0.5).astype(np.float64)
    found = fit_scores(odds, y, score)
    assert found is not None
    assert np.isfinite(found.gain).all()
    assert found.centre[0] == pytest.approx(logit(score[:, 0, 0]).mean())


def test_a_handful_of_scores_is_not_fitted() -> None:
    odds, y, score = drawn(2.0, 200)
    score[15:] = np.nan
    found = fit_scores(odds, y, score)
    assert found is not None
    assert found.gain.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert np.isnan(found.centre).all()
