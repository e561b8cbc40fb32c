"""Comparing answers that nobody judges: the best of all plans, and what the planner makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate.agreement import Pairs
from governor.estimate.curves import Floats
from governor.plan.comparing import NONE, Course, Prospects
from governor.plan.index import IndexPlanner
from governor.protocols import Situation, Terms
from governor.records import Attempt, BacktrackMode, Forecast, Plan, Price, Reply, Rung, Step, Stop, Verdict

RUNGS = 3


def made(seed: int, rungs: int = RUNGS) -> tuple[Pairs, Floats]:
    """Forecasts that agree with each other: P(right) is the mean over what a comparison may show."""
    rng = np.random.default_rng(seed)
    equal = rng.uniform(0.1, 0.9, (rungs, rungs))
    equal = (equal + equal.T) / 2
    after = rng.uniform(0.0, 1.0, (2, rungs, rungs, rungs))
    return Pairs(rng.uniform(0.0, 1.0, rungs), equal, after), np.sort(rng.uniform(0.01, 1.0, rungs))


def worth(course: Course, pairs: Pairs, costs: Floats, price: float) -> float:
    """What a plan comes to, summed over what may be seen; written down anew."""
    i, j = course.first, course.second
    if j == NONE:
        return float(pairs.p[i] - price * costs[i])
    total = -price * (costs[i] + costs[j])
    for equal, third in enumerate(course.thirds):
        chance = pairs.equal[i, j] if equal else 1.0 - pairs.equal[i, j]
        seen = pairs.after[equal, i, j]
        total += chance * (max(seen[i], seen[j]) if third == NONE else seen[third] - price * costs[third])
    return float(total)


def every_course(rungs: int) -> list[Course]:
    found = [Course(first) for first in range(rungs)]
    for i, j in product(range(rungs), repeat=2):
        others = [NONE, *(k for k in range(rungs) if k not in (i, j))]
        found += [Course(i, j, thirds) for thirds in product(others, others)]
    return found


@given(seed=st.integers(0, 10_000), price=st.floats(0.0, 3.0), rungs=st.integers(2, 4))
@settings(max_examples=150, deadline=None)
def test_no_plan_is_better_than_the_course(seed: int, price: float, rungs: int) -> None:
    pairs, costs = made(seed, rungs)
    every = np.ones((rungs, rungs), dtype=np.bool_)
    prospects = Prospects.of(pairs, costs, np.array([0.1, price]), 0.0, every, every[0], 3)
    best = max(worth(course, pairs, costs, price) for course in every_course(rungs))
    assert worth(prospects.course(1), pairs, costs, price) == pytest.approx(best, abs=1e-6)


@given(seed=st.integers(0, 10_000), price=st.floats(0.0, 3.0))
@settings(max_examples=100, deadline=None)
def test_what_may_not_be_asked_is_not(seed: int, price: float) -> None:
    pairs, costs = made(seed)
    others = ~np.eye(RUNGS, dtype=np.bool_)
    others[:, 2] = False  # the dearest may begin, but not follow
    thirds = np.array([True, True, False])
    course = Prospects.of(pairs, costs, np.array([price]), 0.0, others, thirds, 3).course()
    assert course.second not in (2, course.first)
    assert 2 not in course.thirds
    alone = Prospects.of(pairs, costs, np.array([price]), 0.0, others, thirds, 1).course()
    assert alone.second == NONE
    two = Prospects.of(pairs, costs, np.array([price]), 0.0, others, thirds, 2).course()
    assert two.thirds == (NONE, NONE)


def test_what_is_unknown_is_not_compared_and_harm_makes_doubt_dear() -> None:
    pairs, costs = made(1)
    unknown = replace(pairs, equal=np.full((RUNGS, RUNGS), np.nan))
    every = np.ones((RUNGS, RUNGS), dtype=np.bool_)
    course = Prospects.of(unknown, costs, np.array([0.2]), 0.0, every, every[0], 3).course()
    assert course == Course(int((pairs.p - 0.2 * costs).argmax()))
    likely = Pairs(np.array([0.5, 0.6]), np.full((2, 2), np.nan), np.zeros((2, 2, 2, 2)))
    two, price = np.ones((2, 2), dtype=np.bool_), np.array([0.2])
    cheap = Prospects.of(likely, np.array([0.1, 1.0]), price, 0.0, two, two[0], 3)
    harmful = Prospects.of(likely, np.array([0.1, 1.0]), price, 2.0, two, two[0], 3)
    assert (cheap.course().first, harmful.course().first) == (0, 1)


# The planner

LADDER = tuple(
    Rung(id=name, model=name, answer_tokens=100, price=Price(0.0, 10.0**at)) for at, name in enumerate("abc")
)
STEP = Step(id="s", messages=({"role": "user", "content": "hm"},))
AGREE = Pairs(  # a is often wrong, b as often; where both say the same they are right
    p=np.array([0.5, 0.5, 0.95]),
    equal=np.array([[np.nan, 0.45, 0.5], [0.45, np.nan, 0.5], [0.5, 0.5, np.nan]]),
    after=np.stack([np.full((3, 3, 3), [0.1, 0.1, 0.92]), np.full((3, 3, 3), [0.98, 0.98, 0.99])]),
)


@dataclass(frozen=True)
class Known:
    """A belief that knows what comparisons tell."""

    known: Pairs
    difficulty: float = 0.5
    reasons: tuple[str, ...] = ()

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        return tuple(
            Forecast(rung=rung.id, p_success=p, p_accept=p, output_tokens=100, micros=100 * 10.0**at, seconds=1)
            for at, (rung, p) in enumerate(zip(situation.terms.ladder, self.known.p.tolist(), strict=True))
        )

    def pairs(self, situation: Situation) -> Pairs:
        return self.known

    def after(self, rung: Rung, decision: str, situation: Situation) -> Known:
        return self


def attempted(number: int, rung: Rung, mode: BacktrackMode, score: float | None = None) -> Attempt:
    verdict = Verdict(decision="unsure", verifier="none" if score is None else "agreement", score=score)
    return Attempt(number=number, rung=rung, mode=mode, reply=Reply(text="42"), verdict=verdict)


def chosen(*attempts: Attempt, dial: float = 0.3, **terms: object) -> Plan | Stop:
    granted = replace(Terms(app="t", ladder=LADDER, dial=dial), **terms)  # type: ignore[arg-type]  # a test's own
    return IndexPlanner().choose(Known(AGREE), Situation(step=STEP, terms=granted, attempts=attempts))


A, B, C = LADDER
FIRST = attempted(1, A, "first")


def test_two_cheap_answers_are_compared_and_a_third_is_asked_where_they_differ() -> None:
    begun = chosen()
    assert isinstance(begun, Plan)
    assert begun.rung in (A, B)
    second = chosen(FIRST)
    assert isinstance(second, Plan)
    assert (second.rung, second.mode) == (B, "compare")
    agreed = chosen(FIRST, attempted(2, B, "compare", 1.0))
    assert isinstance(agreed, Stop)
    differing = chosen(FIRST, attempted(2, B, "compare", 0.0))
    assert isinstance(differing, Plan)
    assert (differing.rung, differing.mode) == (C, "compare")
    done = chosen(FIRST, attempted(2, B, "compare", 0.0), attempted(3, C, "compare", 0.0))
    assert isinstance(done, Stop)


@pytest.mark.parametrize(
    "terms",
    [
        {"modes": ("fresh", "more")},
        {"streamed": True},
        {"max_attempts": 1},
        {"dial": 1.0},
    ],
    ids=lambda terms: next(iter(terms)),
)
def test_without_leave_or_money_the_first_answer_ships(terms: dict[str, object]) -> None:
    assert isinstance(chosen(FIRST, **terms), Stop)  # type: ignore[arg-type]  # a test's own


def test_an_answer_that_can_not_be_compared_leads_to_no_third() -> None:
    unknown = attempted(2, B, "compare")
    after = chosen(FIRST, unknown)
    assert isinstance(after, Plan)
    assert (after.rung, after.mode) == (C, "compare")  # it may still be compared with another one


def test_what_is_judged_is_not_compared() -> None:
    situation = Situation(step=STEP, terms=Terms(app="t", ladder=LADDER, dial=0.1), sensitivity=0.9, false_accept=0.1)
    plan = IndexPlanner().choose(Known(AGREE), situation)
    assert isinstance(plan, Plan)
    assert "worth most" not in plan.reason


def test_courses_are_what_is_done_at_each_price() -> None:
    terms = Terms(app="t", ladder=LADDER)
    found = IndexPlanner().courses(Known(AGREE), Situation(step=STEP, terms=terms), np.array([0.0, 0.2, 1e9]))
    assert found is not None
    assert found[0].first == 2 or found[0].second != NONE
    assert found[1] == Course(0, 1, (2, NONE))
    assert found[2] == Course(0)
