"""The decision itself, as arithmetic: what each arm is worth now, one and two steps ahead.

All vectors run over the grid of difficulties; given the difficulty, rungs succeed independently, and a second
sample of a rung repeats its first outcome with a probability of its own. Weights that are multiplied by a
probability stay unnormalised: their sum is the probability of getting there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats

TIE = 1e-9
"""Values closer than this are equal, and the cheaper arm wins."""


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """An arm that looks again at an answer in hand: unless it settles, `left` (G,) is P(correct, not settled)."""

    arm: int
    answer: int
    left: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Odds:
    """What may be done on one step. Rows are arms, columns difficulties.

    `good` is P(accepted, correct) - harm * P(accepted, wrong), `reject` P(rejected), `kept` P(the arm's new
    answer is correct, rejected); `cost` is in units of the dearest rung's expected cost. `repeat` (A,) is the
    probability that a second sample of the arm repeats its first outcome, 1 where none may be drawn; None: nowhere.
    """

    good: Floats
    reject: Floats
    kept: Floats
    cost: Floats
    harm: float
    repeat: Floats | None = None
    doubts: tuple[Doubt, ...] = ()

    @classmethod
    def of(
        cls,
        success: Floats,
        cost: Floats,
        sensitivity: float | Floats,
        false_accept: float | Floats,
        harm: float,
        repeat: Floats | None = None,
    ) -> Odds:
        """From P(correct | rung, difficulty) and the verifier's error rates: of all arms, or (A,) of each."""
        wrong = 1.0 - success
        seen, passed = np.asarray(sensitivity)[..., None], np.asarray(false_accept)[..., None]
        return cls(
            good=success * seen - (harm * passed) * wrong,
            reject=success * (1.0 - seen) + wrong * (1.0 - passed),
            kept=success * (1.0 - seen),
            cost=cost,
            harm=harm,
            repeat=repeat,
        )

    def costing(self, cost: Floats) -> Odds:
        """The same at other costs."""
        return Odds(self.good, self.reject, self.kept, cost, self.harm, self.repeat, self.doubts)

    def take(self, arms: list[int]) -> Odds:
        """These arms only."""
        place = {arm: at for at, arm in enumerate(arms)}
        return Odds(
            self.good[arms],
            self.reject[arms],
            self.kept[arms],
            self.cost[arms],
            self.harm,
            None if self.repeat is None else self.repeat[arms],
            tuple(Doubt(place[one.arm], one.answer, one.left) for one in self.doubts if one.arm in place),
        )

    def again(self, arm: int, first: Floats) -> Odds:
        """One more sample of `arm`, whose first was rejected and is correct with probability `first` (G,).

        With probability `repeat` it ends as the first did, rejected; else it is drawn anew.
        """
        share = 1.0 if self.repeat is None else float(self.repeat[arm])
        fresh = 1.0 - share
        return Odds(
            good=fresh * self.good[arm : arm + 1],
            reject=share + fresh * self.reject[arm : arm + 1],
            kept=share * first[None] + fresh * self.kept[arm : arm + 1],
            cost=self.cost[arm : arm + 1],
            harm=self.harm,
        )

    def beside(self, *others: Odds) -> Odds:
        """These arms, then the others', of which none is sampled a third time."""
        if not others:
            return self
        rows, doubts = len(self.cost), list(self.doubts)
        repeats = [np.ones(rows) if self.repeat is None else self.repeat]
        for other in others:
            doubts += [Doubt(rows + one.arm, one.answer, one.left) for one in other.doubts]
            rows += len(other.cost)
            repeats.append(np.ones(len(other.cost)))
        every = (self, *others)
        return Odds(
            np.vstack([one.good for one in every]),
            np.vstack([one.reject for one in every]),
            np.vstack([one.kept for one in every]),
            np.concatenate([one.cost for one in every]),
            self.harm,
            None if self.repeat is None else np.concatenate(repeats),
            tuple(doubts),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`arm` is the best arm, `worth` its value if chosen, `stop` the value of stopping.

    Where one arm dominates, `worth` is its value without a second arm: the least that it is worth. `net` and `mass`
    are of every arm: what trying it is worth where it is accepted, less its price, and P(it is rejected).
    """

    arm: int
    worth: float
    stop: float
    net: Floats
    mass: Floats

    @property
    def index(self) -> Floats:
        """Z of every arm."""
        found: Floats = self.net / np.maximum(1.0 - self.mass, TIE)
        return found

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
    is the best and none pays. Where one step ahead already one arm beats all that others could come to, the
    second step is left out.
    """
    if math.isinf(price):
        arm = _first_best(-odds.cost, odds.cost)
        return Choice(arm, -math.inf, 0.0, -odds.cost, np.zeros_like(odds.cost))
    stop = max(0.0, (1.0 + odds.harm) * float((held @ weights).max()) - odds.harm) if len(held) else 0.0
    after = odds.reject * weights
    mass = after.sum(axis=1)
    net = odds.good @ weights - price * odds.cost
    worth = net + _ship(_best_left(odds, weights, after, held), mass, odds.harm)
    arm = _first_best(worth, odds.cost)
    if attempts_left > 1 and not _dominates(arm, worth, net + mass, stop if len(held) else -math.inf):
        worth = np.maximum(worth, net + _second(odds, weights, after, mass, held, price).max(axis=1))
        arm = _first_best(worth, odds.cost)
    return Choice(arm, float(worth[arm]), stop, net, mass)


def _dominates(arm: int, worth: Floats, most: Floats, stop: float) -> bool:
    """Whether this arm beats stopping, and all that any other could be worth: 1 for every rejection."""
    if worth[arm] <= stop + TIE:
        return False
    others = most.copy()
    others[arm] = -np.inf
    return bool(others.max() < worth[arm] - TIE)


def _best_left(odds: Odds, weights: Floats, after: Floats, held: Floats) -> Floats:
    """P(the best answer in hand is correct, rejected) after each arm; (A,)."""
    best: Floats = odds.kept @ weights
    if len(held):
        answers = after @ held.T
        for doubt in odds.doubts:
            answers[doubt.arm, doubt.answer] = doubt.left @ weights
        np.maximum(best, answers.max(axis=1), out=best)
    return best


def _second(odds: Odds, weights: Floats, after: Floats, mass: Floats, held: Floats, price: float) -> Floats:
    """Value of trying arm j after arm k was rejected, then stopping; (A, A), unnormalised."""
    gone = after @ odds.reject.T
    mine = (odds.kept * weights) @ odds.reject.T
    gained = after @ odds.good.T
    if odds.repeat is not None:
        _sample_twice(odds.repeat, gone, mass)
        _sample_twice(odds.repeat, mine, odds.kept @ weights)
        _sample_twice(odds.repeat, gained, 0.0)
    best = np.maximum(mine, mine.T)
    for at, answer in enumerate(held):
        left = (after * answer) @ odds.reject.T
        if odds.repeat is not None:
            _sample_twice(odds.repeat, left, after @ answer)
        for doubt in odds.doubts:
            if doubt.answer == at:
                left[doubt.arm] = (doubt.left * weights) @ odds.reject.T
                left[:, doubt.arm] = after @ doubt.left
        best = np.maximum(best, left)
    value = gained - price * mass[:, None] * odds.cost + _ship(best, gone, odds.harm)
    value.flat[:: len(mass) + 1] = -np.inf if odds.repeat is None else _where_sampled(odds.repeat, value)
    for one in odds.doubts:  # two looks at one answer are not independent: the second is weighed after the first
        value[one.arm, [other.arm for other in odds.doubts if other.answer == one.answer]] = -np.inf
    return value


def _sample_twice(repeat: Floats, after_both: Floats, after_one: Floats | float) -> None:
    """On the diagonal an arm follows itself: with its repeat share its second sample changes nothing."""
    step = len(repeat) + 1
    after_both.ravel()[::step] += repeat * (after_one - after_both.ravel()[::step])


def _where_sampled(repeat: Floats, value: Floats) -> Floats:
    return np.where(repeat < 1.0, value.flat[:: len(repeat) + 1], -np.inf)


def _ship(correct: Floats, mass: Floats, harm: float) -> Floats:
    """Value of stopping after a rejection: ship the best answer if that is worth more than abstaining."""
    return np.maximum(0.0, (1.0 + harm) * correct - harm * mass)


def _first_best(worth: Floats, cost: Floats) -> int:
    if len(worth) == 1:
        return 0
    near = np.flatnonzero(worth >= worth.max() - TIE)
    return int(near[cost[near].argmin()]) if len(near) > 1 else int(near[0])
