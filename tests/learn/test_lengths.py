"""Lengths that were cut are lower bounds, not lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate.calibration import Lengths
from governor.estimate.curves import Floats
from governor.learn.lengths import fit_lengths
from governor.learn.table import Flags


def drawn(cap: float, spread: float, seed: int, questions: int = 1500) -> tuple[Floats, Floats, Flags, Floats]:
    """(places, tokens as recorded, whole ones, true lengths); log length is 6 + place and noise."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(questions, 2))
    true = np.exp(6.0 + 0.5 * places[:, 0] + rng.normal(0.0, spread, questions))
    return places, np.minimum(true, cap)[:, None, None], (true <= cap)[:, None, None], true


def mean_of(found: Lengths, places: Floats) -> float:
    return float(np.exp(found.start[0] + places @ found.slope[:, 0] + found.spread[0] ** 2 / 2.0).mean())


@given(st.sampled_from([400.0, 600.0, 1000.0]), st.sampled_from([0.5, 0.8]), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_caps_do_not_bias_the_forecast_low(cap: float, spread: float, seed: int) -> None:
    places, tokens, finished, true = drawn(cap, spread, seed)
    found = fit_lengths(places, tokens, finished)
    forecast = mean_of(found, places)
    model = float(np.exp(6.0 + 0.5 * places[:, 0] + spread**2 / 2.0).mean())
    assert forecast == pytest.approx(model, rel=0.15)
    assert found.whole[0] == pytest.approx(finished.mean())
    if cap <= 600.0:
        assert tokens.mean() < 0.8 * true.mean()  # what the naive mean would say


def test_the_worst_cap_hides_most_and_little_is_lost() -> None:
    places, tokens, finished, true = drawn(300.0, 0.8, 7, questions=6000)
    assert finished.mean() < 0.5
    assert tokens.mean() < 0.6 * true.mean()
    found = fit_lengths(places, tokens, finished)
    assert mean_of(found, places) == pytest.approx(true.mean(), rel=0.07)
    assert found.spread[0] == pytest.approx(0.8, rel=0.05)
    assert found.slope[:, 0] == pytest.approx([0.5, 0.0], abs=0.05)


def test_without_a_cap_it_is_a_regression() -> None:
    places, tokens, finished, true = drawn(np.inf, 0.5, 1)
    found = fit_lengths(places, tokens, finished)
    assert mean_of(found, places) == pytest.approx(true.mean(), rel=0.04)
    assert found.whole.tolist() == [1.0]


def test_a_question_with_one_cut_sample_is_not_whole() -> None:
    """A mean over samples would hide which of them were cut."""
    rng = np.random.default_rng(3)
    true = np.exp(rng.normal(6.0, 0.8, (1500, 1, 4)))
    places = np.zeros((1500, 1))
    cap = 450.0
    found = fit_lengths(places, np.minimum(true, cap), true <= cap)
    assert mean_of(found, places) == pytest.approx(true.mean(), rel=0.06)


@pytest.mark.parametrize(
    ("known", "whole"),
    [(19, True), (0, True), (200, False)],
)
def test_too_few_lengths_or_only_cut_ones_are_unknown(known: int, whole: bool) -> None:
    tokens = np.full((200, 1, 1), np.nan)
    tokens[:known] = 100.0
    found = fit_lengths(np.zeros((200, 3)), tokens, np.full(tokens.shape, whole))
    assert np.isnan(found.spread[0])
    assert found.slope.tolist() == [[0.0]] * 3


def test_equal_lengths_have_next_to_no_spread() -> None:
    tokens = np.full((50, 1, 1), 64.0)
    found = fit_lengths(np.zeros((50, 1)), tokens, np.ones(tokens.shape, dtype=np.bool_))
    assert found.spread[0] <= 0.002
    assert np.exp(found.start[0]) == pytest.approx(64.0)
