"""The verdicts of recorded attempts: drawn beforehand, read off a score, or found by comparing two samples."""

from __future__ import annotations

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.chance import uniform
from governor.learn.ladder import Checking
from governor.learn.table import Flags, Table

_CUTS = 200  # of a score that are tried
_RIGHT = 0.5  # a label above it is a right answer


def accepts(checking: Checking, table: Table, seed: int) -> Flags | None:
    """Verdicts (Q, K, S) of a perfect or simulated verifier; None of one that needs more than an attempt's label.

    Each has a draw of its own, so that every method sees the same.
    """
    right = table.correct > _RIGHT
    if checking.kind == "perfect":
        return right
    if checking.kind != "simulated":
        return None
    chance = np.where(right, checking.sensitivity, checking.false_accept)
    drawn = np.ones(right.shape)
    for q, k, s in np.argwhere(table.usable).tolist():
        drawn[q, k, s] = uniform(seed, table.qids[q], table.rungs[k], table.samples[s])
    return drawn < chance


def rates(checking: Checking, train: Table) -> tuple[float, float]:
    """P(accept | correct) and P(accept | wrong): as stated, else measured on training questions.

    A score counts as accepting from where it tells right from wrong best (Youden 1950); two samples where they agree.
    """
    if checking.kind not in ("score", "agreement"):
        return checking.sensitivity, checking.false_accept
    seen, right = _agreements(train) if checking.kind == "agreement" else _scores(train)
    if not right.any() or right.all():
        return 1.0, 1.0
    cuts = np.ones(1) if checking.kind == "agreement" else np.unique(seen)
    if cuts.size > _CUTS:
        cuts = np.quantile(cuts, np.linspace(0.0, 1.0, _CUTS))
    passed = seen[:, None] >= cuts
    sensitivity, false_accept = passed[right].mean(axis=0), passed[~right].mean(axis=0)
    best = int(np.argmax(sensitivity - false_accept))
    return float(sensitivity[best]), float(false_accept[best])


def equal(one: str | None, other: str | None) -> bool:
    """Whether two normalised answers are the same; what is not recorded, or empty, agrees with nothing."""
    return bool(one) and one == other


def _scores(train: Table) -> tuple[Floats, Flags]:
    known = train.usable & np.isfinite(train.score)
    return train.score[known], train.correct[known] > _RIGHT


def _agreements(train: Table) -> tuple[Floats, Flags]:
    """Whether each sample and the next one of its rung are equal (1 or 0), and whether the first is right."""
    seen: list[bool] = []
    right: list[bool] = []
    for q, k in np.argwhere(train.usable.sum(axis=2) > 1).tolist():
        samples = np.flatnonzero(train.usable[q, k])
        answers, labels = train.answers[q, k, samples], train.correct[q, k, samples] > _RIGHT
        seen += [equal(*pair) for pair in zip(answers, np.roll(answers, -1), strict=True)]
        right += labels.tolist()
    return np.array(seen, dtype=np.float64), np.array(right, dtype=np.bool_)
