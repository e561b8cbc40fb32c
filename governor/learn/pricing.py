"""Held-out forecasts -> what the dial means: which price lambda came to which cost and quality, and how surely."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from governor.estimate.calibration import Calibration, Frontier
from governor.estimate.curves import Floats
from governor.estimate.learned import LearnedBelief
from governor.learn.costs import MICROS, Costs, Priced
from governor.learn.forecaster import Parts
from governor.learn.intervals import Spread
from governor.learn.ladder import Ladder
from governor.learn.outcomes import Outcomes, Rows
from governor.learn.played import Cast, Setting, play
from governor.learn.recorded import World
from governor.learn.routing import choose
from governor.learn.table import Table
from governor.protocols import Situation, Terms
from governor.records import Step

PRICES: Floats = np.concatenate(([0.001], np.geomspace(0.004, 20.0, 38), [1e9]))
"""Lambdas tried on held-out records, in value per mean cost of a step's dearest rung.

None is 0: for nothing, the last digits of two equal forecasts would buy the dearer rung.
"""

ITEMS = 1000
"""Of a verified ladder, whose steps are played through the loop to place its prices."""

CERTAINTY = 1.645
"""Standard errors below the mean that quality is surely not worse than: 95 %, one-sided."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """An estimator of recorded questions by log-odds (Q, K) of fits that did not see them."""

    calibration: Calibration
    odds: Floats
    at: dict[str, int]

    def estimate(self, step: Step, terms: Terms) -> LearnedBelief:
        known = self.calibration
        places = known.places(tuple(rung.id for rung in terms.ladder)) or []
        unknown = np.full(len(known.rungs), np.nan)
        return LearnedBelief.of(known, tuple(places), terms, self.odds[self.at[step.id]], unknown, 0.0)


@dataclass(frozen=True, slots=True)
class Swept:
    """Prices by number: the dial is a place in `prices`, as a share."""

    prices: tuple[float, ...]
    unit: float

    def price(self, terms: Terms, situation: Situation, unit: float) -> float:
        del situation
        price = self.prices[round((terms.dial or 0.0) * (len(self.prices) - 1))]
        return price * unit / self.unit


def priced(calibration: Calibration, table: Table, ladder: Ladder, odds: Floats, seed: int) -> Calibration:
    """The calibration with the frontier that its held-out forecasts `odds` (Q, K) come to on these records."""
    costs = Costs.of(table, ladder)
    expected = MICROS * np.array([costs.expected(text) for text in table.questions])
    unit = float(expected.max(axis=1).mean())
    outcomes = Outcomes.of(table, ladder)
    if ladder.checking.kind == "none" and calibration.agreement is None:
        shares = np.where(PRICES[-1] > PRICES, PRICES, 1e6)
        found = outcomes.taken(choose(1.0 / (1.0 + np.exp(-odds)), expected / unit, shares))
        prices, rows = PRICES, np.arange(len(table.qids))
    else:
        rows = np.arange(min(len(table.qids), max(ITEMS // len(table.samples), 50)))
        prices = PRICES
        found = _played(calibration, table, ladder, odds, (costs, unit, seed), rows)
    best = outcomes.best(np.arange(len(table.qids)))
    fixed = outcomes.paid[rows, best], outcomes.accuracy[rows, best]
    groups = np.unique(np.array(table.groups)[rows], return_inverse=True)[1]
    return replace(calibration, frontier=frontier_of(prices, found, fixed, groups, unit=unit))


def _played(
    calibration: Calibration, table: Table, ladder: Ladder, odds: Floats, how: tuple[Costs, float, int], rows: Rows
) -> Spread:
    costs, unit, seed = how
    world = World.of(table, ladder, table, seed)
    steps = {world.step(row).id: row for row in rows.tolist()}
    estimator = Priced(Forecasts(calibration, odds, steps), table.rungs, costs)
    places = np.linspace(0.0, 1.0, len(PRICES)).tolist()
    cast = Cast(parts=Parts(estimator, Swept(tuple(PRICES.tolist()), unit)))
    return play(world, cast, rows.tolist(), [Setting(dial=place) for place in places]).governor.spread


def frontier_of(prices: Floats, found: Spread, best: tuple[Floats, Floats], groups: Rows, *, unit: float) -> Frontier:
    """What rising prices came to, made monotone.

    `found` holds each question's cost and quality at every price, (P, Q); `best` (Q,) those of the best fixed rung;
    `unit` is the mean of a step's dearest expected cost. The bound of quality is paired (of `quality - share * best`),
    and counts questions of one group (`groups`, (Q,)) as one draw: they are right and wrong together.
    """
    best_cost, best_quality = float(np.nanmean(best[0])), max(float(np.nanmean(best[1])), 1e-9)
    kept = _cheaper(found.cost.mean(axis=1) / best_cost)
    cost = found.cost[kept].mean(axis=1) / best_cost
    quality = _falling(found.accuracy[kept].mean(axis=1) / best_quality)
    paired = found.accuracy[kept] - quality[:, None] * best[1]
    error = _error(paired, groups) / best_quality
    return Frontier(price=prices[kept], cost=cost, quality=quality, surely=quality - CERTAINTY * error, unit=unit)


def _error(values: Floats, groups: Rows) -> Floats:
    """Standard error of each row's mean, (P, Q) -> (P,), questions of a group being drawn together."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    off = (values - values.mean(axis=1, keepdims=True))[:, order]
    total = np.add.reduceat(off, starts, axis=1)
    error: Floats = np.sqrt((total**2).sum(axis=1)) / values.shape[1]
    return error


def _cheaper(cost: Floats) -> list[int]:
    """The prices at which less was spent than at every lower one."""
    found = [0]
    for at in range(1, len(cost)):
        if cost[at] < cost[found[-1]] - 1e-12:
            found.append(at)
    return found


def _falling(quality: Floats) -> Floats:
    """The nearest sequence that never rises (pool adjacent violators; Ayer et al. 1955)."""
    blocks: list[tuple[float, int]] = []
    for value in quality.tolist():
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (one, few), (other, more) = blocks.pop(-2), blocks.pop()
            blocks.append(((one * few + other * more) / (few + more), few + more))
    return np.concatenate([np.full(count, value) for value, count in blocks])
