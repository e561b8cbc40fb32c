"""What is learned from and what is tested never meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import RecordError
from governor.estimate.curves import Floats
from governor.learn.ladder import Checking
from governor.learn.outcomes import Rows
from governor.learn.sides import Sides, complete, shuffled, stacked
from tests.learn.recorded_tables import ladder_of, table_of

nan = float("nan")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=40), st.integers(2, 4), st.integers(0, 9))
def test_no_group_and_no_text_stands_on_both_sides(groups: list[str], folds: int, seed: int) -> None:
    if len(set(groups)) < folds:
        return
    table = table_of(np.ones((len(groups), 2)), groups=tuple(groups))
    sides = Sides.crossed(table, folds, seed)
    tested = list[int]()
    for train, test in sides.splits():
        assert not {groups[at] for at in train} & {groups[at] for at in test}
        assert len(train) + len(test) == len(groups)
        tested.extend(test.tolist())
    assert sorted(tested) == list(range(len(groups)))


def test_a_text_that_is_tested_is_not_learned_from_under_any_group() -> None:
    texts = ("same text", "SAME  text", "a", "b", "c", "d")
    table = table_of(np.ones((6, 2)), questions=texts, groups=tuple("uvwxyz"))
    for train, test in Sides.crossed(table, 3, 0).splits():
        if {0, 1} & set(test.tolist()):
            assert not {0, 1} & set(train.tolist())


def test_learning_elsewhere_leaves_out_what_is_tested() -> None:
    train = table_of(np.zeros((8, 2)), questions=tuple("abcdefgh"), groups=tuple("abcdefgh"))
    test = table_of(np.ones((3, 2)), questions=("A", "x", "y"), groups=("1", "h", "3"))
    sides = Sides.apart(train, test, 2, 0)
    ((learned, tested),) = sides.splits()
    assert [sides.table.questions[at] for at in learned] == list("bcdefg")
    assert [sides.table.questions[at] for at in tested] == ["A", "x", "y"]
    assert sorted(set(sides.fold[~sides.tested].tolist())) == [0, 1]
    assert sides.fold[sides.tested].tolist() == [2, 2, 2]


def test_routers_never_learn_from_tested_questions_elsewhere() -> None:
    train = table_of(np.zeros((8, 2)), questions=tuple("abcdefgh"), groups=tuple("abcdefgh"))
    sides = Sides.apart(train, table_of(np.ones((3, 2))), 2, 0)
    seen = list[tuple[set[int], set[int]]]()

    def router(learned: Rows, asked: Rows) -> Floats:
        seen.append((set(learned.tolist()), set(asked.tolist())))
        return np.full((len(asked), 2), 0.5)

    assert np.all(sides.forecast(router) == 0.5)
    assert all(not learned & asked and max(learned) < 8 for learned, asked in seen)
    assert seen[-1] == (set(range(8)), {8, 9, 10})


def test_records_that_are_all_tested_teach_nothing() -> None:
    table = table_of(np.ones((4, 2)))
    with pytest.raises(RecordError, match="every question to fit on is tested too"):
        Sides.apart(table, table, 2, 0)


def test_stacking_keeps_every_figure_and_widens_samples() -> None:
    one = table_of(np.array([[[1.0, 0.0], [1.0, 1.0]]]), cost=[2.0, 3.0])
    other = table_of([[0, 1]], answers=np.array([[["a"], ["b"]]], dtype=np.object_), groups=("g",))
    both = stacked(one, other)
    assert (both.qids, both.groups[1], both.samples) == (("q0", "q0"), "g", ("0", "1"))
    assert both.correct[0].tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert np.array_equal(both.correct[1], [[0.0, nan], [1.0, nan]], equal_nan=True)
    assert both.answers[1].tolist() == [["a", None], ["b", None]]
    assert both.usable[1].tolist() == [[True, False], [True, False]]
    assert both.verdict is None


def test_labels_are_dealt_together_and_all_else_stays() -> None:
    rng = np.random.default_rng(0)
    correct = rng.random((50, 2, 1))
    table = table_of(correct, cost=rng.random((50, 2, 1)))
    dealt = shuffled(table, 1)
    rows = {tuple(row) for row in correct[:, :, 0].tolist()}
    assert {tuple(row) for row in dealt.correct[:, :, 0].tolist()} == rows
    assert not np.array_equal(dealt.correct, table.correct)
    assert np.array_equal(dealt.cost, table.cost)
    assert np.array_equal(dealt.correct, shuffled(table, 1).correct)
    assert not np.array_equal(dealt.correct, shuffled(table, 2).correct)


def test_questions_without_an_attempt_on_every_rung_are_left_out() -> None:
    table = table_of(np.array([[[1.0, nan], [1.0, 1.0]], [[nan, nan], [1.0, 1.0]]]))
    assert complete(table, ladder_of()).qids == ("q0",)
    with pytest.raises(RecordError, match="no question has 2 recorded attempts of every rung"):
        complete(table, ladder_of(checking=Checking(kind="agreement")))
    with pytest.raises(RecordError, match="no question has a recorded attempt of every rung"):
        complete(table.take([1]), ladder_of())
