from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.adjusted import AdjustedBelief, Learned, lifted, odds_for
from governor.estimate.curves import GRID
from governor.estimate.latent import LatentBelief, normal_weights
from governor.protocols import Situation, Terms
from governor.records import Rung, Step

LADDER = tuple(Rung(id=f"r{number}", model=f"m{number}") for number in range(3))
SITUATION = Situation(step=Step(id="s", messages=()), terms=Terms(app="a", ladder=LADDER))


@given(
    st.floats(-2.0, 2.0),
    st.floats(0.5, 1.5),
    st.lists(st.tuples(st.floats(-2.0, 3.0), st.floats(0.6, 1.7), st.floats(0.05, 0.95)), min_size=1, max_size=6),
)
def test_odds_bring_the_mean_to_what_is_wanted(mean: float, sd: float, rungs: list[tuple[float, float, float]]) -> None:
    weights = normal_weights(mean, sd)
    success = np.array([1.0 / (1.0 + np.exp(-slope * (ability - GRID))) for ability, slope, _ in rungs])
    wanted = np.array([wish for _, _, wish in rungs])
    odds = odds_for(success, weights, success @ weights, wanted)
    assert lifted(success, odds) @ weights == pytest.approx(wanted, abs=0.02)


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)), min_size=1, max_size=6))
def test_without_a_grid_they_are_exact(rungs: list[tuple[float, float]]) -> None:
    success = np.array([[p] for p, _ in rungs])
    wanted = np.array([wish for _, wish in rungs])
    found = lifted(success, odds_for(success, np.ones(1), success[:, 0], wanted))[:, 0]
    assert found == pytest.approx(wanted, abs=0.003)


def test_a_ladder_of_other_rungs_keeps_its_own_forecasts_where_nothing_is_known() -> None:
    inner = LatentBelief.normal(0.0, 0.9, SITUATION.terms)
    belief = AdjustedBelief(inner=inner, heads=("r0", "r2"), odds=np.array([0.2, 0.2]), weights=inner.weights)
    plain = [forecast.p_success for forecast in inner.forecasts(SITUATION)]
    found = [forecast.p_success for forecast in belief.forecasts(SITUATION)]
    assert found[1] == pytest.approx(plain[1])
    assert found[0] < plain[0] - 0.1
    assert found[2] < plain[2] - 0.05


def test_reasons_are_said_only_where_they_matter() -> None:
    assert Learned().reasons == ()
    assert Learned(factor=1.1, outcomes=50, session=0.1).reasons == ()
    said = Learned(factor=0.3, outcomes=50, session=-0.4, alarmed=("a", "b"), problem="it rains").reasons
    assert said == (
        "forecasts of a, b drifted from outcomes: held less sure",
        "like steps went worse than forecast (-1.2 logits, 50 outcomes)",
        "this session's steps were easier than they looked",
        "it rains",
    )
