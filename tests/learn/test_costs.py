"""What rungs are expected to cost, and beliefs that say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from governor.estimate import RuleEstimator
from governor.learn.costs import MICROS, Costs, Priced, mean_costs
from governor.learn.ladder import Checking, RungCost
from governor.learn.recorded import World, terms_of
from governor.plan.prices import Unit
from governor.protocols import Situation
from governor.records import Attempt, Reply, Verdict
from tests.learn.recorded_tables import HIGH, LOW, ladder_of, table_of

nan = float("nan")


def test_means_over_questions_that_weigh_one_each() -> None:
    table = table_of(np.ones((2, 2, 2)), cost=[[[1.0, 3.0], [10.0, 10.0]], [[6.0, 6.0], [30.0, 10.0]]])
    assert Costs.of(table, ladder_of()).expected("any text").tolist() == [4.0, 15.0]


def test_a_rung_without_any_known_cost_counts_as_the_dearest() -> None:
    assert mean_costs(table_of([[1, nan], [1, nan]])).tolist() == [1.0, 1.0]


def test_a_text_gives_away_what_its_input_costs() -> None:
    costs = {LOW: RungCost(input_per_million=4.0), HIGH: RungCost(input_per_million=40.0, output_per_million=1.0)}
    ladder = ladder_of(unit="usd", costs=costs)
    known = len("question number 0") / 4 * np.array([4e-6, 40e-6])
    table = table_of([[1, 1]], cost=(known + np.array([0.0, 2.0])).tolist())
    found = Costs.of(table, ladder)
    assert found.expected("question number 0") == pytest.approx(known + np.array([0.0, 2.0]))
    assert found.expected("x" * 4) == pytest.approx([4e-6, 2.0 + 40e-6])


def test_agreement_pays_twice_and_every_verdict_its_price() -> None:
    found = Costs.of(table_of([[1, 1]]), ladder_of(checking=Checking(kind="agreement", cost=0.5)))
    assert found.expected("").tolist() == [2.5, 20.5]


def test_a_belief_forecasts_what_was_paid_in_millionths_of_the_unit() -> None:
    table = table_of([[1, 1]])
    world = World.of(table, ladder_of(), table, 0)
    terms, step = terms_of(world.ladder, world.offered(0)), world.step(0)
    belief = Priced(RuleEstimator(), table.rungs, Costs.of(table, world.ladder)).estimate(step, terms)
    plain = RuleEstimator().estimate(step, terms)
    situation = Situation(step=step, terms=terms)
    assert [one.micros for one in belief.forecasts(situation)] == [MICROS, 10 * MICROS]
    assert [one.p_success for one in belief.forecasts(situation)] == [
        one.p_success for one in plain.forecasts(situation)
    ]
    assert (belief.difficulty, belief.reasons) == (plain.difficulty, plain.reasons)
    assert np.array_equal(belief.grid(situation).success, plain.grid(situation).success)


def test_going_on_with_a_thought_costs_what_it_adds_and_the_unit_stays() -> None:
    tokens = np.array([[[10.0], [20.0], [40.0]], [[10.0], [16.0], [16.0]]])
    finished = np.array([[[False], [False], [True]], [[False], [True], [True]]])
    table = table_of([[0, 0, 1]] * 2, cost=tokens, finished=finished)
    ladder = ladder_of("r0", "r1", "r2", unit="tokens", costs={}, continues=True)
    world = World.of(table, ladder, table, 0)
    terms, step = terms_of(ladder, world.offered(0)), world.step(0)
    belief = Priced(RuleEstimator(), table.rungs, Costs.of(table, ladder)).estimate(step, terms)
    before = Situation(step=step, terms=terms)
    assert [one.micros / MICROS for one in belief.forecasts(before)] == [10.0, 18.0, 28.0]
    look = Attempt(
        number=1,
        rung=terms.ladder[1],
        mode="first",
        reply=Reply(text="a"),
        verdict=Verdict(decision="unsure", verifier="recorded"),
    )
    after = replace(before, attempts=(look,))
    # only the first thought went on beyond r1: 20 more tokens, and the look at r1
    assert [one.micros / MICROS for one in belief.forecasts(after)] == [1.0, 28.0, 21.0]
    assert Unit.of(belief.forecasts(after)) == Unit.of(belief.forecasts(before))
