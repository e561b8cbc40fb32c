from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.frontier import area, fixed
from governor.learn.harm import lead
from governor.learn.intervals import Resamples, Spread
from governor.learn.outcomes import Outcomes, Rows
from governor.learn.routing import DIALS, by_score, choose, dial_prices, mixing, one_shot, out_of_fold, splits
from tests.learn.two_rungs import outcomes_of, told_by_words


def gained(outcomes: Outcomes, spread: Spread) -> float:
    rungs = fixed(("weak", "strong"), outcomes.paid.T, outcomes.accuracy.T)
    return area(rungs, spread.cost.mean(axis=1), spread.accuracy.mean(axis=1))


def test_a_price_trades_accuracy_for_cost_question_by_question() -> None:
    p = np.array([[0.2, 0.9], [0.5, 0.6], [0.5, 0.5]])
    cost = np.array([[0.0, 1.0]] * 3)
    assert choose(p, cost, np.array([0.0, 0.2, 0.8])).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_ties_go_to_the_cheaper_and_a_rung_without_forecast_is_never_chosen() -> None:
    assert choose(np.array([[0.5, 0.5]]), np.array([[2.0, 1.0]]), np.array([0.0])).tolist() == [[1]]
    assert choose(np.array([[np.nan, 0.1]]), np.array([[0.0, 1.0]]), np.array([5.0])).tolist() == [[1]]


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_dials_run_from_the_most_accurate_to_the_cheapest_in_even_steps_of_cost(seed: int, rungs: int) -> None:
    rng = np.random.default_rng(seed)
    p, cost = rng.random((200, rungs)), np.sort(rng.random(rungs))[None, :].repeat(200, axis=0)
    prices = dial_prices(p, cost)
    spent = np.take_along_axis(cost, choose(p, cost, prices).T, axis=1).mean(axis=0)
    assert (np.diff(prices) >= 0.0).all()
    assert (choose(p, cost, prices[:1]) == p.argmax(axis=1)).all()
    assert (choose(p, cost, prices[-1:]) == 0).all()
    assert np.abs(spent - np.linspace(spent[0], spent[-1], 41)).max() < 0.1


def test_every_question_is_forecast_once_by_the_other_folds() -> None:
    fold: Rows = np.array([0, 1, 2, 0, 1, 2])
    seen: list[tuple[list[int], list[int]]] = []

    def forecaster(train: Rows, test: Rows) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        seen.append((train.tolist(), test.tolist()))
        return np.stack((test, test * 10.0), axis=1).astype(float)

    assert out_of_fold(fold, 2, forecaster)[:, 1].tolist() == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    assert seen == [(train.tolist(), test.tolist()) for train, test in splits(fold)]
    assert all(sorted(train + test) == list(range(6)) for train, test in seen)


def test_a_true_forecast_wins_and_a_blind_one_gains_nothing() -> None:
    outcomes, fold = told_by_words()
    told = one_shot(outcomes, fold, np.stack((outcomes.accuracy[:, 0], np.full(300, 0.9)), axis=1))
    blind = one_shot(outcomes, fold, np.broadcast_to(outcomes.accuracy.mean(axis=0), (300, 2)))
    assert gained(outcomes, told) > 8.0
    assert gained(outcomes, blind) == 0.0
    assert told.cost.shape == (len(DIALS), 300)


def test_a_score_draws_the_hulls_mixtures_in_its_own_order() -> None:
    outcomes, fold = told_by_words()
    hard = 1.0 - outcomes.accuracy[:, 0] + np.random.default_rng(1).random(300) * 0.5
    spread = by_score(outcomes, fold, hard)
    assert (spread.cost[0] == 10.0).all()
    assert (spread.cost[-1] == 1.0).all()
    assert np.abs(spread.cost.mean(axis=1) - np.linspace(10.0, 1.0, 41)).max() < 0.5
    assert gained(outcomes, spread) > 8.0
    assert gained(outcomes, by_score(outcomes, fold, -hard)) == 0.0


def test_dial_prices_read_no_label() -> None:
    outcomes, fold = told_by_words()
    p = np.random.default_rng(2).random((300, 2))
    shuffled = Outcomes(
        outcomes.texts, outcomes.correct[::-1], outcomes.cost, outcomes.known, outcomes.last, outcomes.look
    )
    assert (one_shot(outcomes, fold, p).cost == one_shot(shuffled, fold, p).cost).all()


def test_mixing_shares_every_question_between_the_corners_of_the_training_hull() -> None:
    # Costs 0, 1, 2, 4: the second lies under the hull, the last is no better than the third.
    accuracy = np.array([[0.0, 0.1, 1.0, 1.0]] * 4 + [[1.0, 0.0, 0.0, 0.0]] * 2)
    outcomes = outcomes_of(accuracy[:, :, None], np.tile([0.0, 1.0, 2.0, 4.0], (6, 1))[:, :, None])
    train, test = np.arange(4), np.array([4])
    found = mixing(outcomes, [(train, test)], np.array([0.0, 0.25, 1.0]))
    assert found.cost[:, 4].tolist() == [2.0, 1.5, 0.0]
    assert found.accuracy[:, 4].tolist() == [0.0, 0.25, 1.0]
    assert np.isnan(found.cost[:, [0, 1, 2, 3, 5]]).all()


def test_mixing_one_rung_is_that_rung() -> None:
    outcomes = outcomes_of(np.array([1.0, 0.0])[:, None, None], np.full((2, 1, 1), 3.0))
    found = mixing(outcomes, [(np.array([0]), np.array([1]))])
    assert (found.cost[:, 1] == 3.0).all()
    assert (found.accuracy[:, 1] == 0.0).all()


def drawn(seed: int, rungs: int) -> tuple[Outcomes, Spread, Resamples]:
    """60 questions whose rungs differ by chance and price alone, and the rungs themselves."""
    rng = np.random.default_rng(seed)
    right, prices = rng.random((60, rungs, 1)) < 0.7, np.tile(rng.random(rungs), (60, 1))
    outcomes = outcomes_of(right.astype(float), prices[:, :, None])
    return outcomes, Spread(outcomes.paid.T, outcomes.accuracy.T), Resamples(np.full((2, 60), 1.0 / 60.0))


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_mixing_by_a_hull_that_was_drawn_on_the_tested_questions_is_that_hull(seed: int, rungs: int) -> None:
    outcomes, fixed_rungs, everyone = drawn(seed, rungs)
    own = mixing(outcomes, [(np.arange(60), np.arange(60))])
    assert lead(own, fixed_rungs, everyone).points == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rungs", [2, 3, 5])
def test_mixing_by_a_hull_of_other_questions_falls_short_of_their_own(rungs: int) -> None:
    """On average: folds whose luck points elsewhere may pass a hull together that none of them passes."""
    leads = []
    for seed in range(100):
        outcomes, fixed_rungs, everyone = drawn(seed, rungs)
        folds = splits(np.random.default_rng(seed).permutation(60) % 5)
        leads.append(lead(mixing(outcomes, folds), fixed_rungs, everyone).points)
    assert np.mean(leads) < -3.0 * np.std(leads) / len(leads) ** 0.5
