"""Held-out frontier -> what the dial means: which price lambda saves how much, at what quality, and how surely."""

from __future__ import annotations

import math

import numpy as np

from governor.estimate.calibration import Frontier
from governor.estimate.curves import Floats

PRICES: Floats = np.concatenate(([0.0], np.geomspace(0.002, 20.0, 38), [np.inf]))
"""Lambdas played on held-out records, in value per mean cost of a step's dearest rung."""

CERTAINTY = 1.645
"""Standard errors below the mean that quality is surely not worse than: 95 % one-sided."""


def frontier_of(cost: Floats, quality: Floats, best: tuple[Floats, Floats], unit: float) -> Frontier:
    """The upper concave envelope of what PRICES came to.

    `cost` and `quality` (P, Q) are each question's at every price, `best` (Q,) those of the best fixed rung, `unit` the
    mean of a step's dearest expected cost. Quality is bounded by the paired error of `quality - share * best`.
    """
    best_cost, best_quality = float(best[0].mean()), max(float(best[1].mean()), 1e-9)
    means, shares = cost.mean(axis=1) / best_cost, quality.mean(axis=1) / best_quality
    kept = _envelope(means, shares)
    paired = quality[kept] - shares[kept][:, None] * best[1]
    error = paired.std(axis=1) / math.sqrt(max(cost.shape[1], 1)) / best_quality
    return Frontier(
        price=PRICES[kept], cost=means[kept], quality=shares[kept], surely=shares[kept] - CERTAINTY * error, unit=unit
    )


def _envelope(cost: Floats, quality: Floats) -> list[int]:
    """Positions of the concave envelope's vertices, dear to cheap, none dearer than the best."""
    order = sorted(range(len(cost)), key=lambda at: (cost[at], -quality[at], at))
    found: list[int] = []
    for at in order:
        if found and quality[at] <= quality[found[-1]]:
            continue
        while len(found) > 1 and _below(cost, quality, found[-2], found[-1], at):
            found.pop()
        found.append(at)
    return found[::-1]


def _below(cost: Floats, quality: Floats, left: int, middle: int, right: int) -> bool:
    rise = (quality[right] - quality[left]) * (cost[middle] - cost[left])
    return bool((quality[middle] - quality[left]) * (cost[right] - cost[left]) <= rise)
