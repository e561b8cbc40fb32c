"""Trees served by numpy are LightGBM's own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid
from governor.estimate.trees import Forest
from governor.learn.heads import fit_trees

lightgbm: Any = import_module("lightgbm")


def stump() -> Forest:
    """Two trees: rung 0 splits on x[1] at 2, rung 1 is a leaf of 5."""
    return Forest(
        root=np.array([0, 3], dtype=np.int32),
        head=np.array([0, 1], dtype=np.int32),
        feature=np.array([1, 0, 0, 0], dtype=np.int32),
        threshold=np.array([2.0, 0.0, 0.0, 0.0]),
        left=np.array([1, 1, 2, 3], dtype=np.int32),
        right=np.array([2, 1, 2, 3], dtype=np.int32),
        value=np.array([0.0, -1.0, 1.0, 5.0]),
        depth=1,
        base=np.array([0.5, 0.0]),
    )


@pytest.mark.parametrize(("x", "wanted"), [(1.9, -0.5), (2.0, -0.5), (2.1, 1.5)])
def test_a_threshold_belongs_to_the_left(x: float, wanted: float) -> None:
    assert stump().sums(np.array([9.0, x])).tolist() == [wanted, 5.0]


def data(rows: int = 400) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6))
    p = sigmoid(np.column_stack([2.0 * x[:, 0] * x[:, 1], x[:, 2], np.zeros(rows)]))
    y = (rng.random((rows, 3)) < p).astype(np.float64)
    y[::7, 0] = 0.5  # a mean over samples
    weight = np.ones_like(y)
    weight[:150, 1] = 0.0
    return x, y, weight


def test_sums_are_what_lightgbm_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight = data()
    boosters: list[Any] = []
    train = lightgbm.train

    def kept(*given: Any) -> Any:
        boosters.append(train(*given))
        return boosters[-1]

    monkeypatch.setattr(lightgbm, "train", kept)
    forest = fit_trees(x, y, weight, 40)
    theirs = np.column_stack([one.predict(x, raw_score=True) for one in boosters])
    assert np.ptp(theirs[:, :2], axis=0).min() > 1.0  # they did learn something
    assert np.abs(forest.many(x)[0] - theirs).max() < 1e-9
    assert np.abs(np.stack([forest.sums(row) for row in x]) - theirs).max() < 1e-9
    first = np.column_stack([one.predict(x, raw_score=True, num_iteration=20) for one in boosters])
    assert np.abs(forest.many(x, (0.5,))[0] - first).max() < 1e-9


def test_no_trees_leave_the_base() -> None:
    x, y, _ = data(10)
    forest = fit_trees(x, y, np.zeros_like(y), 5)
    assert forest.sums(x[0]).tolist() == [0.0, 0.0, 0.0]
    assert forest.many(x, (0.3, 1.0)).tolist() == np.zeros((2, 10, 3)).tolist()
