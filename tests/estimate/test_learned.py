"""Forecasts of a calibration: through its file, joined by a latent difficulty, updated by verdicts and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.calibration import load_calibration, save_calibration
from governor.estimate.learned import (
    NODES,
    WEIGHTS,
    LearnedBelief,
    LearnedEstimator,
    axes_of,
    curves_of,
    logit,
    mixed,
    raw_odds,
    seen_of,
    sigmoid,
    standardised,
)
from governor.estimate.rules import RuleEstimator
from governor.learn.heads import Design
from governor.protocols import Situation, Terms
from governor.records import Price, Rung, Step
from tests.learn.learnable import fitted

PRICE = Price(input=1.0, output=2.0)
LOW, HIGH = Rung(id="low", model="m", price=PRICE), Rung(id="high", model="m", price=PRICE)
TERMS = Terms(app="a", ladder=(LOW, HIGH))
EASY, HARD = "add term1 of the sum", "prove term1 of the sum"


def step(text: str) -> Step:
    return Step(id="s", messages=({"role": "user", "content": text},))


def belief(text: str, terms: Terms = TERMS) -> LearnedBelief:
    found = LearnedEstimator(fitted()).estimate(step(text), terms)
    assert isinstance(found, LearnedBelief)
    return found


def situation(text: str = EASY, terms: Terms = TERMS) -> Situation:
    return Situation(step=step(text), terms=terms, sensitivity=0.9, false_accept=0.1)


def test_forecasts_follow_the_words() -> None:
    easy, hard = (belief(text).forecasts(situation(text)) for text in (EASY, HARD))
    assert easy[0].p_success == pytest.approx(0.8, abs=0.1)
    assert hard[0].p_success == pytest.approx(0.1, abs=0.1)
    assert easy[1].p_success == pytest.approx(0.9, abs=0.07)
    assert easy[0].output_tokens < hard[0].output_tokens / 3  # in truth exp(4) and exp(6)
    assert hard[0].p_accept == pytest.approx(hard[0].p_success * 0.9 + (1 - hard[0].p_success) * 0.1)
    asked = belief(HARD).input_tokens
    assert hard[0].micros == pytest.approx(asked * 1.0 + hard[0].output_tokens * 2.0)


@pytest.mark.parametrize("text", [EASY, HARD, "", "数学 " * 50, "x" * 100_000, "\ud800"])
def test_through_the_file_forecasts_stay_the_same(tmp_path: Path, text: str) -> None:
    save_calibration(fitted(), tmp_path / "c.npz")
    read = LearnedEstimator(load_calibration(tmp_path / "c.npz")).estimate(step(text), TERMS)
    for here, there in zip(read.forecasts(situation(text)), belief(text).forecasts(situation(text)), strict=True):
        assert here.p_success == pytest.approx(there.p_success, abs=1e-6)
        assert here.output_tokens == pytest.approx(there.output_tokens, rel=1e-6)
        assert 0.0 < here.p_success < 1.0


def test_serving_one_step_is_what_fitting_computes_for_many() -> None:
    """Sparse matrices in fitting, and a gather in serving."""
    known, texts = fitted(), (EASY, HARD, "derive the term7 ∑ of add add add")
    design = Design.of([step(text) for text in texts])
    words, x = design.weighted(known.text.idf.astype(np.float64))
    linear = x @ known.text.weight.astype(np.float64) + known.text.bias
    axes = words @ known.text.axes.astype(np.float64)
    many = mixed(linear, known.trees.many(np.hstack([linear, design.numbers, axes]))[0], known.mix)
    for text, wanted in zip(texts, many, strict=True):
        seen = seen_of(step(text), known.text.idf.astype(np.float64))
        assert raw_odds(known, seen, axes_of(known, seen)) == pytest.approx(wanted, abs=1e-9)


@given(st.floats(-6.9, 6.9), st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]))
def test_curves_average_to_the_forecast(odds: float, loading: float) -> None:
    curve = curves_of(np.array([odds]), np.array([loading]))[0]
    wanted = float(sigmoid(np.array([odds]))[0])
    assert float(curve @ WEIGHTS) == pytest.approx(wanted, abs=0.01)
    assert (np.diff(curve) <= 1e-12).all()  # harder is never likelier right
    assert len(NODES) == len(curve)


def test_order_and_choice_of_rungs_are_the_ladders() -> None:
    both, one = belief(HARD), belief(HARD, replace(TERMS, ladder=(HIGH,)))
    swapped = belief(HARD, replace(TERMS, ladder=(HIGH, LOW)))
    assert swapped.odds.tolist() == both.odds[::-1].tolist()
    assert one.odds.tolist() == both.odds[1:].tolist()


def test_an_unknown_rung_is_left_to_the_rules() -> None:
    terms = replace(TERMS, ladder=(LOW, Rung(id="new", model="m", price=PRICE)))
    found = LearnedEstimator(fitted()).estimate(step(EASY), terms)
    rules = RuleEstimator().estimate(step(EASY), terms)
    wanted = [one.p_success for one in rules.forecasts(situation(EASY, terms))]
    assert [one.p_success for one in found.forecasts(situation(EASY, terms))] == wanted


def test_a_verdict_moves_the_other_rungs_as_far_as_they_share_difficulty() -> None:
    at = situation(HARD)
    shared = replace(fitted(), loading=np.array([3.0, 3.0]))
    apart = replace(fitted(), loading=np.array([0.0, 0.0]))
    for known, moved in ((shared, True), (apart, False)):
        before = LearnedEstimator(known).estimate(step(HARD), TERMS)
        rejected = before.after(LOW, "reject", at).forecasts(at)[1].p_success
        accepted = before.after(LOW, "accept", at).forecasts(at)[1].p_success
        usual = before.forecasts(at)[1].p_success
        assert (rejected < usual - 0.005 and accepted > usual + 0.02) == moved
        assert moved or (rejected, accepted) == pytest.approx((usual, usual), abs=1e-9)
        assert before.after(LOW, "unsure", at).forecasts(at)[1].p_success == usual


def test_reasons_name_rungs_without_knowledge() -> None:
    blind = replace(fitted(), slope=np.array([0.0, 1.0]))
    assert belief(EASY).reasons[0].startswith("learned forecast 0.")
    found = LearnedEstimator(blind).estimate(step(EASY), TERMS)
    assert "base rate only for low" in found.reasons


def test_unknown_lengths_cost_what_they_did() -> None:
    known = fitted()
    unknown = replace(known, lengths=replace(known.lengths, spread=np.array([np.nan, known.lengths.spread[1]])))
    found = LearnedEstimator(unknown).estimate(step(EASY), TERMS).forecasts(situation())
    assert found[0].micros == pytest.approx(1e6 * known.mean_cost[0])
    assert found[0].output_tokens == LOW.max_tokens


@given(st.floats(0.0, 1.0))
def test_scores_are_kept_within_three_spreads(score: float) -> None:
    assert -3.0 <= standardised(score, 0.0, 0.1) <= 3.0
    assert np.isfinite(logit(np.array([score]))).all()
