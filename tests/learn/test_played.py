"""Questions played at every dial: shared decisions, exact plans beside, and policies that have a say."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from governor.learn import played
from governor.learn.ladder import Checking, Ladder
from governor.learn.played import Cast, Played, Setting, foreseen, play
from governor.learn.recorded import Stage, World
from governor.learn.table import Table
from governor.protocols import Terms
from governor.records import Step
from tests.learn.recorded_tables import Words, ladder_of, table_of, told_by_words

DIALS = [Setting(dial=dial) for dial in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
PERFECT = Checking(kind="perfect", sensitivity=1.0, false_accept=0.0)
nan = float("nan")


def show(table: Table, ladder: Ladder, **cast: Any) -> played.Show:
    parts = Words().fit(table, ladder, seed=0)
    told: dict[str, Any] = {"parts": parts} | cast
    return play(World.of(table, ladder, table, 0), Cast(**told), range(len(table.qids)), DIALS)


def same(one: Played, other: Played) -> bool:
    pairs = ((getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("looks", [False, True])
def test_a_decision_shared_by_samples_is_the_one_that_each_would_get(
    monkeypatch: pytest.MonkeyPatch, *, holes: bool, looks: bool
) -> None:
    rng = np.random.default_rng(3)
    correct = (rng.random((12, 2, 4)) < 0.5).astype(float)
    if holes:
        correct[rng.random(correct.shape) < 0.3] = nan
        correct[:, :, 0] = 1.0
    texts = tuple(f"{'prove' if at % 2 else 'copy'} {at}" for at in range(12))
    cost = rng.random(correct.shape) * np.array([1.0, 30.0])[:, None]
    table, ladder = table_of(correct, cost=cost, questions=texts), ladder_of(harm=1.0 if looks else 0.0)
    if looks:  # answers that may be compared with a second sample's, where a wrong one does harm
        table = replace(table, answers=np.where(correct > 0.5, "right", rng.choice(["a", "b"], correct.shape)))
    shared = show(table, ladder)
    runs: list[Any] = []
    monkeypatch.setattr(Stage, "play", _counted(Stage.play, runs))
    monkeypatch.setattr(played, "_decides_once", lambda *_: False)  # no bisection of prices either
    monkeypatch.setattr(played._Scene, "_alike", lambda *_: False)
    each = show(table, ladder)
    assert len(runs) == np.isfinite(each.governor.cost).sum() > 12 * len(DIALS)
    assert same(shared.governor, each.governor)
    assert (np.nanmax(each.governor.calls) > 1) == looks


@pytest.mark.parametrize("kind", ["simulated", "agreement"])
def test_what_a_belief_remembers_is_what_it_would_tell_anew(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = told_by_words(questions=12, samples=3)
    answers = np.where(table.correct > 0.5, "right", np.random.default_rng(0).choice(["a", "b"], table.correct.shape))
    ladder = ladder_of(checking=Checking(kind=kind, sensitivity=0.8, false_accept=0.3))
    remembered = show(replace(table, answers=answers), ladder, exactly=True)
    monkeypatch.setattr(played._Believed, "_remembered", lambda _, what, situation, tell: tell(situation))
    anew = show(replace(table, answers=answers), ladder, exactly=True)
    assert np.nanmax(anew.governor.calls) > 2
    assert same(remembered.governor, anew.governor)
    assert remembered.exact is not None
    assert anew.exact is not None
    assert same(remembered.exact, anew.exact)


def _counted(method: Any, calls: list[Any]) -> Any:
    def counting(*given: Any) -> Any:
        calls.append(given)
        return method(*given)

    return counting


def test_the_dial_buys_accuracy_by_what_the_words_say() -> None:
    table = told_by_words()
    spread = show(table, ladder_of()).governor.spread
    cost, accuracy = spread.cost.mean(axis=1), spread.accuracy.mean(axis=1)
    assert np.all(np.diff(cost) <= 0.0)
    assert cost[-1] == 1.0
    hard = np.array([text.startswith("prove") for text in table.questions])
    assert any(np.array_equal(row, np.where(hard, 10.0, 1.0)) for row in spread.cost)
    assert accuracy.max() > accuracy[-1] + 0.3


def test_with_a_verifier_rejected_items_climb_and_others_do_not() -> None:
    table = told_by_words(samples=2)
    found = show(table, ladder_of(checking=PERFECT)).governor
    accepted = found.accepted == 1.0
    assert np.all(found.correct[accepted] == 1.0)
    assert np.all(found.correct[found.accepted == 0.0] == 0.0)
    assert np.nanmax(found.calls) > 1.0


def test_exact_plans_earn_no_less_on_what_is_believed_and_often_agree() -> None:
    ladder = ladder_of(checking=Checking(kind="simulated", sensitivity=0.95, false_accept=0.1))
    found = show(told_by_words(), ladder, exactly=True)
    assert found.exact is not None
    same_cost = (found.exact.cost == found.governor.cost).mean(axis=(1, 2))
    assert same_cost.min() > 0.8


def test_without_a_verifier_exact_plans_are_the_one_shot_choice() -> None:
    found = show(told_by_words(samples=2), ladder_of(), exactly=True)
    assert found.exact is not None
    assert same(found.exact, found.governor)


@pytest.mark.parametrize("checking", [Checking(kind="score", field="p"), None])
def test_no_exact_plans_by_scores_or_above_six_rungs(checking: Checking | None) -> None:
    table = table_of(np.ones((3, 2 if checking else 7)), score=np.full((3, 2 if checking else 7, 1), 0.5))
    ladder = ladder_of(*table.rungs, checking=checking)
    assert show(table, ladder, exactly=True).exact is None


def test_first_forecasts_stand_in_the_tables_order() -> None:
    table = told_by_words(questions=6)
    reversed_costs = table_of(table.correct, cost=[10.0, 1.0], questions=table.questions)
    world = World.of(reversed_costs, ladder_of(), reversed_costs, 0)
    parts = Words().fit(reversed_costs, ladder_of(), seed=0)
    first = foreseen(world, Cast(parts=parts), range(6))
    assert np.all(first[:, 0] > first[:, 1])  # the first column is the dearer rung now
    assert np.array_equal(first, show(reversed_costs, ladder_of()).first)


def test_a_policy_has_its_say() -> None:
    def one_attempt(step: Step) -> Terms:
        return Terms(app="shop", ladder=(), max_attempts=1, dial=0.9 if step.node == "default" else 0.1)

    ladder = ladder_of(checking=PERFECT)
    calls = show(told_by_words(), ladder, base=one_attempt).governor.calls
    assert np.nanmax(calls) == 1.0


def test_keep_is_a_setting_too() -> None:
    table = told_by_words(questions=20)
    parts = replace(Words().fit(table, ladder_of(), seed=0))
    world = World.of(table, ladder_of(), table, 0)
    found = play(world, Cast(parts=parts, exactly=True), range(20), [Setting(keep=1.0), Setting(dial=1.0)])
    assert found.governor.spread.cost[0].mean() > found.governor.spread.cost[1].mean()
    assert found.exact is not None
    assert np.isnan(found.exact.cost[0]).all()
