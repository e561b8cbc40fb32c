"""One-shot routing: a forecast or a score of each question, and the rung it is sent to at every dial.

Every question is judged by what was learned on the folds that do not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.intervals import Spread
from governor.learn.outcomes import Outcomes, Rows
from governor.plan.frontier import way

Forecaster = Callable[[Rows, Rows], Floats]
"""(training rows, test rows) -> P(correct) of the test rows, shape (test, K)."""

DIALS: Floats = np.linspace(0.0, 1.0, 41)
"""Shares of the way from the most accurate choice, 0, to the cheapest, 1."""

_GRID: Floats = np.concatenate(([0.0], np.geomspace(1e-4, 1e3, 300), [1e9]))  # prices between which dials are set
_GRID_QUESTIONS = 2000  # enough to place them


def out_of_fold(fold: Rows, rungs: int, forecaster: Forecaster) -> Floats:
    """P(correct) of every question, (Q, K), by a fit on the other folds; `fold` (Q,) says which fold tests it."""
    p = np.empty((len(fold), rungs))
    for train, test in splits(fold):
        p[test] = forecaster(train, test)
    return p


def splits(fold: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(training rows, test rows) of every fold, in their order."""
    for part in np.unique(fold):
        yield np.flatnonzero(fold != part), np.flatnonzero(fold == part)


def one_shot(outcomes: Outcomes, fold: Rows, p: Floats, dials: Floats = DIALS) -> Spread:
    """Each question on the rung of greatest `p - price * expected cost`, out of fold, for P(correct) `p` (Q, K).

    Expected cost is what the text gives away plus the mean of the rest on training questions, in units of the best
    fixed rung's mean cost there. Dials are linear in that cost: their prices are set on training questions.
    """
    chosen = np.empty((len(dials), len(fold)), dtype=np.intp)
    for train, test in splits(fold):
        rest = np.nanmean(outcomes.paid[train] - outcomes.known[train], axis=0)
        cost = (outcomes.known + rest) / outcomes.unit(train)
        prices = dial_prices(p[train[:_GRID_QUESTIONS]], cost[train[:_GRID_QUESTIONS]], dials)
        chosen[:, test] = choose(p[test], cost[test], prices)
    return outcomes.taken(chosen)


def dial_prices(p: Floats, cost: Floats, dials: Floats = DIALS) -> Floats:
    """The prices at which choosing saves these shares of the cost that can be saved on such questions; no labels."""
    chosen = choose(p, cost, _GRID)
    spent = np.take_along_axis(cost, chosen.T, axis=1).mean(axis=0)
    saved = np.maximum.accumulate(spent[0] - spent)
    at = np.searchsorted(saved, dials * saved[-1] * (1.0 - 1e-12))
    prices: Floats = np.where(dials < 1.0, _GRID[at], _GRID[-1])
    return prices


def choose(p: Floats, cost: Floats, prices: Floats) -> Rows:
    """The rung of most `p - price * cost` at each price, (D, Q); ties to the cheaper, never one without a forecast."""
    order = np.argsort(cost.mean(axis=0), kind="stable")
    p, cost = np.where(np.isnan(p), -np.inf, p)[:, order], cost[:, order]
    return np.stack([order[np.argmax(p - price * cost, axis=1)] for price in prices.tolist()])


def by_score(outcomes: Outcomes, fold: Rows, score: Floats, dials: Floats = DIALS) -> Spread:
    """Harder-looking questions on dearer rungs: the hull's mixtures, drawn by a score (Q,) instead of at random.

    Along the hull of fixed rungs on the training folds, each dial shares the questions between two neighbours; the
    threshold is that quantile of the training questions' scores.
    """
    chosen = np.empty((len(dials), len(fold)), dtype=np.intp)
    for train, test in splits(fold):
        rungs = outcomes.hull_rungs(train)
        for dial, place in enumerate(((1.0 - dials) * (len(rungs) - 1)).tolist()):
            lower = min(int(place), len(rungs) - 1)
            upper = min(lower + 1, len(rungs) - 1)
            share = place - lower
            threshold = np.quantile(score[train], 1.0 - share) if share > 0.0 else np.inf
            chosen[dial, test] = np.where(score[test] > threshold, rungs[upper], rungs[lower])
    return outcomes.taken(chosen)


def mixing(outcomes: Outcomes, parts: Iterable[tuple[Rows, Rows]], dials: Floats = DIALS) -> Spread:
    """Fixed rungs mixed at random along the hull of each part's training rows, in expectation; NaN where none tests.

    The best that can be learned of rungs by one who can't tell questions apart. Dial 0 is the most accurate corner, 1
    the cheapest; the others run evenly along the hull as the governor's do (`governor.plan.frontier`).
    """
    cost, accuracy = (np.full((len(dials), len(outcomes.texts)), np.nan) for _ in range(2))
    for train, test in parts:
        rungs = outcomes.hull_rungs(train)[::-1]
        corners = (np.nanmean(figures[train][:, rungs], axis=0) for figures in (outcomes.paid, outcomes.accuracy))
        along = way(*corners)
        shares = np.stack([np.interp(dials * along[-1], along, corner) for corner in np.eye(len(rungs))], axis=1)
        cost[:, test] = shares @ outcomes.paid[test][:, rungs].T
        accuracy[:, test] = shares @ outcomes.accuracy[test][:, rungs].T
    return Spread(cost, accuracy)
