"""Counting how scores move while a thought grows."""

from __future__ import annotations

import numpy as np

from governor.estimate.calibration import Scores
from governor.estimate.chain import Chain
from governor.estimate.curves import Floats
from governor.estimate.learned import logit
from governor.learn.outcomes import Rows
from governor.learn.table import Flags

BINS = 5
_PRIOR = 4.0
"""Pseudo-observations that hold a bin to its look's mean, and a transition to where all thoughts go."""


def fit_chain(scores: Scores, correct: Floats, score: Floats, tokens: Floats, ended: Floats) -> Chain:
    """Of recorded looks (Q, K, S), NaN where nothing is recorded; rungs are put in the order of their mean tokens."""
    order = np.argsort(np.nanmean(tokens, axis=(0, 2)), kind="stable")
    correct, score, tokens, ended = (one[:, order] for one in (correct, score, tokens, ended))
    centre, width = scores.centre[order], scores.width[order]
    z = np.clip((logit(score) - centre[None, :, None]) / width[None, :, None], -3.0, 3.0)
    looks = z.shape[1]
    edges = np.array([np.nanquantile(z[:, k], np.arange(1, BINS) / BINS) for k in range(looks)])
    bins = np.stack([np.searchsorted(edges[k], z[:, k], side="right") for k in range(looks)], axis=1)
    known = ~np.isnan(correct) & ~np.isnan(score)
    right, ends = np.empty((looks, BINS)), np.empty((looks, BINS))
    moves, more = np.empty((looks - 1, BINS, BINS)), np.empty((looks - 1, BINS))
    for k in range(looks):
        right[k] = _means(bins[:, k], correct[:, k], known[:, k])
        ends[k] = _means(bins[:, k], ended[:, k], known[:, k])
        if k < looks - 1:
            going = known[:, k] & known[:, k + 1] & (ended[:, k] < 0.5)
            moves[k] = _transitions(bins[:, k][going], bins[:, k + 1][going])
            more[k] = _means(bins[:, k], tokens[:, k + 1] - tokens[:, k], going)
    whole = float(np.nanmean(tokens[:, -1]))
    return Chain(edges, right, moves, more, ends, order.astype(np.int32), whole)


def _means(bins: Rows, values: Floats, known: Flags) -> Floats:
    """Mean per bin, held to the mean of all."""
    at = bins[known]
    every = float(values[known].mean()) if known.any() else 0.0
    total = np.bincount(at, values[known], BINS) + _PRIOR * every
    result: Floats = total / (np.bincount(at, minlength=BINS) + _PRIOR)
    return result


def _transitions(before: Rows, after: Rows) -> Floats:
    counts = np.zeros((BINS, BINS))
    np.add.at(counts, (before, after), 1.0)
    usual = (counts.sum(axis=0) + 1.0) / (counts.sum() + BINS)
    result: Floats = (counts + _PRIOR * usual) / (counts.sum(axis=1, keepdims=True) + _PRIOR)
    return result
