"""The best plans there are on the binary-verdict model, at many prices at once: what `governor.plan.exact` values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.plan.odds import TIE, Odds
from governor.protocols import Belief, Situation
from governor.records import Forecast, Plan, Stop

MAX_RUNGS = 6


@dataclass(frozen=True, slots=True)
class Script:
    """A Planner (governor.protocols) that goes through stated arms, whatever is believed, until one is accepted.

    `arms` are positions on the ladder; `hopes` P(the arm's answer is correct | every arm was rejected): if so, the
    one of most hope ships.
    """

    arms: tuple[int, ...]
    hopes: tuple[float, ...]

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        """The next arm, whose forecast says what its answer will be worth in the end."""
        del belief
        done = len(situation.attempts)
        if done == len(self.arms):
            return Stop(reason="the plan ends")
        rung = situation.terms.ladder[self.arms[done]]
        p = self.hopes[done]
        hope = Forecast(rung=rung.id, p_success=p, p_accept=p, output_tokens=0.0, micros=0.0, seconds=0.0)
        return Plan(rung=rung, mode="fresh" if done else "first", forecasts=(hope,))


def best_scripts(odds: Odds, weights: Floats, prices: Floats) -> list[Script]:
    """The plan of greatest utility at each price, (D,): dynamic programming over the sets of rejected arms.

    Each arm is tried once at most. A first answer is always bought, at an infinite price the cheapest alone; equal
    worths go to the cheaper arm.
    """
    states = _States.of(odds, weights)
    finite = np.where(np.isinf(prices), 0.0, prices)
    chosen = states.choices(finite)
    cheapest = int(states.by_cost[0])
    return [
        states.script(np.full(len(chosen), -1) if np.isinf(price) else chosen[:, at], cheapest)
        for at, price in enumerate(prices.tolist())
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """A state is a set of rejected arms, as a bit mask: `reached` (M, G) unnormalised, `mass` (M,) its probability.

    `hope` (M, A) is P(an arm's answer is correct, state reached) of the arms in the state, 0 of others.
    """

    odds: Odds
    reached: Floats
    mass: Floats
    hope: Floats
    by_cost: np.ndarray[tuple[int, ...], np.dtype[np.intp]]

    @classmethod
    def of(cls, odds: Odds, weights: Floats) -> _States:
        reached, members = weights[None, :], np.zeros((1, 0), dtype=np.bool_)
        for reject in odds.reject:
            half = len(reached)
            members = np.vstack([np.hstack([members, np.full((half, 1), value)]) for value in (False, True)])
            reached = np.vstack([reached, reached * reject])
        first = np.divide(odds.kept, odds.reject, out=np.zeros_like(odds.kept), where=odds.reject > 0)
        hope: Floats = np.where(members, reached @ first.T, 0.0)
        return cls(odds, reached, reached.sum(axis=1), hope, np.argsort(odds.cost, kind="stable"))

    def choices(self, prices: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        """The arm to try next in each state at each price, (M, D); -1 is to stop."""
        odds, harm = self.odds, self.odds.harm
        gained = self.reached @ odds.good.T
        stop = np.maximum(0.0, (1.0 + harm) * self.hope.max(axis=1) - harm * self.mass)
        value = np.repeat(stop[:, None], len(prices), axis=1)
        chosen = np.full(value.shape, -1, dtype=np.intp)
        for state in range(len(stop) - 2, -1, -1):
            arms = np.array([arm for arm in self.by_cost.tolist() if not state >> arm & 1])
            spent = self.mass[state] * odds.cost[arms][:, None] * prices
            worth = gained[state, arms][:, None] - spent + value[state | 1 << arms]
            best = worth.max(axis=0)
            pays = best > value[state] + TIE if state else np.ones(len(prices), dtype=np.bool_)
            chosen[state] = np.where(pays, arms[(worth >= best - TIE).argmax(axis=0)], -1)
            value[state] = np.where(pays, best, value[state])
        return chosen

    def script(self, chosen: np.ndarray[tuple[int, ...], np.dtype[np.intp]], cheapest: int) -> Script:
        """From choices (M,) at one price; where nothing is chosen the cheapest arm alone."""
        arms, state = [], 0
        while chosen[state] >= 0:
            arms.append(int(chosen[state]))
            state |= 1 << arms[-1]
        arms = arms or [cheapest]
        state = sum(1 << arm for arm in arms)
        mass = float(self.mass[state]) or 1.0
        return Script(tuple(arms), tuple(float(self.hope[state, arm]) / mass for arm in arms))
