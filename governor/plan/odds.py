"""The decision itself, as arithmetic: what each arm is worth now, one and two steps ahead.

All vectors run over the grid of difficulties; given the difficulty, rungs succeed independently. Weights that
are multiplied by a probability stay unnormalised: their sum is the probability of getting there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats

TIE = 1e-9
"""Values closer than this are equal, and the cheaper arm wins."""


@dataclass(frozen=True, slots=True, eq=False)
class Odds:
    """A ladder on one step. Rows are arms, columns difficulties.

    `good` is P(accepted, correct) - harm * P(accepted, wrong), `reject` P(rejected), `kept` P(correct,
    rejected); `cost` is in units of the dearest arm's expected cost.
    """

    good: Floats
    reject: Floats
    kept: Floats
    cost: Floats
    harm: float

    @classmethod
    def of(cls, success: Floats, cost: Floats, sensitivity: float, false_accept: float, harm: float) -> Odds:
        """From P(correct | rung, difficulty) and the verifier's error rates."""
        wrong = 1.0 - success
        return cls(
            good=success * sensitivity - (harm * false_accept) * wrong,
            reject=success * (1.0 - sensitivity) + wrong * (1.0 - false_accept),
            kept=success * (1.0 - sensitivity),
            cost=cost,
            harm=harm,
        )

    def take(self, arms: list[int]) -> Odds:
        """These arms only."""
        return Odds(self.good[arms], self.reject[arms], self.kept[arms], self.cost[arms], self.harm)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`arm` is the best arm, `worth` its value if chosen, `stop` the value of stopping, `index` z of every arm."""

    arm: int
    worth: float
    stop: float
    index: Floats

    @property
    def pays(self) -> bool:
        """Whether the arm is worth more than stopping."""
        return self.worth > self.stop + TIE


def choose(odds: Odds, weights: Floats, held: Floats, price: float, attempts_left: int) -> Choice:
    """The best arm by two-step lookahead, and the index z of each arm.

    `weights` (G,) sum to 1; `held` (H, G) is P(correct | difficulty) of every answer already in hand; `price`
    is lambda. `z = (q s - L (1-q) f - lambda c) / A`. What decides is the worth: try an arm, and after its
    rejection the best of shipping an answer, abstaining, or one more arm. An arm competes with the answer held
    in every outcome, so it is credited with what it adds and no more. At an infinite price the cheapest arm
    is the best and none pays.
    """
    if math.isinf(price):
        arm = _first_best(-odds.cost, odds.cost)
        return Choice(arm, -math.inf, 0.0, -odds.cost)
    now = held @ weights
    stop = max(0.0, (1.0 + odds.harm) * float(now.max()) - odds.harm) if len(held) else 0.0
    after = odds.reject * weights
    mass = after.sum(axis=1)
    best = odds.kept @ weights
    if len(held):
        best = np.maximum(best, (after @ held.T).max(axis=1))
    net = odds.good @ weights - price * odds.cost
    shipped = _ship(best, mass, odds.harm)
    index = net / np.maximum(1.0 - mass, TIE)
    worth = net + shipped
    if attempts_left > 1 and len(mass) > 1:
        worth = net + np.maximum(shipped, _second(odds, weights, after, mass, held, price).max(axis=1))
    arm = _first_best(worth, odds.cost)
    return Choice(arm, float(worth[arm]), stop, index)


def _second(odds: Odds, weights: Floats, after: Floats, mass: Floats, held: Floats, price: float) -> Floats:
    """Value of trying arm j after arm k was rejected, then stopping; (K, K), unnormalised."""
    gone = after @ odds.reject.T
    mine = (odds.kept * weights) @ odds.reject.T
    best = np.maximum(mine, mine.T)
    for answer in held:
        best = np.maximum(best, (after * answer) @ odds.reject.T)
    value = after @ odds.good.T - price * mass[:, None] * odds.cost + _ship(best, gone, odds.harm)
    value.flat[:: len(mass) + 1] = -np.inf  # never the same arm again
    return value


def _ship(correct: Floats, mass: Floats, harm: float) -> Floats:
    """Value of stopping after a rejection: ship the best answer if that is worth more than abstaining."""
    return np.maximum(0.0, (1.0 + harm) * correct - harm * mass)


def _first_best(worth: Floats, cost: Floats) -> int:
    near = np.flatnonzero(worth >= worth.max() - TIE)
    return int(near[cost[near].argmin()]) if len(near) > 1 else int(near[0])
