"""Exact values on the binary-verdict model: of a policy, and of the best there is (the oracle of the tests).

A rejection is the only branch that goes on, so a policy is a sequence of arms and the state is the set of arms
already rejected: belief and held answers follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.plan.odds import Odds, choose

MAX_ARMS = 12

Policy = Callable[[Odds, Floats, Floats, int], int | None]
"""(odds of the arms left, weights, held answers, attempts left) -> position among those arms, or None to stop."""


@dataclass(frozen=True, slots=True)
class Worth:
    """Of a policy on one step: `utility` as in the objective, `quality` P(the shipped answer is correct), `cost`."""

    utility: float
    quality: float
    cost: float


def index_policy(price: float) -> Policy:
    """What the planner does at this price, as a policy."""

    def decide(odds: Odds, weights: Floats, held: Floats, left: int) -> int | None:
        choice = choose(odds, weights, held, price, left)
        return choice.arm if choice.pays else None

    return decide


def value_of(
    policy: Policy, odds: Odds, weights: Floats, price: float, *, attempts: int = MAX_ARMS, answer: bool = False
) -> Worth:
    """Exact value of a policy: no sampling.

    With `answer` the last arm's answer ships where the policy stops with nothing accepted and abstaining is
    not on offer: the quality that a caller sees who always wants an answer.
    """
    arms = list(range(len(odds.cost)))
    reached, held = weights, np.empty((0, weights.size))
    utility = quality = cost = 0.0
    mass = 1.0
    for left in range(min(attempts, len(arms)), 0, -1):
        at = policy(odds.take(arms), reached / mass, held, left)
        if at is None:
            break
        arm = arms.pop(at)
        cost += mass * float(odds.cost[arm])
        gained = float(odds.good[arm] @ reached)
        utility += gained - price * mass * float(odds.cost[arm])
        accepted = mass - float(odds.reject[arm] @ reached)
        quality += (gained + odds.harm * accepted) / (1.0 + odds.harm)
        held = np.vstack([held, _correct_if_rejected(odds, arm)])
        reached = reached * odds.reject[arm]
        mass = float(reached.sum())
        if mass <= 1e-12:
            return Worth(utility, quality, cost)
    best = float((held @ reached).max()) if len(held) else 0.0
    shipped = (1.0 + odds.harm) * best - odds.harm * mass
    return Worth(utility + max(0.0, shipped), quality + (best if answer or shipped > 0 else 0.0), cost)


def optimum(odds: Odds, weights: Floats, price: float) -> float:
    """The best utility any policy can have: dynamic programming over the sets of rejected arms."""
    arms = len(odds.cost)
    if arms > MAX_ARMS:
        raise ValueError(f"the exact value needs at most {MAX_ARMS} arms, not {arms}")
    sets = 1 << arms
    reached = np.empty((sets, weights.size))
    reached[0] = weights
    for arm in range(arms):
        bit = 1 << arm
        reached[bit : 2 * bit] = reached[:bit] * odds.reject[arm]
    held = np.array([_correct_if_rejected(odds, arm) for arm in range(arms)])
    mass = reached.sum(axis=1)
    member = (np.arange(sets)[:, None] >> np.arange(arms)) & 1 == 1
    correct = np.where(member, reached @ held.T, 0.0).max(axis=1)
    value: list[float] = np.maximum(0.0, (1.0 + odds.harm) * correct - odds.harm * mass).tolist()
    net: list[list[float]] = (reached @ odds.good.T - price * mass[:, None] * odds.cost).tolist()
    for tried in range(sets - 1, -1, -1):
        for arm in range(arms):
            if not tried >> arm & 1:
                value[tried] = max(value[tried], net[tried][arm] + value[tried | 1 << arm])
    return value[0]


def _correct_if_rejected(odds: Odds, arm: int) -> Floats:
    """P(correct | rejected, difficulty); 0 where a rejection is impossible."""
    reject = odds.reject[arm]
    result: Floats = np.divide(odds.kept[arm], reject, out=np.zeros_like(reject), where=reject > 0)
    return result
