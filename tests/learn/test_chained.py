"""How scores move while a thought grows: counts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.calibration import Scores
from governor.estimate.chain import Chain
from governor.estimate.learned import sigmoid
from governor.learn.chained import BINS, fit_chain

FLAT, ZEROS = np.zeros((2, 2)), np.zeros(2)
PLAIN = Scores(base=FLAT, gain=FLAT, centre=ZEROS, width=np.ones(2), seen=ZEROS, passed=ZEROS)


def counted() -> Chain:
    """Ten thoughts of two looks, recorded with the longer one first; each keeps its score, and the worst one ends."""
    z = np.linspace(-2.0, 2.5, 10)
    score = np.stack([sigmoid(z), sigmoid(z)], axis=1)[:, :, None]
    right = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1.0])
    correct = np.stack([np.ones(10), right], axis=1)[:, :, None]
    tokens = np.stack([np.full(10, 250.0), np.full(10, 150.0)], axis=1)[:, :, None]
    ended = np.zeros((10, 2, 1))
    ended[0, 1] = 1.0
    return fit_chain(PLAIN, correct, score, tokens, ended)


def test_looks_stand_in_the_order_of_their_tokens() -> None:
    found = counted()
    assert found.order.tolist() == [1, 0]
    assert found.whole == 250.0
    assert found.more == pytest.approx(np.full((1, BINS), 100.0))


def test_every_bin_is_held_to_the_mean_by_four_of_its_kind() -> None:
    found = counted()
    assert found.right[0] == pytest.approx([2 / 6, 2 / 6, 3 / 6, 4 / 6, 4 / 6])  # (hits + 4 * 0.5) / (2 + 4)
    assert found.right[1] == pytest.approx(np.ones(BINS))
    assert found.ends[0] == pytest.approx([1.4 / 6, *[0.4 / 6] * 4])  # (ends + 4 * 0.1) / (2 + 4)


def test_thoughts_that_go_on_are_counted_where_they_go() -> None:
    (moves,) = counted().next
    usual = np.array([2, 3, 3, 3, 3]) / 14  # one of the worst bin went on, two of each other; one more of each
    assert moves[0] == pytest.approx((np.eye(BINS)[0] + 4 * usual) / 5)
    assert moves[3] == pytest.approx((2 * np.eye(BINS)[3] + 4 * usual) / 6)
    assert moves.sum(axis=1) == pytest.approx(np.ones(BINS))


def test_a_score_is_put_into_the_bin_that_it_was_counted_in() -> None:
    found = counted()
    z = np.linspace(-2.0, 2.5, 10)
    assert [found.bin_of(0, float(one)) for one in z] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@given(st.integers(0, 1000), st.floats(0.0, 0.6))
def test_whatever_is_missing_it_stays_a_chain(seed: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    shape = (30, 2, 2)
    correct = (random.random(shape) < 0.5).astype(float)
    score = np.where(random.random(shape) < missing, np.nan, random.random(shape))
    tokens = random.integers(1, 500, shape).astype(float)
    found = fit_chain(PLAIN, correct, score, tokens, (random.random(shape) < 0.3).astype(float))
    assert found.next.sum(axis=2) == pytest.approx(np.ones((1, BINS)))
    for shares in (found.right, found.ends, found.next):
        assert ((shares >= 0.0) & (shares <= 1.0)).all()
    assert (np.diff(found.edges, axis=1) >= 0.0).all()
