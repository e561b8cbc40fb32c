"""Outcomes made up for tests of fitting: what is right is known by the words of a question, or by nothing at all."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from governor.estimate.calibration import Calibration
from governor.estimate.curves import Floats
from governor.learn.fit import fit
from governor.learn.table import Table

EASY, HARD = ("add", "copy", "count"), ("prove", "derive", "integrate")


def table_of(correct: Floats, texts: list[str], **more: Any) -> Table:
    """A table of rungs low, high, ... ; `correct` is (Q, K) or (Q, K, S)."""
    correct = correct if correct.ndim == 3 else correct[:, :, None]
    questions, rungs, samples = correct.shape
    told: dict[str, Any] = {
        "qids": tuple(map(str, range(questions))),
        "questions": tuple(texts),
        "nodes": ("default",) * questions,
        "groups": tuple(f"g{at}" for at in range(questions)),
        "rungs": ("low", "high", "top")[:rungs],
        "samples": tuple(map(str, range(samples))),
        "correct": correct,
        "drawn_from": np.where(np.isnan(correct), np.nan, 1.0),
        "output_tokens": np.full(correct.shape, np.nan),
        "cost": np.broadcast_to(np.arange(1.0, rungs + 1.0)[:, None], correct.shape).copy(),
        "score": np.full(correct.shape, np.nan),
        "finished": np.ones(correct.shape, dtype=np.bool_),
        "answers": np.full(correct.shape, None, dtype=np.object_),
    }
    return Table(**(told | more))


def told_by_words(questions: int = 240, seed: int = 0) -> Table:
    """`low` is right on four of five easy questions and one of ten hard ones, `high` on nine of ten of both."""
    rng = np.random.default_rng(seed)
    hard = rng.random(questions) < 0.5
    low = rng.random(questions) < np.where(hard, 0.1, 0.8)
    high = rng.random(questions) < 0.9
    texts = [f"{rng.choice(HARD if is_hard else EASY)} term{at % 7} of the sum" for at, is_hard in enumerate(hard)]
    tokens = np.exp(rng.normal(np.where(hard, 6.0, 4.0)[:, None], 0.3, (questions, 2)))[:, :, None]
    return table_of(np.column_stack([low, high]).astype(np.float64), texts, output_tokens=tokens)


def told_by_nothing(questions: int = 240, seed: int = 0) -> Table:
    """The same texts, and outcomes that have nothing to do with them: 60 % and 80 % right."""
    rng = np.random.default_rng(seed + 1)
    right = rng.random((questions, 2)) < np.array([0.6, 0.8])
    return table_of(right.astype(np.float64), list(told_by_words(questions, seed).questions))


@cache
def fitted() -> Calibration:
    """`told_by_words` fitted once."""
    return fit(told_by_words())
