from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from governor.estimate.curves import GRID, Floats
from governor.plan.exact import Policy, index_policy, optimum, value_of
from governor.plan.odds import Odds

HARM = 0.5
LADDERS = 1000


@dataclass(frozen=True, slots=True)
class Game:
    odds: Odds
    success: Floats
    weights: Floats
    price: float


def random_game(rng: np.random.Generator) -> Game:
    """A ladder no planner was tuned to: 2-6 rungs, any abilities, slopes, floors, costs and verifier."""
    rungs = int(rng.integers(2, 7))
    ability = rng.normal(0.0, 1.2, rungs)
    if rng.random() < 0.8:  # most ladders are in order, some are not
        ability.sort()
    slope, floor = rng.uniform(0.6, 3.0, rungs), rng.uniform(0.0, 0.25, rungs)
    success = floor[:, None] + (1 - floor[:, None]) / (1 + np.exp(-slope[:, None] * (ability[:, None] - GRID)))
    cost = np.sort(np.exp(rng.normal(0.0, 1.2, rungs)))
    sensitivity, false_accept = (1.0, 1.0) if rng.random() < 0.1 else (rng.uniform(0.7, 1.0), rng.uniform(0.0, 0.4))
    weights = np.exp(-0.5 * ((GRID - rng.normal()) / rng.uniform(0.3, 1.6)) ** 2)
    price = float(np.exp(rng.uniform(np.log(0.01), np.log(1.0))))
    odds = Odds.of(success, cost / cost.max(), float(sensitivity), float(false_accept), HARM)
    return Game(odds, success, weights / weights.sum(), price)


def weitzman(game: Game) -> Policy:
    """Pandora's index for independent boxes and a perfect verifier: prior p, no update, 1 - lambda c / p."""
    prior = dict(zip(game.odds.cost.tolist(), (game.success @ game.weights).tolist(), strict=True))

    def decide(odds: Odds, weights: Floats, held: Floats, left: int) -> int | None:
        del weights, held, left
        index = [1.0 - game.price * cost / prior[cost] for cost in odds.cost.tolist()]
        best = int(np.argmax(index))
        return best if index[best] > 0 else None

    return decide


def brute_force(odds: Odds, reached: Floats, price: float, tried: tuple[int, ...]) -> float:
    """The optimum by plain recursion over orders, sharing no code with the oracle."""
    mass = float(reached.sum())
    best = 0.0
    for arm in tried:
        correct = float((reached * odds.kept[arm] / odds.reject[arm]).sum())
        best = max(best, correct - odds.harm * (mass - correct))
    for arm in range(len(odds.cost)):
        if arm not in tried:
            now = float((reached * odds.good[arm]).sum()) - price * float(odds.cost[arm]) * mass
            best = max(best, now + brute_force(odds, reached * odds.reject[arm], price, (*tried, arm)))
    return best


def test_index_is_within_two_percent_of_the_optimum_and_the_plain_index_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(20251121)
    best = index = plain = 0.0
    for _ in range(LADDERS):
        game = random_game(rng)
        best += optimum(game.odds, game.weights, game.price)
        index += value_of(index_policy(game.price), game.odds, game.weights, game.price).utility
        plain += value_of(weitzman(game), game.odds, game.weights, game.price).utility
    with capsys.disabled():
        print(f"\n{LADDERS} ladders: index {index / best:.4f} of the optimum, Weitzman's {plain / best:.4f}")  # noqa: T201 - the figure
    assert index >= 0.98 * best
    assert plain < 0.95 * best
    assert best > 0.3 * LADDERS  # the sum means something: most ladders are worth playing


def test_no_policy_beats_the_optimum() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        game = random_game(rng)
        best = optimum(game.odds, game.weights, game.price)
        for policy in (index_policy(game.price), weitzman(game), index_policy(0.0)):
            assert value_of(policy, game.odds, game.weights, game.price).utility <= best + 1e-9


def test_optimum_equals_brute_force() -> None:
    rng = np.random.default_rng(2)
    checked = 0
    while checked < 30:
        game = random_game(rng)
        if len(game.odds.cost) > 4 or game.odds.reject.min() <= 0:
            continue
        checked += 1
        assert optimum(game.odds, game.weights, game.price) == pytest.approx(
            brute_force(game.odds, game.weights, game.price, ()), abs=1e-9
        )


def test_value_agrees_with_a_simulation() -> None:
    rng = np.random.default_rng(3)
    success = np.array([1 / (1 + np.exp(1.5 * (GRID + 0.5))), 1 / (1 + np.exp(1.5 * (GRID - 1.0)))])
    sensitivity, false_accept, price = 0.9, 0.2, 0.1
    odds = Odds.of(success, np.array([0.2, 1.0]), sensitivity, false_accept, HARM)
    weights = np.exp(-0.5 * GRID**2)
    weights /= weights.sum()
    both_then_abstain: Policy = lambda odds, weights, held, left: 0  # noqa: E731 - a policy in one line
    exact = value_of(both_then_abstain, odds, weights, price)
    runs = 40_000
    at = rng.choice(len(GRID), runs, p=weights)
    utility = np.zeros(runs)
    open_runs = np.ones(runs, dtype=bool)
    for arm in range(2):
        correct = rng.random(runs) < success[arm, at]
        accepted = rng.random(runs) < np.where(correct, sensitivity, false_accept)
        utility -= np.where(open_runs, price * odds.cost[arm], 0.0)
        utility += np.where(open_runs & accepted, np.where(correct, 1.0, -HARM), 0.0)
        open_runs &= ~accepted
    # What a rejected answer is worth shipped is left out of the simulation: here it is worth nothing.
    reached = weights * odds.reject[0] * odds.reject[1]
    assert (odds.kept[1] / odds.reject[1]) @ reached < HARM / (1 + HARM) * reached.sum()
    assert exact.utility == pytest.approx(utility.mean(), abs=4 * utility.std() / runs**0.5)


def test_too_many_arms_are_refused() -> None:
    odds = Odds.of(np.full((13, 1), 0.5), np.ones(13), 0.9, 0.1, HARM)
    with pytest.raises(ValueError, match="at most 12"):
        optimum(odds, np.ones(1), 0.1)
