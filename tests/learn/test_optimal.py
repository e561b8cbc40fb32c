"""Best plans at many prices, against the exact value of the best there is."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.learn.optimal import Script, best_scripts
from governor.plan.exact import Policy, optimum, value_of
from governor.plan.odds import Odds

PRICES = np.array([0.0, 0.03, 0.2, 0.6, 2.0])


def random_odds(rng: np.random.Generator, arms: int, harm: float) -> tuple[Odds, Floats]:
    success = rng.random((arms, 9))
    cost = rng.random(arms)
    weights = rng.random(9)
    return Odds.of(success, cost / cost.max(), 0.9, 0.2, harm), weights / weights.sum()


def following(script: Script) -> Policy:
    """The script as a policy, which is asked about the arms that are left."""
    left = list(script.arms)
    there: list[int] | None = None

    def decide(odds: Odds, weights: Floats, held: Floats, attempts: int) -> int | None:
        nonlocal there
        del weights, held, attempts
        there = list(range(len(odds.cost))) if there is None else there
        if not left:
            return None
        at = there.index(left.pop(0))
        there.pop(at)
        return at

    return decide


@pytest.mark.parametrize("harm", [0.0, 0.5])
@pytest.mark.parametrize("arms", [1, 2, 4, 6])
def test_scripts_reach_the_optimum_at_every_price(arms: int, harm: float) -> None:
    rng = np.random.default_rng(arms)
    for _ in range(20):
        odds, weights = random_odds(rng, arms, harm)
        for price, script in zip(PRICES.tolist(), best_scripts(odds, weights, PRICES), strict=True):
            found = value_of(following(script), odds, weights, price).utility
            assert max(found, 0.0) == pytest.approx(optimum(odds, weights, price), abs=1e-9)


def test_an_infinite_price_buys_the_cheapest_answer_and_no_other() -> None:
    odds, weights = random_odds(np.random.default_rng(0), 4, 0.0)
    (script,) = best_scripts(odds, weights, np.array([np.inf]))
    assert script.arms == (int(odds.cost.argmin()),)


def test_hopes_are_what_is_believed_once_all_were_rejected() -> None:
    odds, weights = random_odds(np.random.default_rng(1), 3, 0.0)
    (script,) = best_scripts(odds, weights, np.array([0.0]))
    left = weights * np.prod(odds.reject[list(script.arms)], axis=0)
    for arm, hope in zip(script.arms, script.hopes, strict=True):
        assert hope == pytest.approx(float(left @ (odds.kept[arm] / odds.reject[arm])) / left.sum())


def test_without_a_verifier_one_call_is_all() -> None:
    success = np.array([[0.3], [0.8]])
    odds = Odds.of(success, np.array([0.1, 1.0]), 1.0, 1.0, 0.0)
    cheap, dear = best_scripts(odds, np.ones(1), np.array([1.0, 0.1]))
    assert (cheap.arms, dear.arms) == ((0,), (1,))
