"""Going on with one thought: hand-worked values, and every stopping rule tried out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.chain import Chain, Look
from governor.estimate.curves import Floats
from governor.plan.growing import Prospect, prospect


def chain(right: Floats, following: Floats, more: Floats, ends: Floats, whole: float) -> Chain:
    looks, bins = right.shape
    return Chain(np.zeros((looks, bins - 1)), right, following, more, ends, np.arange(looks, dtype=np.int32), whole)


def two_looks(ends: float = 0.0) -> Look:
    """One bin: right half of the time now, nine times of ten after 100 more tokens of a whole thought's 200."""
    right = np.array([[0.5], [0.9]])
    made = chain(right, np.ones((1, 1, 1)), np.array([[100.0]]), np.array([[ends], [1.0]]), 200.0)
    return Look(made, 0, 0, right)


@pytest.mark.parametrize(
    ("price", "harm", "stop", "go"),
    [
        (0.2, 0.0, 0.5, 0.8),  # 0.9 - 0.2 * 100 / 200
        (1.0, 0.0, 0.5, 0.4),
        (0.2, 1.0, 0.0, 0.7),  # 2 * 0.9 - 1 - 0.1; half right is worth no more than abstaining
        (0.2, 3.0, 0.0, 0.5),  # abstaining is worth 0, never less
    ],
)
def test_one_more_look_is_worth_what_it_shows_less_its_tokens(
    price: float, harm: float, stop: float, go: float
) -> None:
    found = prospect(two_looks(), price, harm)
    assert found.stop == pytest.approx(stop)
    assert found.go == pytest.approx(go)
    assert found.pays == (go > stop)


def test_at_the_last_look_there_is_nothing_to_go_on_to() -> None:
    look = two_looks()
    found = prospect(Look(look.chain, 1, 0, look.right), 0.0, 0.0)
    assert found == Prospect(0.9, -np.inf)
    assert not found.pays


def test_a_gain_that_shows_only_three_looks_later_is_seen() -> None:
    """Two steps of lookahead would stop here: nothing grows but the last look."""
    right = np.array([[0.5], [0.5], [0.5], [0.95]])
    made = chain(right, np.ones((3, 1, 1)), np.full((3, 1), 10.0), np.zeros((4, 1)), 100.0)
    found = prospect(Look(made, 0, 0, right), 1.0, 0.0)
    assert found.go == pytest.approx(0.95 - 0.3)
    assert found.pays
    ended = chain(right, np.ones((3, 1, 1)), np.full((3, 1), 10.0), np.array([[0.0], [0.9], [0.0], [0.0]]), 100.0)
    cut = prospect(Look(ended, 0, 0, right), 1.0, 0.0)
    assert cut.go == pytest.approx(0.9 * 0.5 + 0.1 * (0.95 - 0.2) - 0.1)  # nine thoughts of ten end at the next look


@given(st.integers(0, 10_000), st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.integers(0, 1), st.integers(0, 1))
def test_going_on_is_worth_what_the_best_of_all_stopping_rules_gets(
    seed: int, price: float, harm: float, number: int, at: int
) -> None:
    random, looks, bins = np.random.default_rng(seed), 3, 2
    right, ends = random.random((looks, bins)), random.random((looks, bins))
    following = random.dirichlet(np.ones(bins), (looks - 1, bins))
    made = chain(right, following, 50.0 * random.random((looks - 1, bins)), ends, 80.0)
    stop = np.maximum(right - harm * (1.0 - right), 0.0)

    def gone(look: int, bin_: int, rule: tuple[bool, ...]) -> float:
        paid = price * made.more[look, bin_] / made.whole
        return float(sum(following[look, bin_, to] * met(look + 1, to, rule) for to in range(bins)) - paid)

    def met(look: int, bin_: int, rule: tuple[bool, ...]) -> float:
        if look == looks - 1 or not rule[look * bins + bin_]:
            return float(stop[look, bin_])
        return float(ends[look, bin_] * stop[look, bin_] + (1.0 - ends[look, bin_]) * gone(look, bin_, rule))

    rules = list(product((False, True), repeat=(looks - 1) * bins))
    found = prospect(Look(made, number, at, right), price, harm)
    assert found.go == pytest.approx(max(gone(number, at, rule) for rule in rules))
    assert found.stop == pytest.approx(stop[number, at])
