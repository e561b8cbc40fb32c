"""Learning what it tells that two recorded answers are equal, or differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from governor.estimate.agreement import Agreement
from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid
from governor.learn.outcomes import Rows
from governor.learn.table import Flags, Texts
from governor.learn.verdicts import equal

RIDGE = 3.0
FEWEST = 50
"""Comparisons of two rungs below which nothing is said of them."""

NOTHING = 2.0
"""Standard errors by which a comparison must better the forecast of outcomes it was not fitted on."""

_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """Comparisons of two rungs on N items: `question` (N,), `alike` (N,), and each item's `weight`, a question's 1."""

    question: Rows
    sample: Rows
    alike: Flags
    weight: Floats


def fit_agreement(odds: Floats, correct: Floats, answers: Texts, groups: Rows) -> Agreement | None:
    """Of forecasts `odds` (Q, K) that did not see the outcomes `correct` and `answers` (Q, K, S); None without answers.

    Logistic regressions under a ridge. What a comparison tells of outcomes counts only where it betters forecasts of
    groups (`groups` (Q,) numbers them) that it was not fitted on; elsewhere it changes no forecast.
    """
    rungs = odds.shape[1]
    equal_by = np.full((rungs, rungs, rungs + 1), np.nan)
    shift = np.zeros((2, rungs, rungs, rungs, rungs + 1))
    half = groups % 2
    seen_by = np.column_stack([np.ones(len(odds)), odds])
    for i in range(rungs):
        for j in range(i, rungs):
            seen = _compared(answers, correct, i, j)
            if seen is None:
                continue
            x = seen_by[seen.question]
            equal_by[i, j] = _logistic(np.zeros(len(x)), x, seen.alike.astype(np.float64), seen.weight)
            shift[:, i, j] = _shifts(odds, correct, x, seen, half)
            equal_by[j, i], shift[:, j, i] = equal_by[i, j], shift[:, i, j]
    if np.isnan(equal_by).all():
        return None
    return Agreement(equal_by.astype(np.float32), shift.astype(np.float32))


def _compared(answers: Texts, correct: Floats, i: int, j: int) -> _Compared | None:
    """Each sample of i with the same sample of j; on one rung with the next one of its own."""
    found = list(_pairs(answers, ~np.isnan(correct), i, j))
    if len(found) < FEWEST or not any(answers[:, k].any() for k in (i, j)):
        return None
    question, sample, alike = (np.array(column) for column in zip(*found, strict=True))
    count = np.bincount(question, minlength=len(answers))
    return _Compared(question, sample, alike, 1.0 / count[question])


def _pairs(answers: Texts, known: Flags, i: int, j: int) -> Iterator[tuple[int, int, bool]]:
    both = known[:, i] & known[:, j]
    for question in np.flatnonzero(both.any(axis=1)).tolist():
        samples = np.flatnonzero(both[question]).tolist()
        if i != j:
            for s in samples:
                yield question, s, equal(answers[question, i, s], answers[question, j, s])
        elif len(samples) > 1:
            for s, other in zip(samples, [*samples[1:], samples[0]], strict=True):
                yield question, s, equal(answers[question, i, s], answers[question, i, other])


def _shifts(odds: Floats, correct: Floats, x: Floats, seen: _Compared, half: Rows) -> Floats:
    """Coefficients (2, K, K + 1) of what differing and equal answers tell of each rung."""
    found = np.zeros((2, odds.shape[1], x.shape[1]))
    gained = np.zeros(len(odds))
    for k in range(odds.shape[1]):
        outcome, offset = correct[seen.question, k, seen.sample], odds[seen.question, k]
        for alike in (False, True):
            rows = np.flatnonzero((seen.alike == alike) & ~np.isnan(outcome))
            features = x[rows]
            found[int(alike), k] = _logistic(offset[rows], features, outcome[rows], seen.weight[rows])
            for part in (0, 1):
                test = half[seen.question[rows]] == part
                told = _logistic(offset[rows][~test], features[~test], outcome[rows][~test], seen.weight[rows][~test])
                before, after = offset[rows][test], offset[rows][test] + features[test] @ told
                gain = _loss(before, outcome[rows][test]) - _loss(after, outcome[rows][test])
                np.add.at(gained, seen.question[rows][test], seen.weight[rows][test] * gain)
    surely = gained.sum() > NOTHING * max(float(np.sqrt((gained**2).sum())), 1e-12)
    return found if surely else np.zeros_like(found)


def _logistic(offset: Floats, x: Floats, y: Floats, weight: Floats) -> Floats:
    """Newton's method on `logit P = offset + x theta`, a ridge holding theta to 0."""
    theta = np.zeros(x.shape[1])
    for _ in range(_STEPS if len(y) else 0):
        p = sigmoid(offset + x @ theta)
        gradient = x.T @ (weight * (y - p)) - RIDGE * theta
        curvature = (x * (weight * p * (1.0 - p))[:, None]).T @ x + RIDGE * np.eye(len(theta))
        step = np.clip(np.linalg.solve(curvature, gradient), -1.0, 1.0)
        theta += step
        if np.abs(step).max() < 1e-4:
            break
    return theta


def _loss(odds: Floats, y: Floats) -> Floats:
    result: Floats = np.logaddexp(0.0, odds) - y * odds
    return result
