"""Fitting P(correct) per rung: linear heads on hashed words, and small boosted trees on what these say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from governor.errors import MissingExtraError
from governor.estimate.calibration import Halves, Text
from governor.estimate.curves import Floats
from governor.estimate.hashed import context_of, words_of
from governor.estimate.learned import numbers_of
from governor.estimate.trees import Forest
from governor.records import Step

BUCKETS = 1 << 16
AXES = 32
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""scikit-learn's C, tried upwards until held-out log loss rises: how far the coefficients may go."""

TREES = 250
"""At most so many a rung, and MOST_TREES in all: that bounds the artifact and the time of a decision."""

MOST_TREES = 1000
_FEW_RUNGS = 3

_TREE = {
    "objective": "cross_entropy",
    "learning_rate": 0.05,
    "min_data_in_leaf": 15,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_BINS = 63
_BITS = 6
_NARROWEST = 1e-3  # of the widest axis: texts of few templates have fewer directions than AXES
_NOTHING = 1e-6  # of a text's own length: texts of one template have no direction at all

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Shape:
    """The most leaves of a tree, and the most steps from its root to one."""

    leaves: int
    depth: int


_SHAPES = (Shape(16, 8), Shape(31, 12))


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """What the heads see of Q steps: `counts` (Q, B) sparse `1 + log tf`, `context` (Q, B) sparse, `numbers` (Q, F)."""

    counts: Any
    context: Any
    numbers: Floats

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Design:
        """Read every step once."""
        return cls(
            counts=_stacked([words_of(step.prompt, BUCKETS) for step in steps]),
            context=_stacked([context_of(step, BUCKETS) for step in steps]),
            numbers=np.array([numbers_of(step) for step in steps]),
        )

    def weighted(self, idf: Floats) -> Any:
        """(Q, B) sparse: rows of length 1, context beside them."""
        scipy_sparse = _needed("scipy.sparse")
        words = self.counts @ scipy_sparse.diags(idf)
        length = np.sqrt(np.asarray(words.multiply(words).sum(axis=1)).ravel())
        words = scipy_sparse.diags(1.0 / np.maximum(length, 1e-12)) @ words
        return scipy_sparse.csr_matrix(words), scipy_sparse.csr_matrix(words + self.context)


def inverse_frequency(counts: Any) -> Floats:
    """`ln((1 + Q) / (1 + df)) + 1` per bucket, 0 for buckets seen in fewer than two questions."""
    seen = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf: Floats = np.where(seen >= 2, np.log((1.0 + counts.shape[0]) / (1.0 + seen)) + 1.0, 0.0)
    return idf


def fit_linear(x: Any, y: Floats, weight: Floats, strength: float) -> tuple[Floats, Floats]:
    """Logistic regression per rung by dual coordinate descent: coefficients (B, K) and intercepts (K,).

    `strength` is scikit-learn's C. `y` (Q, K) in 0..1 may be fractions (a question then counts on both sides), `weight`
    (Q, K) is 0 where nothing is recorded. A rung with one outcome only gets its smoothed base rate.
    """
    linear = _needed("sklearn.linear_model")
    vstack = _needed("scipy.sparse").vstack
    coefficients, intercepts = np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])
    used = np.unique(x.indices)
    x = x.tocsc()[:, used].tocsr()
    both = vstack([x, x]).tocsr()
    for rung in range(y.shape[1]):
        counted = np.concatenate([y[:, rung] * weight[:, rung], (1.0 - y[:, rung]) * weight[:, rung]])
        target = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
        rows = np.flatnonzero(counted > 0)
        right, wrong = counted[: len(y)].sum(), counted[len(y) :].sum()
        if right == 0.0 or wrong == 0.0:
            intercepts[rung] = np.log((right + 0.5) / (wrong + 0.5))
            continue
        model = linear.LogisticRegression(
            C=strength, solver="liblinear", dual=True, intercept_scaling=5.0, tol=0.1, max_iter=1000, random_state=0
        )
        model.fit(both[rows], target[rows], sample_weight=counted[rows])
        coefficients[used, rung], intercepts[rung] = model.coef_[0], model.intercept_[0]
    return coefficients, intercepts


def fit_axes(words: Any, seed: int) -> Floats:
    """Directions (B, D) of a truncated singular value decomposition, each text's places having variance about 1."""
    used = np.unique(words.indices)
    size = min(AXES, words.shape[0] - 1, len(used) - 1)
    found = np.zeros((words.shape[1], AXES))
    if size > 0:
        present = words.tocsc()[:, used].tocsr()
        decomposition = _needed("sklearn.decomposition")
        with np.errstate(divide="ignore", invalid="ignore"):  # a ratio that nobody reads; texts may all be equal
            svd = decomposition.TruncatedSVD(size, random_state=seed, n_iter=2, n_oversamples=8).fit(present)
        width = svd.transform(present).std(axis=0)
        real = width > max(_NARROWEST * width.max(), _NOTHING)
        found[used, :size] = (svd.components_ / np.where(real, width, np.inf)[:, None]).T
    return found


def most_rounds(rungs: int) -> int:
    """Trees that each of so many rungs may have."""
    return max(min(TREES, MOST_TREES // rungs), 1)


def shapes(rungs: int) -> tuple[Shape, ...]:
    """What trees may look like, small ones first: large ones only for a few rungs, whose other parts are small."""
    return _SHAPES if rungs <= _FEW_RUNGS else _SHAPES[:1]


def fit_trees(rows: Floats, y: Floats, weight: Floats, rounds: int, shape: Shape = _SHAPES[0]) -> Forest:
    """Boosted trees per rung on dense rows (Q, F), by LightGBM with the cross-entropy of fractional labels."""
    lightgbm = _needed("lightgbm")
    boosters = []
    how = {**_TREE, "num_leaves": shape.leaves, "max_depth": shape.depth}
    for rung in range(y.shape[1]):
        known = np.flatnonzero(weight[:, rung] > 0)
        data = lightgbm.Dataset(
            rows[known], y[known, rung], weight=weight[known, rung], params={"verbose": -1, "max_bin": _BINS}
        )
        boosters.append(_trees(lightgbm.train(how, data, rounds).model_to_string()) if len(known) else [])
    return _flat(boosters)


def _flat(boosters: list[list[_Tree]]) -> Forest:
    """All trees in one: a tree's splits stand first, its leaves after them."""
    trees = [tree for booster in boosters for tree in booster]
    sizes = [len(tree.value) for tree in trees]
    root = np.concatenate(([0], np.cumsum(sizes)))[:-1] if trees else np.empty(0)
    moved = [(tree.left + at, tree.right + at) for tree, at in zip(trees, root.tolist(), strict=True)]
    return Forest(
        root=root.astype(np.int32),
        head=np.repeat(np.arange(len(boosters), dtype=np.int32), [len(booster) for booster in boosters]),
        feature=_joined([tree.feature for tree in trees]).astype(np.int32),
        threshold=_joined([tree.threshold for tree in trees]),
        left=_joined([left for left, _ in moved]).astype(np.int32),
        right=_joined([right for _, right in moved]).astype(np.int32),
        value=_joined([tree.value for tree in trees]),
        depth=max((tree.depth for tree in trees), default=0),
        base=np.zeros(len(boosters)),
    )


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """Nodes of one tree as in Forest, splits before leaves; children are counted from its first node."""

    feature: Floats
    threshold: Floats
    left: Floats
    right: Floats
    value: Floats
    depth: int


def _trees(model: str) -> list[_Tree]:
    """The trees of a model in LightGBM's text format: a block of `name=values` each."""
    blocks = model.partition("end of trees")[0].split("\nTree=")[1:]
    return [_tree(dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line)) for block in blocks]


def _tree(block: dict[str, str]) -> _Tree:
    def read(name: str) -> Floats:
        return np.array(block.get(name, "").split(), dtype=np.float64)

    leaves = read("leaf_value")
    splits = len(leaves) - 1
    itself = np.arange(len(leaves), dtype=np.float64) + splits
    nothing = np.zeros(len(leaves))

    def children(name: str) -> Floats:
        """Children below 0 are leaves: -1 is the first one."""
        at = read(name)
        return np.where(at < 0, splits - 1.0 - at, at)

    left, right = children("left_child"), children("right_child")
    return _Tree(
        feature=np.concatenate([read("split_feature"), nothing]),
        threshold=np.concatenate([read("threshold"), nothing]),
        left=np.concatenate([left, itself]),
        right=np.concatenate([right, itself]),
        value=np.concatenate([np.zeros(splits), leaves]),
        depth=_depth(left.astype(int).tolist(), right.astype(int).tolist()),
    )


def _depth(left: list[int], right: list[int]) -> int:
    """Most steps from a root to a leaf; a split stands before those below it."""
    below = [0] * (2 * len(left) + 1)
    for node in reversed(range(len(left))):
        below[node] = 1 + max(below[left[node]], below[right[node]])
    return below[0]


def text_of(idf: Floats, coefficients: Floats, intercepts: Floats, axes: Floats) -> Text:
    """The arrays that serving reads, to one part in 128 or so: what rounding moves is far below what is known.

    Digits nobody needs are zeros, which the file's compression takes out: 65,536 buckets of 10 rungs stay below 5 MB.
    """
    return Text(
        idf=idf.astype(np.float16),
        weight=_rounded(coefficients),
        bias=intercepts,
        axes=_rounded(axes),
    )


def _rounded(values: Floats) -> Halves:
    """Half precision with _BITS of its 10 bits of fraction, rounded to nearest."""
    dropped = 10 - _BITS
    whole = values.astype(np.float16).view(np.uint16)
    kept = (whole + np.uint16(1 << (dropped - 1))) & np.uint16(0x10000 - (1 << dropped))
    return kept.view(np.float16)


def _stacked(rows: list[Any]) -> Any:
    sparse = _needed("scipy.sparse")
    ends = np.cumsum([0, *(len(row.at) for row in rows)])
    at = np.concatenate([row.at for row in rows]) if rows else np.empty(0, dtype=np.intp)
    value = np.concatenate([row.value for row in rows]) if rows else np.empty(0)
    return sparse.csr_matrix((value, at, ends), shape=(len(rows), BUCKETS))


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as absent:
        raise MissingExtraError("fitting forecasts", "learn") from absent
