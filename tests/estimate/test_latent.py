from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.curves import FLOOR, GRID, curves, need_after
from governor.estimate.latent import LatentBelief, latent
from governor.protocols import Situation, Terms
from governor.records import Attempt, Price, Reply, Rung, Step, Verdict

SMALL = Rung(id="small", model="s", answer_tokens=300, price=Price(input=1, output=2))
MORE = Rung(id="more", model="s", answer_tokens=300, thinking_tokens=2000, price=Price(input=1, output=2))
LARGE = Rung(id="large", model="l", price=Price(input=10, output=20))
LADDER = (SMALL, MORE, LARGE)


def situation(*attempts: Attempt, ladder: tuple[Rung, ...] = LADDER, **changes: Any) -> Situation:
    made: dict[str, Any] = {"sensitivity": 0.9, "false_accept": 0.1, **changes}
    return Situation(step=Step(id="s", messages=()), terms=Terms(app="test", ladder=ladder), attempts=attempts, **made)


def belief(mean: float = 0.0, sd: float = 1.0, **changes: Any) -> LatentBelief:
    return LatentBelief.normal(mean, sd, Terms(app="test", ladder=LADDER), **changes)


def test_the_prior_is_the_normal_density() -> None:
    weights = belief(0.4, 0.8).weights
    assert len(GRID) == 41
    assert weights.sum() == pytest.approx(1)
    assert GRID @ weights == pytest.approx(0.4, abs=0.01)
    assert np.sqrt((GRID - 0.4) ** 2 @ weights) == pytest.approx(0.8, abs=0.01)


@given(st.floats(-2, 2), st.floats(0.3, 1.5), st.floats(0.5, 0.99), st.floats(0.01, 0.45), st.sampled_from(LADDER))
def test_verdicts_move_the_belief_by_bayes(mean: float, sd: float, seen: float, passed: float, rung: Rung) -> None:
    prior = belief(mean, sd)
    where = situation(sensitivity=seen, false_accept=passed)
    correct = prior.curves.answer[LADDER.index(rung)]
    expected = prior.weights * (correct * (1 - seen) + (1 - correct) * (1 - passed))
    rejected = prior.after(rung, "reject", where)
    assert np.allclose(rejected.weights, expected / expected.sum())
    accepted = prior.after(rung, "accept", where)
    assert accepted.difficulty < prior.difficulty < rejected.difficulty
    # The law of total probability: the two posteriors average to the prior.
    chance = float(prior.weights @ (correct * seen + (1 - correct) * passed))
    assert np.allclose(chance * accepted.weights + (1 - chance) * rejected.weights, prior.weights)


def test_one_rejection_lowers_what_every_rung_promises() -> None:
    before, where = belief(), situation()
    after = before.after(SMALL, "reject", where)
    for old, new in zip(before.forecasts(where), after.forecasts(where), strict=True):
        assert new.p_success < old.p_success
        assert new.p_accept == pytest.approx(new.p_success * 0.9 + (1 - new.p_success) * 0.1)
    assert before.difficulty == belief().difficulty
    assert (after.prior == before.weights).all()


@pytest.mark.parametrize("decision", ["unsure", "", "accept?"])
def test_other_decisions_teach_nothing(decision: str) -> None:
    before = belief()
    assert before.after(SMALL, decision, situation()) is before


def test_impossible_verdicts_and_strange_rungs_teach_nothing() -> None:
    before = belief()
    assert before.after(replace(SMALL, id="other"), "reject", situation()) is before
    perfect = situation(sensitivity=0.0, false_accept=0.0)
    assert (before.after(SMALL, "accept", perfect).weights == before.weights).all()


def test_a_rejection_without_a_measured_verifier_still_counts_a_little() -> None:
    before = belief()
    after = before.after(SMALL, "reject", situation(sensitivity=1.0, false_accept=1.0))
    assert after.difficulty > before.difficulty + 0.05


def test_truncation_says_nothing_of_ability_but_more_tokens_are_expected() -> None:
    cut = Attempt(
        number=1,
        rung=SMALL,
        mode="first",
        reply=Reply(text="...", finish_reason="length"),
        verdict=Verdict(decision="reject", verifier="whole", failure="truncated"),
    )
    before, where = belief(), situation(cut)
    unjudged = situation(replace(cut, verdict=None))
    for after in (
        before.after(SMALL, "reject", where),
        before.after(SMALL, "unsure", unjudged),
        before.after(SMALL, "truncated", situation()),
    ):
        assert (after.weights == before.weights).all()
        old, new = before.forecasts(where), after.forecasts(where)
        assert new[0].output_tokens > 1.3 * old[0].output_tokens
        assert new[1].output_tokens > old[1].output_tokens
        # The same room would be too small again; more room would do.
        assert new[0].p_success < 0.6 * old[0].p_success
        assert new[1].p_success > 0.8 * old[1].p_success


def test_a_fault_teaches_nothing() -> None:
    gone = Attempt(
        number=1, rung=SMALL, mode="first", reply=None, verdict=Verdict(decision="reject", verifier="", failure="fault")
    )
    before = belief()
    assert before.after(SMALL, "reject", situation(gone)) is before


@given(st.floats(-3, 3), st.floats(-1, 1.5))
def test_expected_tokens_are_censored_at_the_cap(mean: float, length: float) -> None:
    where = situation()
    for forecast, rung in zip(belief(mean, 0.5, length=length).forecasts(where), LADDER, strict=True):
        assert 0 < forecast.output_tokens < rung.max_tokens
        assert 0 < forecast.p_success < 1


def test_expected_tokens_agree_with_a_simulation() -> None:
    known = curves((SMALL,))
    rng = np.random.default_rng(0)
    at = 30  # a hard step: the cap bites
    median = 105 * np.exp(0.35 * GRID[at])  # 0.35 of the cap, longer with difficulty
    drawn = median * np.exp(0.7 * rng.standard_normal(200_000))
    assert known.tokens[0, at] == pytest.approx(np.minimum(drawn, 300).mean(), rel=0.01)
    assert known.finish[0, at] == pytest.approx((drawn <= 300).mean(), abs=0.01)


def test_forecast_money_and_time() -> None:
    where = situation()
    first, _, last = belief(input_tokens=100.0).forecasts(where)
    assert first.micros == pytest.approx(100 * 1 + first.output_tokens * 2)
    assert last.micros == pytest.approx(100 * 10 + last.output_tokens * 20)
    assert 0 < first.seconds < belief().forecasts(where)[1].seconds <= 120
    twice = (replace(SMALL, samples=2),)
    sampled = LatentBelief.normal(0, 1, Terms(app="t", ladder=twice), input_tokens=100.0)
    (doubled,) = sampled.forecasts(situation(ladder=twice))
    assert doubled.micros == pytest.approx(2 * first.micros)


def test_later_rungs_are_stronger_and_a_new_model_is_the_larger_step() -> None:
    at_zero = curves(LADDER).answer[:, 20]
    assert at_zero[0] == pytest.approx(0.5, abs=0.02)
    small_step, large_step = at_zero[1] - at_zero[0], at_zero[2] - at_zero[1]
    assert 0.02 < small_step < large_step
    assert (curves(LADDER).answer >= FLOOR).all()


@pytest.mark.parametrize(
    "stronger",
    [
        replace(SMALL, id="b", effort="high"),
        replace(SMALL, id="b", samples=5),
        replace(SMALL, id="b", instruction="Think step by step."),
        replace(SMALL, id="b", answer_tokens=1200),
        replace(SMALL, id="b", temperature=1.0),
        LARGE,
        replace(LARGE, price=Price()),
    ],
)
def test_every_step_of_a_ladder_goes_up_and_grows_less_sure(stronger: Rung) -> None:
    answer = curves((SMALL, stronger)).answer
    assert answer[1, 20] > answer[0, 20]
    steepness = np.abs(np.diff(answer, axis=1)).max(axis=1)
    assert steepness[1] < steepness[0]


def test_curves_are_cached_and_read_only() -> None:
    same = tuple(replace(rung) for rung in LADDER)
    assert curves(same) is curves(LADDER)
    with pytest.raises(ValueError, match="read-only"):
        curves(LADDER).answer[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        belief().weights[0] = 1.0


def test_a_belief_serves_another_ladder_too() -> None:
    shorter = (LARGE,)
    (forecast,) = belief().forecasts(situation(ladder=shorter))
    assert forecast.rung == "large"


def test_latent_keeps_the_ends_inside_the_grid() -> None:
    assert latent(0.5) == 0.0
    assert GRID[0] < latent(0.0) < latent(0.2) < 0 < latent(1.0) < GRID[-1]


def test_need_grows_with_the_cap_that_was_too_small() -> None:
    assert need_after(replace(SMALL, answer_tokens=600)) == pytest.approx(2 * need_after(SMALL))
