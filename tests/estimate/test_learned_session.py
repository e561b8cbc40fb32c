"""Sessions on learned forecasts: a shift of the difficulty that the calibrated forecast left open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.calibration import Calibration
from governor.estimate.learned import NODES, WEIGHTS, LearnedEstimator, curves_of
from governor.estimate.online import Online
from governor.estimate.session import SessionEffect
from governor.protocols import Belief, Situation, Terms
from governor.records import Attempt, Outcome, Reply, Rung, Step, Verdict
from tests.learned_parts import EASY, HARD, fitted, prompt

LADDER = (Rung(id="low", model="m/small", answer_tokens=100), Rung(id="high", model="m/large", answer_tokens=100))
TERMS = Terms(app="a", ladder=LADDER)
LOW = 0


@pytest.fixture(scope="module")
def known() -> Calibration:
    """Whose rungs share a difficulty, and whose low rung is in doubt on every question."""
    made = fitted()
    return replace(made, loading=np.array([1.5, 1.0]), slope=np.zeros(2), level=np.array([0.0, 1.0]))


def step(number: int, session: str = "") -> Step:
    text = prompt(HARD if number % 2 else EASY, np.random.default_rng(number))
    return Step(id=f"s{number}", messages=({"role": "user", "content": text},), session=session, node=f"n{number}")


def situation(asked: Step) -> Situation:
    return Situation(step=asked, terms=TERMS, sensitivity=0.98, false_accept=0.05)


def p_low(belief: Belief, asked: Step) -> float:
    return belief.forecasts(situation(asked))[LOW].p_success


def serve(online: Online, asked: Step, right: bool) -> None:
    belief = online.estimate(asked, TERMS)
    verdict = Verdict(decision="accept" if right else "reject", verifier="v")
    forecasts = belief.forecasts(situation(asked))
    made = Attempt(
        number=1, rung=LADDER[LOW], mode="first", reply=Reply(text="x"), verdict=verdict, forecasts=forecasts
    )
    online.emit(asked, Outcome(step_id=asked.id, status="accepted", attempts=(made,)))


def test_failed_steps_lower_the_forecast_of_their_sessions_next_step_and_of_no_other(known: Calibration) -> None:
    online = Online(LearnedEstimator(known))
    plain = p_low(online.estimate(step(98), TERMS), step(98))
    for number in range(0, 12, 2):  # as many right as wrong, so that like steps as such went as forecast
        serve(online, step(number, "bad"), right=False)
        serve(online, step(number + 1, "good"), right=True)
    bad, good, other = (
        p_low(online.estimate(step(99, session), TERMS), step(99, session)) for session in ("bad", "good", "other")
    )
    assert plain == pytest.approx(0.5, abs=0.02)
    assert bad < plain - 0.08
    assert good > plain + 0.08
    assert other == pytest.approx(plain, abs=0.03)
    assert online.session("bad").mean > 0.3
    harder = online.estimate(step(99, "bad"), TERMS).difficulty
    assert harder > online.estimate(step(99, "other"), TERMS).difficulty + 0.05
    assert online.session("other").mean == 0.0


def test_the_shift_says_so_and_rungs_fall_by_their_share_of_the_difficulty(known: Calibration) -> None:
    alone = replace(known, loading=np.array([1.5, 0.0]))
    for calibration, moves in ((known, True), (alone, False)):
        online = Online(LearnedEstimator(calibration))
        before = online.estimate(step(98), TERMS).forecasts(situation(step(98)))[1].p_success
        for number in range(6):
            serve(online, step(number, "bad"), right=False)
        belief = online.estimate(step(99, "bad"), TERMS)
        fresh = online.estimate(step(97, "other"), TERMS)
        high, others = (one.forecasts(situation(step(99)))[1].p_success for one in (belief, fresh))
        assert any("harder than they looked" in reason for reason in belief.reasons)
        assert (high < others - 0.03) == moves
        assert others <= before + 1e-9


@given(st.floats(-1.5, 1.5), st.floats(-6.0, 6.0), st.floats(0.0, 2.0))
def test_moved_weights_forecast_what_a_moved_normal_does(shift: float, odds: float, loading: float) -> None:
    """Against the integral over N(shift, 1), taken finely."""
    effect = SessionEffect(precision=4.0, pull=8.0 * shift)  # mean = pull / (4 + 1 / SHARED^2) = shift
    assert effect.mean == pytest.approx(shift)
    moved = effect.shifted(WEIGHTS)
    fine = np.linspace(-10.0, 10.0, 4001)
    density = np.exp(-0.5 * (fine - shift) ** 2)
    at = curves_of(np.array([odds]), np.array([loading]))[0]
    centre = float(np.log(at[5] / (1.0 - at[5])))  # NODES[5] is 0
    exact = float((1.0 / (1.0 + np.exp(loading * fine - centre))) @ density / density.sum())
    assert float(at @ moved) == pytest.approx(exact, abs=0.01)
    assert float(NODES @ moved) == pytest.approx(shift, abs=0.01)
    assert float(NODES**2 @ moved) - float(NODES @ moved) ** 2 == pytest.approx(1.0, abs=0.05)
