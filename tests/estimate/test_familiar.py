"""Questions unlike those that were fitted on: base rates, nothing of comparisons, and a word of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.agreement import Agreement
from governor.estimate.calibration import Calibration
from governor.estimate.familiar import COUNTS, Familiar, unseen_share
from governor.estimate.hashed import Sparse
from governor.estimate.learned import FOREIGN, LearnedBelief, LearnedEstimator
from governor.plan.index import IndexPlanner
from governor.protocols import Situation, Terms
from governor.records import Attempt, Plan, Reply, Rung, Step, Verdict
from tests.learn.learnable import fitted

LOW, HIGH = Rung(id="low", model="m"), Rung(id="high", model="m")
TERMS = Terms(app="a", ladder=(LOW, HIGH), modes=("compare",))
KNOWN, STRANGE = "add term1 of the sum", "quietly juggling purple lanterns"
ANYTHING = Familiar(1.0, float("inf"), np.zeros(COUNTS.size), np.eye(COUNTS.size))
TELLING = Agreement(
    np.tile(np.array([0.5, 0.0, 0.0], dtype=np.float32), (2, 2, 1)),
    np.stack([np.full((2, 2, 2, 3), shift, dtype=np.float32) for shift in (-1.5, 1.5)]),
)


@cache
def calibration() -> Calibration:
    """It knows questions of some known words, whatever their counts; comparing answers tells much."""
    return replace(fitted(), agreement=TELLING, familiar=replace(ANYTHING, unseen=0.5))


def belief(text: str, known: Calibration | None = None) -> LearnedBelief:
    found = LearnedEstimator(known or calibration()).estimate(at(text).step, TERMS)
    assert isinstance(found, LearnedBelief)
    return found


def at(text: str, *attempts: Attempt) -> Situation:
    step = Step(id="s", messages=({"role": "user", "content": text},))
    return Situation(step=step, terms=TERMS, attempts=attempts)


def forecast(text: str, known: Calibration, *attempts: Attempt) -> list[float]:
    return [one.p_success for one in belief(text, known).forecasts(at(text, *attempts))]


EQUAL = (
    Attempt(number=1, rung=LOW, mode="first", reply=Reply(text="x"), verdict=Verdict(decision="unsure", verifier="n")),
    Attempt(
        number=2,
        rung=HIGH,
        mode="compare",
        reply=Reply(text="x"),
        verdict=Verdict(decision="unsure", verifier="n", score=1.0),
    ),
)


def test_a_foreign_question_has_the_base_rates_whatever_its_answers() -> None:
    rates = pytest.approx(fitted().base_rate.tolist(), abs=0.01)
    assert forecast(STRANGE, calibration()) == rates
    assert forecast(STRANGE, calibration(), *EQUAL) == rates
    told = belief(STRANGE).reasons
    assert told[0].startswith(f"{FOREIGN}: base rates 0.")


def test_nothing_is_bought_to_be_compared_there() -> None:
    pairs = belief(STRANGE).pairs(at(STRANGE))
    assert pairs is not None
    assert np.isnan(pairs.equal).all()
    assert (pairs.after == pairs.p).all()
    assert isinstance(IndexPlanner().choose(belief(STRANGE), at(STRANGE)), Plan)
    ended = IndexPlanner().choose(belief(STRANGE), at(STRANGE, EQUAL[0]))
    assert not isinstance(ended, Plan)


def test_a_known_question_is_forecast_and_compared_as_ever() -> None:
    open_to_all = replace(calibration(), familiar=None)
    assert forecast(KNOWN, calibration()) == forecast(KNOWN, open_to_all)
    assert forecast(KNOWN, calibration(), *EQUAL) == forecast(KNOWN, open_to_all, *EQUAL)
    assert forecast(KNOWN, calibration(), *EQUAL) != forecast(KNOWN, calibration())
    assert belief(KNOWN).reasons == belief(KNOWN, open_to_all).reasons


@pytest.mark.parametrize("text", [KNOWN, STRANGE, "", "\ud800", "x" * 10_000])
def test_where_fitting_did_not_ask_no_question_is_foreign(text: str) -> None:
    assert not belief(text, replace(calibration(), familiar=None)).foreign
    assert not belief(text, replace(calibration(), familiar=ANYTHING)).foreign


@given(st.lists(st.sampled_from([0.0, 0.5, 2.0]), max_size=40), st.floats(0.0, 1.0))
def test_more_new_words_than_ever_held_out_are_foreign(value: list[float], most: float) -> None:
    words = Sparse(np.arange(len(value), dtype=np.intp), np.array(value))
    share = unseen_share(words)
    assert share == pytest.approx(value.count(0.0) / max(len(value), 1))
    assert replace(ANYTHING, unseen=most).foreign(words, np.zeros(COUNTS.max() + 1)) == (share > most)


@given(st.floats(-10.0, 10.0), st.floats(0.0, 100.0), st.sampled_from(COUNTS.tolist()))
def test_counts_further_than_any_but_a_few_held_out_are_foreign(far: float, furthest: float, place: int) -> None:
    words, numbers = (
        Sparse(np.arange(1), np.ones(1)),
        np.full(COUNTS.max() + 5, 1000.0),
    )  # of length, tools, messages and state
    numbers[COUNTS] = 0.0
    numbers[place] = far
    assert replace(ANYTHING, distance=furthest).foreign(words, numbers) == (far * far > furthest)
