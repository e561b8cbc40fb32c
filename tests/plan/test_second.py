from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.answers import Known, agreed, told
from governor.estimate.latent import Grid, LatentBelief
from governor.plan.index import IndexPlanner
from governor.protocols import Situation, Terms
from governor.records import Attempt, BacktrackMode, Plan, Price, Reply, Rung, Step, Stop, Usage, Verdict

SMALL = Rung(id="small", model="s", price=Price(0.1, 0.4))
TOP = Rung(id="top", model="x", price=Price(2, 10))
LADDER = (SMALL, TOP)
STEP = Step(id="s", messages=({"role": "user", "content": "?"},))


class Sure:
    """A belief whose grid is given: what the planner makes of any learned one."""

    reasons = ()
    difficulty = 0.5

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def grid(self, situation: Situation) -> Grid:
        return self._grid

    def forecasts(self, situation: Situation) -> Any:
        return LatentBelief.normal(0.0, 1.0, situation.terms).forecasts(situation)

    def after(self, rung: Rung, decision: str, situation: Situation) -> Sure:
        return self


def grid(small: list[float], top: list[float], repeat: float = 0.5, collision: float = 0.3) -> Grid:
    weights = np.full(len(small), 1 / len(small))
    rows = np.array([small, top])
    return Grid(weights, weights, rows, rows, np.array([repeat, repeat]), collision)


def attempt(decision: Any, mode: BacktrackMode = "first", number: int = 1, **verdict: Any) -> Attempt:
    judged = Verdict(decision=decision, verifier=verdict.pop("verifier", "v"), **verdict)
    return Attempt(number=number, rung=SMALL, mode=mode, reply=Reply(text="5"), verdict=judged)


def decided(held: Grid, *attempts: Attempt, dial: float = 0.2, **changes: Any) -> Plan | Stop:
    terms = Terms(app="t", ladder=LADDER, dial=dial, **changes.pop("terms", {}))
    made: dict[str, Any] = {"sensitivity": 0.9, "false_accept": 0.2, **changes}
    return IndexPlanner().choose(Sure(held), Situation(step=STEP, terms=terms, attempts=attempts, **made))


def mode(plan: Plan | Stop) -> str:
    return plan.mode if isinstance(plan, Plan) else "stop"


FREE: dict[str, Any] = {"sensitivity": 1.0, "false_accept": 1.0}


def test_a_comparison_is_bought_only_where_its_outcome_can_change_the_decision() -> None:
    unsure = attempt("unsure", verifier="none")
    straddling = grid([0.95, 0.05], [0.9, 0.9], repeat=0.1)
    assert mode(decided(straddling, unsure, **FREE)) == "agree"
    assert mode(decided(grid([0.97, 0.97], [0.98, 0.98], repeat=0.1), unsure, **FREE)) == "stop"
    assert mode(decided(straddling, unsure, dial=0.99, **FREE)) == "stop"
    assert mode(decided(replace(straddling, collision=1.0, repeat=np.ones(2)), unsure, **FREE)) == "stop"
    assert mode(decided(straddling, unsure, terms={"modes": ("fresh",)}, **FREE)) == "stop"


def test_another_answer_opens_the_way_up_and_an_equal_one_does_not() -> None:
    held, first = grid([0.9, 0.1], [0.95, 0.95], repeat=0.1), attempt("unsure", verifier="none")
    other = attempt("unsure", "agree", 2, verifier="agreement", score=0.0)
    plan = decided(held, first, other, **FREE)
    assert isinstance(plan, Plan)
    assert (plan.rung, plan.mode) == (TOP, "fresh")
    equal = attempt("unsure", "agree", 2, verifier="agreement", score=1.0)
    assert mode(decided(held, first, equal, **FREE)) == "stop"


def test_a_second_sample_is_bought_with_variance_and_not_without() -> None:
    once: dict[str, Any] = {"terms": {"modes": ("again",)}}
    wrong = attempt("reject")
    assert mode(decided(grid([0.6, 0.6], [0.6, 0.6], repeat=0.0), wrong, **once)) == "again"
    assert mode(decided(grid([0.6, 0.6], [0.6, 0.6], repeat=0.99), wrong, **once)) == "stop"


def test_a_second_verdict_is_bought_where_the_first_leaves_doubt() -> None:
    once: dict[str, Any] = {"terms": {"modes": ("verify",)}, "redraws": True}
    spent: dict[str, Any] = {"micros": 5, "usage": Usage(20, 5)}
    assert mode(decided(grid([0.8, 0.8], [0.8, 0.8]), attempt("reject", **spent), **once)) == "verify"
    assert mode(decided(grid([0.05, 0.05], [0.05, 0.05]), attempt("reject", **spent), **once)) == "stop"
    dear = attempt("reject", micros=10**7)
    assert mode(decided(grid([0.8, 0.8], [0.8, 0.8]), dear, **once)) == "stop"
    assert mode(decided(grid([0.8, 0.8], [0.8, 0.8]), attempt("reject"), **{**once, "redraws": False})) == "stop"


shares = st.floats(0.0, 1.0)


@given(shares, shares, shares, shares, shares)
def test_what_is_seen_averages_to_what_was_believed(
    single: float, repeat: float, collision: float, seen: float, passed: float
) -> None:
    known = Known({"small": np.array([single])}, {"small": repeat}, seen, passed, collision)
    first = attempt("unsure", verifier="none")
    chance = correct = 0.0
    for score in (0.0, 1.0):
        seen_so = told((first, attempt("unsure", "agree", 2, score=score)), known)
        chance += float(seen_so.likelihood[0])
        correct += float(seen_so.likelihood[0] * seen_so.held[0].correct[0])
    assert chance == pytest.approx(1.0)
    assert correct == pytest.approx(single, abs=1e-9)


@given(shares, shares, shares)
def test_two_samples_of_one_rung_are_alike(single: float, repeat: float, collision: float) -> None:
    known = Known({"small": np.array([single])}, {"small": repeat}, 0.9, 0.1, collision)
    differing = told((attempt("unsure"), attempt("unsure", "agree", 2, score=0.0)), known)
    if differing.likelihood[0] > 1e-9:
        one, other = (held.correct[0] for held in differing.held)
        assert one == pytest.approx(other)
    right, wrong = agreed(np.array([single]), np.array([single]), repeat, collision)
    assert right[0] <= single + 1e-12
    assert wrong[0] <= 1 - single + 1e-12


def test_a_second_verdict_or_sample_moves_the_belief_less_than_a_first_one() -> None:
    terms = Terms(app="t", ladder=LADDER)
    prior = LatentBelief.normal(0.0, 1.0, terms)
    where = Situation(step=STEP, terms=terms, sensitivity=0.9, false_accept=0.2, attempts=(attempt("reject"),))
    once = prior.after(SMALL, "reject", where)
    independent = once.after(SMALL, "reject", where)
    for way in ("again", "verify"):
        seen = replace(where, attempts=(*where.attempts, attempt("reject", way, 2)))
        twice = once.after(SMALL, "reject", seen)
        assert once.difficulty < twice.difficulty < independent.difficulty


def test_agreement_makes_a_step_look_easier_and_disagreement_harder() -> None:
    terms = Terms(app="t", ladder=LADDER)
    prior, first = LatentBelief.normal(0.0, 1.0, terms), attempt("unsure", verifier="none")
    found = []
    for word, score in (("agree", 1.0), ("disagree", 0.0)):
        seen = (first, attempt("unsure", "agree", 2, score=score))
        found.append(prior.after(SMALL, word, Situation(step=STEP, terms=terms, attempts=seen)).difficulty)
    assert found[0] < prior.difficulty < found[1]


@given(
    small=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    repeat=st.floats(0, 1),
    collision=st.floats(0, 1),
    dial=st.floats(0, 1),
    harm=st.floats(0, 3),
    cold=st.booleans(),
)
def test_an_answer_that_nobody_judges_is_left_exactly_where_weighing_everything_leaves_it(
    small: list[float], repeat: float, collision: float, dial: float, harm: float, cold: bool
) -> None:
    class Slow(IndexPlanner):
        def _sure(self, belief: Any, situation: Any, forecasts: Any) -> None:
            return None

    rung = replace(SMALL, temperature=0.0) if cold else SMALL
    terms = Terms(app="t", ladder=(rung, TOP), dial=dial, harm=harm)
    first = replace(attempt("unsure", verifier="none"), rung=rung)
    where = Situation(step=STEP, terms=terms, attempts=(first,), **FREE)
    belief = Sure(grid(small, [0.9, 0.9, 0.9], repeat, collision))
    quick, slow = IndexPlanner().choose(belief, where), Slow().choose(belief, where)
    assert (mode(quick), quick.reason) == (mode(slow), slow.reason)
