"""Learning how far questions like those of the records lie from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from governor.estimate.curves import Floats
from governor.estimate.familiar import COUNTS, Familiar
from governor.learn.heads import Design, inverse_frequency
from governor.learn.outcomes import Rows
from governor.learn.routing import splits

TAKEN = 0.005
"""Share of questions like those fitted on whose counts may be taken for those of foreign ones."""

_RIDGE = 0.01  # of a count's variance: some counts say nearly the same
_LEAST = 1e-6  # deviation of a log count that varies at all


def fit_familiar(design: Design, fold: Rows) -> Familiar:
    """How far questions lie from those of the other folds.

    Of unseen words the largest share counts: where whole families are held out, the words of some are nearly all new,
    and a share that is passed by one question in 100 would be passed by one in ten of the next families.
    """
    unseen, distance = np.zeros(len(fold)), np.zeros(len(fold))
    counts = design.numbers[:, COUNTS]
    for train, test in splits(fold):
        unseen[test] = _unseen(design.counts[test], inverse_frequency(design.counts[train]))
        centre, whitening = _form(counts[train])
        distance[test] = (((counts[test] - centre) @ whitening) ** 2).sum(axis=1)
    return Familiar(float(unseen.max()), _furthest(distance), *_form(counts))


def _unseen(counts: Any, idf: Floats) -> Floats:
    """Of the buckets of each text (Q, B), the share without weight."""
    size = np.diff(counts.indptr)
    known = (counts > 0) @ (idf > 0).astype(np.float64)
    shares: Floats = np.where(size > 0, 1.0 - known / np.maximum(size, 1), 0.0)
    return shares


def _form(counts: Floats) -> tuple[Floats, Floats]:
    """Mean and whitening of what varies, standardised first."""
    width = counts.std(axis=0)
    scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > _LEAST)
    centre: Floats = counts.mean(axis=0)
    shared = (counts - centre) * scale
    value, axes = np.linalg.eigh(shared.T @ shared / len(counts))
    whitening: Floats = (scale[:, None] * axes) / np.sqrt(np.maximum(value, 0.0) + _RIDGE)
    return centre, whitening


def _furthest(values: Floats) -> float:
    """What another draw exceeds with probability TAKEN at most (Vovk et al. 2005); of fewer than 200 the largest."""
    place = math.ceil((len(values) + 1) * (1.0 - TAKEN))
    return float(np.sort(values)[min(place, len(values)) - 1])
