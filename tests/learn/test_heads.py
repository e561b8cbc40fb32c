"""Linear heads, axes and trees: pooling of nodes, odd rungs, empty texts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from governor.errors import MissingExtraError
from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid
from governor.learn.heads import AXES, BUCKETS, Design, fit_axes, fit_linear, inverse_frequency, most_rounds, text_of
from governor.records import Step


def design_of(texts: list[str], nodes: list[str] | None = None) -> Design:
    named = nodes or ["default"] * len(texts)
    return Design.of(
        [
            Step(id=str(at), messages=({"role": "user", "content": text},), node=node)
            for at, (text, node) in enumerate(zip(texts, named, strict=True))
        ]
    )


def forecasts(design: Design, y: Floats, weight: Floats | None = None, strength: float = 1.0) -> Floats:
    _, x = design.weighted(inverse_frequency(design.counts))
    coefficients, intercepts = fit_linear(x, y, np.ones_like(y) if weight is None else weight, strength)
    found: Floats = sigmoid(x @ coefficients + intercepts)
    return found


def test_words_that_tell_are_learned() -> None:
    texts = [f"{'prove' if at % 2 else 'add'} number{at}" for at in range(200)]
    y = (np.arange(200) % 2 == 0).astype(np.float64)[:, None]
    p = forecasts(design_of(texts), y)[:, 0]
    assert p[y[:, 0] == 1].min() > 0.75
    assert p[y[:, 0] == 0].max() < 0.25


def test_nodes_are_partially_pooled() -> None:
    """A node's own rate counts for as much as it has rows: one with few stays near all the others."""
    rng = np.random.default_rng(0)
    nodes = ["usual"] * 600 + ["often"] * 300 + ["rare"] * 4
    y = np.concatenate([rng.random(600) < 0.8, rng.random(300) < 0.3, np.zeros(4)]).astype(np.float64)[:, None]
    p = forecasts(design_of(["the same words"] * len(nodes), nodes), y)[:, 0]
    assert p[0] == pytest.approx(0.8, abs=0.05)
    assert p[600] == pytest.approx(0.3, abs=0.06)
    pooled = float(y.mean())
    assert abs(p[-1] - pooled) < abs(p[600] - pooled) < abs(0.0 - pooled)
    assert p[-1] > 0.3  # its own four rows say 0


def test_texts_of_one_template_have_no_axes() -> None:
    """Where they differ in words of their own alone, what is left of rounding is no direction."""
    design = design_of([f"Go on with story q{at}." for at in range(80)])
    words, _ = design.weighted(inverse_frequency(design.counts))
    assert not fit_axes(words, seed=0).any()


def test_fractions_count_on_both_sides() -> None:
    p = forecasts(design_of(["words"] * 60), np.full((60, 1), 0.7))
    assert p == pytest.approx(np.full((60, 1), 0.7), abs=0.01)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_rung_with_one_outcome_gets_its_smoothed_rate(outcome: float) -> None:
    p = forecasts(design_of([f"word{at}" for at in range(40)]), np.full((40, 1), outcome))
    assert p == pytest.approx(np.full((40, 1), (40 * outcome + 0.5) / 41.0))


def test_rows_without_an_outcome_do_not_count() -> None:
    texts = [f"{'prove' if at % 2 else 'add'} number{at}" for at in range(100)]
    y = (np.arange(100) % 2 == 0).astype(np.float64)[:, None]
    weight = (np.arange(100) < 60).astype(np.float64)[:, None]
    spoilt = np.where(weight > 0, y, 1.0 - y)
    assert forecasts(design_of(texts), spoilt, weight)[:, 0] == pytest.approx(
        forecasts(design_of(texts), y, weight)[:, 0]
    )


@pytest.mark.parametrize("texts", [["", "", ""], ["one", "", "two words"], ["数学 の 問題"] * 3])
def test_texts_of_any_kind_have_a_place(texts: list[str]) -> None:
    design = design_of(texts)
    words, x = design.weighted(inverse_frequency(design.counts))
    axes = fit_axes(words, 0)
    assert axes.shape == (BUCKETS, AXES)
    assert np.isfinite(words @ axes).all()
    assert np.isfinite(x.toarray()).all()


def test_texts_with_few_directions_have_no_others() -> None:
    words, _ = design_of(["alpha beta", "gamma delta"] * 40).weighted(np.ones(BUCKETS))
    axes = fit_axes(words, 0)
    assert 1 <= np.count_nonzero(np.abs(axes).max(axis=0) > 0) <= 2
    assert np.abs(axes).max() < 100.0


def test_words_seen_once_do_not_count() -> None:
    design = design_of(["alpha beta", "alpha gamma", "alpha"])
    idf = inverse_frequency(design.counts)
    assert np.count_nonzero(idf) == 1


def test_stored_weights_are_rounded_to_one_part_in_128() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(500, 2))
    stored = text_of(np.ones(500), exact, np.zeros(2), exact)
    assert np.abs(stored.weight.astype(np.float64) / exact - 1.0).max() <= 1.0 / 128 + 1e-3
    assert stored.weight.dtype == np.float16
    assert text_of(np.ones(1), np.zeros((1, 2)), np.zeros(2), np.zeros((1, 2))).weight.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("rungs", "rounds"), [(1, 250), (4, 250), (10, 100), (51, 19), (5000, 1)])
def test_trees_are_shared_among_rungs(rungs: int, rounds: int) -> None:
    assert most_rounds(rungs) == rounds


@pytest.mark.parametrize("absent", ["scipy.sparse", "sklearn.linear_model"])
def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    gone: dict[str, Any] = {absent: None}
    monkeypatch.setitem(sys.modules, absent, gone[absent])
    with pytest.raises(MissingExtraError, match=r"pip install 'compute-governor\[learn\]'"):
        forecasts(design_of(["a word", "a word"]), np.array([[0.0], [1.0]]))
