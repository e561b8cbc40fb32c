from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import LedgerError
from governor.estimate.curves import GRID, Floats
from governor.estimate.latent import normal_weights
from governor.estimate.session import KEPT, SHARED, SessionEffect


def judged(weights: Floats, right: bool) -> Floats:
    """The weights after a perfect verdict on a rung of ability 0."""
    success = 1.0 / (1.0 + np.exp(1.7 * GRID))
    moved = weights * (success if right else 1.0 - success)
    return np.asarray(moved / moved.sum())


def test_without_evidence_nothing_changes() -> None:
    weights = normal_weights(0.3, 0.9)
    assert SessionEffect().shifted(weights) is weights
    mean, sd = SessionEffect().applied(0.3, 0.9)
    assert mean == 0.3
    assert sd == pytest.approx(0.9)


@given(st.floats(-2.0, 2.0), st.floats(0.6, 1.5), st.lists(st.booleans(), max_size=12))
def test_evidence_narrows_and_fading_widens_again(mean: float, sd: float, verdicts: list[bool]) -> None:
    effect, prior = SessionEffect(), normal_weights(mean, sd)
    for right in verdicts:
        later = effect.after(prior, judged(prior, right))
        assert later.variance <= effect.variance + 1e-12
        assert (later.mean <= effect.mean + 1e-9) if right else (later.mean >= effect.mean - 1e-9)
        assert later.faded().variance >= later.variance
        effect = later.faded()
    assert 0.0 < effect.variance <= SHARED**2 + 1e-12
    moved, narrowed = effect.applied(mean, sd)
    assert narrowed <= sd + 1e-9
    assert (moved >= mean) == (effect.mean >= 0.0)


def test_failures_make_the_next_step_look_harder_by_what_was_learned() -> None:
    prior = normal_weights(0.0, 0.9)
    effect = SessionEffect()
    for _ in range(5):
        effect = effect.after(prior, judged(prior, right=False)).faded()
    assert effect.mean > 0.3
    shifted = effect.shifted(prior)
    assert float(GRID @ shifted) == pytest.approx(effect.mean, abs=0.02)
    assert shifted.sum() == pytest.approx(1.0)


def test_sessions_that_differ_are_told_apart_on_the_latent_scale() -> None:
    """40 sessions of 8 steps, difficulty h + e: the effects go with h, and do not pass it."""
    random, shifts, found = np.random.default_rng(5), [], []
    for _ in range(40):
        h, effect = random.normal(0.0, SHARED), SessionEffect()
        for _ in range(8):
            d = h + random.normal(0.0, 0.75)
            weights = effect.shifted(normal_weights(0.0, 0.9))
            right = bool(random.random() < 1.0 / (1.0 + np.exp(1.7 * d)))
            effect = effect.after(weights, judged(weights, right)).faded()
        shifts.append(h)
        found.append(effect.mean)
    assert np.corrcoef(shifts, found)[0, 1] > 0.4
    assert np.std(found) < SHARED


def test_evidence_of_two_replicas_adds_up() -> None:
    one, two = SessionEffect(1.0, 0.5), SessionEffect(2.0, -0.25)
    assert one.plus(two) == two.plus(one) == SessionEffect(3.0, 0.25)
    assert one.plus(two).minus(two) == one
    assert one.faded(2) == SessionEffect(pytest.approx(KEPT**2), pytest.approx(0.5 * KEPT**2))  # type: ignore[arg-type]


def test_a_grid_of_another_belief_is_left_alone() -> None:
    one = np.ones(1)
    assert SessionEffect(1.0, 1.0).shifted(one) is one
    assert SessionEffect().after(one, one) == SessionEffect()


@given(st.floats(0.0, 1e6), st.floats(-1e6, 1e6))
def test_bytes_and_back(precision: float, pull: float) -> None:
    effect = SessionEffect(precision, pull)
    assert SessionEffect.from_bytes(effect.to_bytes()) == effect


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'["a", 1]', b"[NaN, 1]", b"null", b"\xff"])
def test_bytes_that_are_none_are_one_clear_line(value: bytes) -> None:
    with pytest.raises(LedgerError, match="session's shared state"):
        SessionEffect.from_bytes(value)
