"""Recorded outcomes made up for tests: two rungs, and questions whose words say which of them are needed."""

from __future__ import annotations

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.outcomes import Outcomes, Rows

EASY, HARD = ("add", "copy", "count"), ("prove", "derive", "integrate")


def outcomes_of(correct: Floats, cost: Floats, texts: tuple[str, ...] = (), look: float | None = None) -> Outcomes:
    shape = correct.shape
    return Outcomes(
        texts=texts or tuple(f"question {at}" for at in range(shape[0])),
        correct=correct,
        cost=cost,
        known=np.zeros(shape[:2]),
        last=np.zeros(shape, dtype=np.bool_),
        look=look,
    )


def told_by_words(questions: int = 300, seed: int = 0) -> tuple[Outcomes, Rows]:
    """(outcomes, folds): weak fails what its words call hard, strong is right nine times of ten; costs 1 and 10."""
    rng = np.random.default_rng(seed)
    hard = rng.random(questions) < 0.5
    verbs = ((rng.choice(HARD), 4) if is_hard else (rng.choice(EASY), 1) for is_hard in hard.tolist())
    texts = tuple(f"{verb} the {rng.choice(('first', 'next'))} {'term ' * length}" for verb, length in verbs)
    right = np.stack((~hard, rng.random(questions) < 0.9), axis=1).astype(float)[:, :, None]
    cost = np.broadcast_to(np.array([1.0, 10.0])[:, None], right.shape).copy()
    return outcomes_of(right, cost, texts), rng.permutation(questions) % 5
