"""Exact values on the binary-verdict model: of a policy, and of the best there is (the oracle of the tests).

A rejection is the only branch that goes on, so a policy is a sequence of arms and the state is how often each
arm was rejected: belief and held answers follow from it. An arm with a repeat share under 1 may be sampled twice.
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
    open_arms = odds
    reached, held = weights, np.empty((0, weights.size))
    utility = quality = cost = 0.0
    mass = 1.0
    for left in range(attempts, 0, -1):
        if not len(open_arms.cost):
            break
        arm = policy(open_arms, reached / mass, held, left)
        if arm is None:
            break
        spent = mass * float(open_arms.cost[arm])
        cost += spent
        gained = float(open_arms.good[arm] @ reached)
        utility += gained - price * spent
        accepted = mass - float(open_arms.reject[arm] @ reached)
        quality += (gained + odds.harm * accepted) / (1.0 + odds.harm)
        held = np.vstack([held, _correct_if_rejected(open_arms, arm)])
        reached = reached * open_arms.reject[arm]
        mass = float(reached.sum())
        if mass <= 1e-12:
            return Worth(utility, quality, cost)
        open_arms = _without(open_arms, arm, held[-1])
    best = float((held @ reached).max()) if len(held) else 0.0
    shipped = (1.0 + odds.harm) * best - odds.harm * mass
    return Worth(utility + max(0.0, shipped), quality + (best if answer or shipped > 0 else 0.0), cost)


def _without(odds: Odds, arm: int, first: Floats) -> Odds:
    """The arms that are left once `arm` was rejected: its second sample stays where one may be drawn."""
    rest = odds.take([at for at in range(len(odds.cost)) if at != arm])
    if odds.repeat is None or odds.repeat[arm] >= 1.0:
        return rest
    return rest.beside(odds.again(arm, first))


def optimum(odds: Odds, weights: Floats, price: float) -> float:
    """The best utility any policy can have: dynamic programming over how often each arm was rejected."""
    arms = len(odds.cost)
    tries = [1 if odds.repeat is None or odds.repeat[arm] >= 1.0 else 2 for arm in range(arms)]
    if sum(tries) > MAX_ARMS:
        raise ValueError(f"the exact value needs at most {MAX_ARMS} arms, second samples counted, not {sum(tries)}")
    first = np.array([_correct_if_rejected(odds, arm) for arm in range(arms)])
    twice = [odds.again(arm, first[arm]) for arm in range(arms)]
    second = np.array([_correct_if_rejected(row, 0) for row in twice])
    reached, counts = weights[None, :], np.zeros((1, 0), dtype=int)
    for arm in range(arms):
        steps = [np.ones_like(weights), odds.reject[arm], odds.reject[arm] * twice[arm].reject[0]][: tries[arm] + 1]
        counts = np.hstack([np.tile(counts, (len(steps), 1)), np.repeat(np.arange(len(steps)), len(counts))[:, None]])
        reached = np.vstack([reached * step for step in steps])
    mass = reached.sum(axis=1)
    correct = np.maximum(
        np.where(counts >= 1, reached @ first.T, 0.0), np.where(counts >= 2, reached @ second.T, 0.0)
    ).max(axis=1, initial=0.0)
    value: list[float] = np.maximum(0.0, (1.0 + odds.harm) * correct - odds.harm * mass).tolist()
    good = (odds.good, np.vstack([row.good for row in twice]))
    net = [(reached @ one.T - price * mass[:, None] * odds.cost).tolist() for one in good]
    tried: list[list[int]] = counts.tolist()
    strides = np.concatenate([[1], np.cumprod([n + 1 for n in tries])]).tolist()
    for state in range(len(mass) - 1, -1, -1):
        for arm in range(arms):
            done = tried[state][arm]
            if done < tries[arm]:
                value[state] = max(value[state], net[done][state][arm] + value[state + strides[arm]])
    return value[0]


def _correct_if_rejected(odds: Odds, arm: int) -> Floats:
    """P(correct | rejected, difficulty); 0 where a rejection is impossible."""
    reject = odds.reject[arm]
    result: Floats = np.divide(odds.kept[arm], reject, out=np.zeros_like(reject), where=reject > 0)
    return result
