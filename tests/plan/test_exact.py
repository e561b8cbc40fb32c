from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate.curves import GRID, Floats
from governor.plan import odds as arithmetic
from governor.plan.exact import Policy, index_policy, optimum, value_of
from governor.plan.odds import Odds, choose

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
        if tried.count(arm) == 2:  # the second sample is the first over again, or one of its own
            share, single = _share(odds, arm), odds.reject[arm]
            alike = share * odds.kept[arm] / single
            given = (alike + (1 - share) * odds.kept[arm]) / (share + (1 - share) * single)
            correct = float((reached * given).sum())
            best = max(best, correct - odds.harm * (mass - correct))
    for arm in range(len(odds.cost)):
        share = _share(odds, arm)
        if arm not in tried:
            good, reject = odds.good[arm], odds.reject[arm]
        elif tried.count(arm) == 1 and share < 1:
            good, reject = (1 - share) * odds.good[arm], share + (1 - share) * odds.reject[arm]
        else:
            continue
        now = float((reached * good).sum()) - price * float(odds.cost[arm]) * mass
        best = max(best, now + brute_force(odds, reached * reject, price, (*tried, arm)))
    return best


def _share(odds: Odds, arm: int) -> float:
    return 1.0 if odds.repeat is None else float(odds.repeat[arm])


def resampled(rng: np.random.Generator, most: int = 6) -> Game:
    """A random ladder on which some arms may be sampled twice."""
    while True:
        game = random_game(rng)
        arms = len(game.odds.cost)
        if arms <= most and game.odds.reject.min() > 0:
            repeat = np.where(rng.random(arms) < 0.7, rng.uniform(0.0, 0.9, arms), 1.0)
            return replace(game, odds=replace(game.odds, repeat=repeat))


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


def test_with_second_samples_too_the_lookahead_is_within_two_percent(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(20251122)
    best = ahead = once = 0.0
    for _ in range(300):
        game = resampled(rng)
        best += optimum(game.odds, game.weights, game.price)
        ahead += value_of(index_policy(game.price), game.odds, game.weights, game.price).utility
        once += optimum(replace(game.odds, repeat=None), game.weights, game.price)
    with capsys.disabled():
        print(f"\n300 ladders, second samples: lookahead {ahead / best:.4f}, one sample each {once / best:.4f}")  # noqa: T201 - the figure
    assert ahead >= 0.98 * best
    assert once < 0.999 * best  # a second sample is worth having at all


def test_optimum_with_second_samples_equals_brute_force() -> None:
    rng = np.random.default_rng(4)
    for _ in range(15):
        game = resampled(rng, most=3)
        assert optimum(game.odds, game.weights, game.price) == pytest.approx(
            brute_force(game.odds, game.weights, game.price, ()), abs=1e-9
        )


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_a_second_sample_repeats_the_first_as_often_as_it_is_said_to(share: float) -> None:
    rng = np.random.default_rng(5)
    runs, chance, sensitivity, false_accept = 200_000, 0.6, 0.8, 0.3
    odds = Odds.of(np.array([[chance]]), np.ones(1), sensitivity, false_accept, HARM, np.array([share]))

    def sampled() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        correct = rng.random(runs) < chance
        return correct, rng.random(runs) < np.where(correct, sensitivity, false_accept)

    (first, accepted), (anew, passed) = sampled(), sampled()
    repeats = rng.random(runs) < share
    second, passed = np.where(repeats, first, anew), np.where(repeats, accepted, passed)
    second, passed = second[~accepted], passed[~accepted]
    row = odds.again(0, odds.kept[0] / odds.reject[0])
    assert row.reject[0, 0] == pytest.approx(np.mean(~passed), abs=0.006)
    assert row.kept[0, 0] == pytest.approx(np.mean(~passed & second), abs=0.006)
    assert row.good[0, 0] == pytest.approx(np.mean(passed & second) - HARM * np.mean(passed & ~second), abs=0.006)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_fast_path_decides_as_the_whole_lookahead_does(seed: int, holding: bool) -> None:
    game = resampled(np.random.default_rng(seed))
    held = game.success[:1] if holding else np.empty((0, len(GRID)))
    quick = choose(game.odds, game.weights, held, game.price, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_dominates", lambda *_: False)
        whole = choose(game.odds, game.weights, held, game.price, 3)
    assert quick.arm == whole.arm
    assert quick.pays == whole.pays or not holding
    assert quick.worth <= whole.worth + 1e-12


def test_the_fast_path_is_taken_where_one_arm_dominates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_second", lambda *_: pytest.fail("two steps for nothing"))
    one_shot = Odds.of(np.array([[0.4], [0.9]]), np.array([0.1, 1.0]), 1.0, 1.0, HARM)
    assert choose(one_shot, np.ones(1), np.empty((0, 1)), 0.05, 3).arm == 1


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
