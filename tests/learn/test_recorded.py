"""One recorded item through the governor's own loop: what it costs, what ships, and what a forecast may see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from governor.climb import Mind
from governor.drivers import drive
from governor.effects import CallModel
from governor.estimate import RuleEstimator
from governor.learn.ladder import Checking, Ladder, RungCost
from governor.learn.recorded import Recorded, Stage, Take, World, rungs_of, terms_of
from governor.learn.table import Table
from governor.learn.verdicts import rates
from governor.loop import govern
from governor.protocols import Belief, Situation, Terms
from governor.records import BacktrackMode, Plan, Price, Stop
from tests.learn.recorded_tables import HIGH, LOW, ladder_of, table_of

PERFECT = Checking(kind="perfect", sensitivity=1.0, false_accept=0.0)
nan = float("nan")


@dataclass(frozen=True)
class Scripted:
    """A planner that calls these rungs one after the other, whatever happens."""

    rungs: tuple[str, ...]
    modes: tuple[BacktrackMode, ...] = ()
    hopes: tuple[float, ...] = ()

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        done = len(situation.attempts)
        if done == len(self.rungs):
            return Stop(reason="the script ends")
        rung, hope = situation.terms.rung(self.rungs[done]), self.hopes[done] if self.hopes else 0.5
        (forecast,) = (one for one in belief.forecasts(situation) if one.rung == rung.id)
        mode = self.modes[done] if self.modes else "fresh" if done else "first"
        return Plan(rung=rung, mode=mode, forecasts=(replace(forecast, p_success=hope),))


def played(table: Table, ladder: Ladder, script: Scripted, question: int = 0, sample: int = 0) -> Take:
    world = World.of(table, ladder, table, 0)
    terms = terms_of(ladder, world.offered(question))
    stage = Stage(world, question)
    verifier = None if ladder.checking.kind == "none" else Recorded(stage)
    return stage.play(sample, world.step(question), terms, Mind(RuleEstimator(), script, verifier))


def test_rungs_are_ordered_by_their_mean_cost_on_training_questions() -> None:
    table = table_of([[1, 0], [1, 0]], cost=[[[5.0], [3.0]], [[1.0], [30.0]]])
    assert [rung.id for rung in rungs_of(ladder_of(), table)] == [LOW, HIGH]
    assert [rung.id for rung in rungs_of(ladder_of(), table.take([0]))] == [HIGH, LOW]


def test_money_per_token_becomes_the_rungs_price() -> None:
    costs = {LOW: RungCost(input_per_million=0.1, output_per_million=0.4), HIGH: RungCost(output_per_million=5.0)}
    rungs = rungs_of(ladder_of(unit="usd", costs=costs), table_of([[1, 1]]))
    assert [rung.price for rung in rungs] == [Price(0.1, 0.4), Price(0.0, 5.0)]
    assert len({rung.model for rung in rungs}) == 2


def test_without_a_verifier_the_first_answer_ships_at_its_recorded_cost() -> None:
    table = table_of([[0, 1]])
    assert played(table, ladder_of(), Scripted((HIGH, LOW))) == Take(10.0, 1.0, accepted=False, rungs=(1,))
    assert played(table, ladder_of(), Scripted((LOW, HIGH))) == Take(1.0, 0.0, accepted=False, rungs=(0,))


def test_a_verifier_is_paid_per_verdict_and_rejections_go_on() -> None:
    ladder = ladder_of(checking=replace(PERFECT, cost=0.25))
    assert played(table_of([[0, 1]]), ladder, Scripted((LOW, HIGH))) == Take(11.5, 1.0, accepted=True, rungs=(0, 1))
    assert played(table_of([[1, 1]]), ladder, Scripted((LOW, HIGH))) == Take(1.25, 1.0, accepted=True, rungs=(0,))


@pytest.mark.parametrize(("hopes", "shipped"), [((0.6, 0.3), 0), ((0.2, 0.3), 1)])
def test_where_all_are_rejected_the_most_hopeful_ships_and_is_not_accepted(
    hopes: tuple[float, float], shipped: int
) -> None:
    never = Checking(kind="simulated", sensitivity=0.0, false_accept=0.0)
    right = [1.0 if at == shipped else 0.0 for at in range(2)]
    take = played(table_of([right]), ladder_of(checking=never), Scripted((LOW, HIGH), hopes=hopes))
    assert take == Take(11.0, 1.0, accepted=False, rungs=(0, 1))


def thought(**more: Any) -> tuple[Table, Ladder]:
    """Budgets of one thought: 10, 20 and 40 tokens; right from 40 tokens on."""
    tokens = np.array([[[10.0], [20.0], [40.0]]])
    table = table_of([[0, 0, 1]], cost=tokens.ravel(), output_tokens=tokens, finished=tokens >= 40.0)
    ladder = ladder_of("r0", "r1", "r2", unit="tokens", costs={}, continues=True, checking=replace(PERFECT, cost=2.0))
    return replace(table, **more), ladder


def test_a_thought_costs_its_highest_budget_and_each_look_before() -> None:
    take = played(*thought(), Scripted(("r0", "r1", "r2"), ("first", "more", "more")))
    assert take == Take(40.0 + 2.0 + 3 * 2.0, 1.0, accepted=True, rungs=(0, 1, 2))
    assert played(*thought(), Scripted(("r2",))).cost == 42.0


def test_a_thought_that_ended_has_no_higher_budget() -> None:
    finished = np.array([[[False], [True], [True]]])
    take = played(*thought(finished=finished), Scripted(("r0", "r1", "r2"), ("first", "more", "more")))
    assert take == Take(20.0 + 1.0 + 2 * 2.0, 0.0, accepted=False, rungs=(0, 1))


def test_budgets_share_a_model_and_grow() -> None:
    table, ladder = thought()
    rungs = rungs_of(ladder, table)
    assert {rung.model for rung in rungs} == {"made"}
    assert [rung.max_tokens for rung in rungs] == [10, 20, 40]
    assert terms_of(ladder, rungs).one_thought


AGREEMENT = Checking(kind="agreement", cost=0.5)


def answered(correct: list[list[float]], answers: list[list[str | None]]) -> Table:
    """One question on two rungs with as many samples as answers."""
    found = np.array([answers], dtype=np.object_)
    return table_of(np.array([correct]), answers=found)


def test_agreement_pays_two_samples_and_accepts_equal_answers() -> None:
    table = answered([[1, 0, 1], [1, 1, 1]], [["a", "b", "a"], ["c", "c", "c"]])
    ladder = ladder_of(checking=AGREEMENT)
    script = Scripted((LOW, HIGH))
    assert played(table, ladder, script) == Take(2 * 1.0 + 2 * 10.0 + 1.0, 1.0, accepted=True, rungs=(0, 0, 1, 1))
    assert played(table, ladder, script, sample=2) == Take(2 * 1.0 + 0.5, 1.0, accepted=True, rungs=(0, 0))


def test_answers_that_are_not_recorded_agree_with_nothing() -> None:
    table = answered([[1, 1], [1, 1]], [[None, None], ["", ""]])
    take = played(table, ladder_of(checking=AGREEMENT), Scripted((LOW, HIGH)))
    assert (take.accepted, take.cost) == (False, 23.0)


def test_rates_of_agreement_are_counted_on_training_questions() -> None:
    table = answered([[1, 1, 0, 0], [nan] * 4], [["a", "a", "b", "b"], [None] * 4])
    # in a circle: a=a right, a=b right, b=b wrong, b=a wrong
    assert rates(AGREEMENT, table) == (0.5, 0.5)


def test_rates_of_a_score_are_taken_where_it_parts_best() -> None:
    scores = np.array([[[0.9], [0.2]], [[0.8], [0.7]], [[0.6], [0.1]]])
    table = table_of([[1, 0], [1, 0], [1, 0]], score=scores)
    assert rates(Checking(kind="score", field="p"), table) == pytest.approx((1.0, 1 / 3))
    assert rates(Checking(kind="score", field="p"), table_of([[1, 1]], score=scores[:1])) == (1.0, 1.0)


def test_a_score_decides_nothing_and_is_told_to_the_belief() -> None:
    scores = np.array([[[0.3], [0.9]]])
    ladder = ladder_of(checking=Checking(kind="score", field="p"))
    table = table_of([[0, 1]], score=scores)
    world = replace(World.of(table, ladder, table, 0), rates=(0.8, 0.3))
    stage, heard = Stage(world, 0), list[float | None]()

    @dataclass(frozen=True)
    class Listening(Scripted):
        def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
            heard.extend(one.verdict.score for one in situation.attempts[-1:] if one.verdict is not None)
            return super().choose(belief, situation)

    mind = Mind(RuleEstimator(), Listening((LOW, HIGH)), Recorded(stage))
    take = stage.play(0, world.step(0), terms_of(ladder, world.offered(0)), mind)
    assert heard == [0.3, 0.9]
    assert take == Take(11.0, 1.0, accepted=False, rungs=(0, 1))


def test_simulated_verdicts_depend_on_the_attempt_and_the_seed_alone() -> None:
    checking = Checking(kind="simulated", sensitivity=0.9, false_accept=0.2)
    rng = np.random.default_rng(0)
    table = table_of((rng.random((600, 2)) < 0.5).astype(float))
    ladder = ladder_of(checking=checking)
    accepts = World.of(table, ladder, table, 0).accepts
    assert accepts is not None
    right = table.correct > 0.5
    assert accepts[right].mean() == pytest.approx(0.9, abs=0.03)
    assert accepts[~right].mean() == pytest.approx(0.2, abs=0.05)
    part = table.take(np.arange(300, 600))
    again, other = (World.of(part, ladder, part, seed).accepts for seed in (0, 1))
    assert again is not None
    assert other is not None
    assert np.array_equal(accepts[300:], again)
    assert not np.array_equal(accepts[300:], other)


def test_each_item_gets_its_own_sample_and_a_second_call_the_next() -> None:
    table = table_of(np.array([[[0, 1, 0], [1, 1, 1]]], dtype=float))
    ladder = ladder_of(checking=PERFECT)
    again = Scripted((LOW, LOW), ("first", "again"))
    assert [played(table, ladder, again, sample=s).rungs for s in range(3)] == [(0, 0), (0,), (0, 0)]
    assert [played(table, ladder, again, sample=s).accepted for s in range(3)] == [True, True, False]


def test_a_rung_without_a_record_is_not_offered_and_one_with_one_sample_not_drawn_again() -> None:
    table = table_of(np.array([[[0.0, nan], [nan, nan]], [[0.0, 1.0], [1.0, nan]]]))
    world = World.of(table, ladder_of(checking=PERFECT), table, 0)
    assert [(rung.id, rung.temperature) for rung in world.offered(0)] == [(LOW, 0.0)]
    assert [(rung.id, rung.temperature) for rung in world.offered(1)] == [(LOW, None), (HIGH, 0.0)]
    assert world.offered(1) is world.offered(1)


def test_a_call_without_a_record_costs_nothing_and_closes_the_rung() -> None:
    table = table_of(np.array([[[0.0], [1.0]]]))
    world = World.of(table, ladder_of(checking=PERFECT), table, 0)
    stage = Stage(world, 0)
    ladder = tuple(replace(rung, temperature=None) for rung in world.rungs)
    script = Scripted((LOW, LOW, HIGH), ("first", "again", "fresh"))
    terms = terms_of(world.ladder, ladder)
    assert stage.play(0, world.step(0), terms, Mind(RuleEstimator(), script, Recorded(stage))) == Take(
        11.0, 1.0, accepted=True, rungs=(0, 1)
    )


def test_a_forecast_sees_the_question_and_its_node_and_nothing_else() -> None:
    table = table_of([[0, 1]], qids=("secret-qid",), nodes=("plan",), groups=("secret-group",))
    step = World.of(table, ladder_of(), table, 0).step(0)
    assert (step.prompt, step.node) == ("question number 0", "plan")
    assert "secret" not in repr(step)


def test_a_reply_tells_whether_the_thought_ended_but_never_the_label() -> None:
    table, ladder = thought()
    world = World.of(table, ladder, table, 0)
    stage = Stage(world, 0)
    terms, seen = terms_of(ladder, world.offered(0)), []

    def perform(effect: Any) -> Any:
        answer = stage.perform(effect)
        if isinstance(effect, CallModel):
            seen.append(answer)
        return answer

    script = Scripted(("r0", "r2"), ("first", "more"))
    drive(govern(world.step(0), terms, Mind(RuleEstimator(), script, Recorded(stage))), perform)
    assert [(one.finish_reason, one.usage.output_tokens) for one in seen] == [("budget", 10), ("stop", 40)]
    assert [one.text for one in seen] == ["not recorded (r0, 0)", "not recorded (r2, 0)"]


def test_a_policys_harm_and_backtracks_count_and_its_limits_do_not() -> None:
    rungs = rungs_of(ladder_of(), table_of([[1, 1]]))
    base = Terms(app="shop", ladder=(), dial=0.7, harm=0.9, modes=("fresh", "verify"), max_attempts=2, deadline=1.0)
    granted = terms_of(ladder_of(), rungs, base)
    assert (granted.dial, granted.harm, granted.modes, granted.max_attempts) == (0.7, 0.9, ("fresh",), 2)
    assert (granted.deadline, granted.ladder) == (None, rungs)
