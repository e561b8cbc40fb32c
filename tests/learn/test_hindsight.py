from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from governor.learn.hindsight import oracle, perfect
from tests.learn.two_rungs import outcomes_of, told_by_words

NAN = float("nan")
FOLD = np.array([0, 1])


def twice(rows: list[list[float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The same question in both folds, (2, K, 1)."""
    return np.array([rows, rows])[:, :, :]


def test_a_perfect_verifier_pays_every_attempt_up_to_the_first_right_answer() -> None:
    outcomes = outcomes_of(twice([[0.0], [1.0], [1.0]]), twice([[1.0], [2.0], [8.0]]))
    spread = perfect(outcomes, FOLD)
    # known from the other fold: the second rung alone is right at once
    assert (spread.cost[0], spread.accuracy[0]) == (pytest.approx([2.0, 2.0]), pytest.approx([1.0, 1.0]))
    assert spread.cost[-1] == pytest.approx([1.0, 1.0])


def test_where_questions_differ_it_climbs() -> None:
    outcomes, fold = told_by_words()
    spread, accuracy = perfect(outcomes, fold), outcomes.accuracy
    hard = accuracy[:, 0] == 0.0
    assert spread.cost[0] == pytest.approx(np.where(hard, 11.0, 1.0))
    assert spread.accuracy[0] == pytest.approx(accuracy.max(axis=1))


def test_a_continuing_thought_pays_its_tokens_once_and_each_look() -> None:
    hard, easy = [[0.0], [0.0], [1.0]], [[1.0], [1.0], [1.0]]
    cost = np.array([[[10.0], [20.0], [40.0]]] * 4)
    outcomes = outcomes_of(np.array([hard, easy, hard, easy]), cost, look=1.0)
    # the middle look never helps, which the other fold tells
    assert perfect(outcomes, np.array([0, 0, 1, 1])).cost[0] == pytest.approx([41.0, 10.0, 41.0, 10.0])


def test_a_thought_that_ended_has_no_higher_rung() -> None:
    outcomes = outcomes_of(twice([[0.0], [1.0]]), twice([[10.0], [20.0]]), look=1.0)
    ended = replace(outcomes, last=np.array([[[True], [True]]] * 2))
    cheap_first = replace(ended, correct=np.array([[[0.0], [1.0]], [[1.0], [1.0]]]))
    found = perfect(cheap_first, np.array([0, 1]))
    assert found.cost[-1] == pytest.approx([10.0, 10.0])
    assert found.accuracy[-1] == pytest.approx([0.0, 1.0])


def test_a_sample_that_is_not_recorded_is_not_tried() -> None:
    outcomes = outcomes_of(twice([[0.0, NAN], [1.0, 1.0]]), twice([[1.0, NAN], [2.0, 4.0]]))
    assert perfect(outcomes, FOLD).accuracy[0] == pytest.approx([1.0, 1.0])
    assert perfect(outcomes, FOLD).cost[0] == pytest.approx([3.0, 3.0])


def test_long_ladders_are_climbed_in_unbroken_runs() -> None:
    right = np.eye(10)[:, :, None]  # each question solved by a rung of its own
    cost = np.broadcast_to(np.arange(1.0, 11.0)[None, :, None], right.shape)
    spread = perfect(outcomes_of(right, cost), np.arange(10) % 2)
    assert spread.accuracy[0].mean() >= 0.5
    assert spread.cost[-1] == pytest.approx(1.0)


def test_an_oracle_takes_the_cheapest_right_rung_and_never_pays_for_nothing() -> None:
    correct = np.array([[[0.0], [1.0], [1.0]], [[1.0], [1.0], [1.0]], [[0.0], [0.0], [0.0]]])
    cost = np.broadcast_to(np.array([1.0, 2.0, 8.0])[None, :, None], correct.shape)
    spread = oracle(outcomes_of(correct, cost))
    assert spread.cost[0].tolist() == [2.0, 1.0, 1.0]
    assert spread.accuracy[0].tolist() == [1.0, 1.0, 0.0]
    assert spread.cost[-1].tolist() == [1.0, 1.0, 1.0]


def test_an_oracle_judges_every_sample_by_itself() -> None:
    spread = oracle(outcomes_of(np.array([[[0.0, 1.0], [1.0, 0.0]]]), np.array([[[1.0, 1.0], [3.0, 3.0]]])))
    assert (spread.cost[0, 0], spread.accuracy[0, 0]) == (2.0, 1.0)


def test_nothing_beats_the_oracle() -> None:
    outcomes, fold = told_by_words()
    best, climbing = oracle(outcomes), perfect(outcomes, fold)
    assert best.accuracy[0].mean() >= climbing.accuracy.mean(axis=1).max()
    assert best.cost[0].mean() < climbing.cost[0].mean()
