from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from governor.learn.ladder import Ladder, RungCost
from governor.learn.outcomes import Outcomes, known_cost
from governor.learn.table import Table
from tests.learn.two_rungs import outcomes_of

NAN = float("nan")


def table(texts: tuple[str, ...]) -> Table:
    shape = (len(texts), 2, 1)
    blank = np.zeros(shape)
    return Table(
        qids=texts,
        questions=texts,
        nodes=("default",) * len(texts),
        groups=texts,
        rungs=("a", "b"),
        samples=("0",),
        correct=np.ones(shape),
        drawn_from=blank,
        output_tokens=blank,
        cost=np.ones(shape),
        score=blank,
        finished=np.ones(shape, dtype=np.bool_),
        answers=np.full(shape, None, dtype=np.object_),
    )


def ladder(*, usd: bool, continues: bool = False) -> Ladder:
    costs = {"a": RungCost(input_per_million=2.0), "b": RungCost(input_per_million=0.0)}
    return Ladder(
        name="made up",
        records=Path(),
        rungs=("a", "b"),
        unit="usd" if usd else "tokens",
        costs=costs if usd else {},
        continues=continues,
    )


def test_the_text_gives_away_the_cost_of_the_input_in_usd_only() -> None:
    assert known_cost(table(("x" * 4000, "")), ladder(usd=True)).tolist() == [[0.002, 0.0], [0.0, 0.0]]
    assert known_cost(table(("x" * 4000, "")), ladder(usd=False)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_thought_ends_a_ladder_only_where_rungs_continue_it() -> None:
    fresh = Outcomes.of(table(("q",)), ladder(usd=False))
    going_on = Outcomes.of(table(("q",)), ladder(usd=False, continues=True))
    assert (bool(fresh.last.any()), fresh.look) == (False, None)
    assert (bool(going_on.last.all()), going_on.look) == (True, 1.0)


def test_a_question_weighs_one_however_many_samples_it_has() -> None:
    correct = np.array([[[1.0, 0.0, 0.0]], [[1.0, NAN, NAN]], [[NAN, NAN, NAN]]])
    assert outcomes_of(correct, correct).accuracy[:, 0] == pytest.approx([1 / 3, 1.0, NAN], nan_ok=True)


def test_the_best_rung_its_cost_and_the_hull_are_those_of_the_rows_given() -> None:
    correct = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], dtype=float)[:, :, None]
    cost = np.broadcast_to(np.array([1.0, 2.0, 4.0, 3.0])[None, :, None], correct.shape)
    recorded = outcomes_of(correct, cost)
    assert recorded.best(np.arange(3)) == 1, "as good as the third and cheaper"
    assert recorded.unit(np.arange(3)) == 2.0
    assert recorded.hull_rungs(np.arange(3)).tolist() == [0, 1]
    assert (recorded.best(np.array([2])), recorded.unit(np.array([2]))) == (2, 4.0)


def test_what_was_chosen_is_what_is_paid_and_counted() -> None:
    correct, cost = np.array([[[1.0], [0.0]], [[0.0], [1.0]]]), np.array([[[1.0], [5.0]], [[2.0], [6.0]]])
    spread = outcomes_of(correct, cost).taken(np.array([[0, 1], [1, 0]]))
    assert spread.cost.tolist() == [[1.0, 6.0], [5.0, 2.0]]
    assert spread.accuracy.tolist() == [[1.0, 1.0], [0.0, 0.0]]
