"""What could be had by who knows more than a forecast: a verifier that is never wrong, and an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.intervals import Spread
from governor.learn.outcomes import Outcomes, Rows, over_samples
from governor.learn.routing import DIALS, choose, dial_prices, splits

_ALL_ORDERS = 8  # rungs; of more, only unbroken runs are tried


def perfect(outcomes: Outcomes, fold: Rows, dials: Floats = DIALS) -> Spread:
    """A verifier that is never wrong: climbs from cheap to dear until an answer is right and pays every attempt.

    Which rungs to climb is chosen on the training folds at each price: all subsets in order of mean cost (above eight
    rungs, all unbroken runs of that order).
    """
    shape = (len(dials), len(fold))
    cost, accuracy = np.empty(shape), np.empty(shape)
    by_cost = np.argsort(np.nanmean(outcomes.paid, axis=0), kind="stable").tolist()
    climbs = [_climb(outcomes, [by_cost[at] for at in order]) for order in _orders(len(by_cost))]
    costs, reached = np.stack([c for c, _ in climbs]), np.stack([a for _, a in climbs])
    for train, test in splits(fold):
        right, pay = reached[:, train].mean(axis=1)[None, :], costs[:, train].mean(axis=1)[None, :]
        pay = pay / outcomes.unit(train)
        best = choose(right, pay, dial_prices(right, pay, dials))[:, 0]
        cost[:, test], accuracy[:, test] = costs[best][:, test], reached[best][:, test]
    return Spread(cost, accuracy)


def oracle(outcomes: Outcomes, dials: Floats = DIALS) -> Spread:
    """Knows every answer beforehand: each item on its cheapest right rung where the price allows, else the cheapest."""
    questions, rungs, samples = outcomes.correct.shape
    right = outcomes.correct.transpose(0, 2, 1).reshape(-1, rungs)
    cost = outcomes.cost.transpose(0, 2, 1).reshape(-1, rungs)
    pay = np.where(np.isnan(cost), np.nanmax(cost), cost) / outcomes.unit(np.arange(questions))
    chosen = choose(right, pay, dial_prices(right, pay, dials))
    at, shape = np.arange(len(cost)), (len(dials), questions, samples)
    return Spread(over_samples(cost[at, chosen].reshape(shape)), over_samples(right[at, chosen].reshape(shape)))


def _orders(rungs: int) -> list[tuple[int, ...]]:
    if rungs > _ALL_ORDERS:
        return [tuple(range(a, b)) for a in range(rungs) for b in range(a + 1, rungs + 1)]
    return [order for size in range(1, rungs + 1) for order in combinations(range(rungs), size)]


def _climb(outcomes: Outcomes, order: Sequence[int]) -> tuple[Floats, Floats]:
    """(cost, accuracy) per question, (Q,), of climbing these rungs until one is right."""
    shape = (outcomes.correct.shape[0], outcomes.correct.shape[2])
    going, right, paid, looks = np.ones(shape, np.bool_), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    recorded = np.isfinite(outcomes.correct).any(axis=1)
    for rung in order:
        tried = going & np.isfinite(outcomes.correct[:, rung])
        cost = outcomes.cost[:, rung]
        if outcomes.look is None:
            paid = np.where(tried, paid + cost, paid)
        else:  # one thought: what it has run to so far, and every look taken before
            paid, looks = np.where(tried, cost + outcomes.look * looks, paid), looks + tried
        success = tried & (outcomes.correct[:, rung] > 0.5)
        right = np.where(success, 1.0, right)
        going = going & ~success & ~(tried & outcomes.last[:, rung])
    paid, right = np.where(recorded, paid, np.nan), np.where(recorded, right, np.nan)
    return np.nanmean(paid, axis=1), np.nanmean(right, axis=1)
