from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate import RuleEstimator
from governor.plan.index import IndexPlanner
from governor.protocols import Belief, Situation, Terms
from governor.records import (
    STOCHASTIC_FAILURES,
    Amount,
    Attempt,
    Forecast,
    Limit,
    Plan,
    Price,
    Reply,
    Rung,
    Step,
    Stop,
    Verdict,
)

SMALL = Rung(id="small", model="s", answer_tokens=400, price=Price(input=0.1, output=0.4))
SMALL_MORE = Rung(
    id="small-more", model="s", answer_tokens=400, thinking_tokens=1000, price=Price(input=0.1, output=0.4)
)
LARGE = Rung(id="large", model="l", price=Price(input=2, output=10))
TOP = Rung(id="top", model="x", price=Price(input=10, output=50))
LADDER = (SMALL, SMALL_MORE, LARGE, TOP)
QUESTION = "A shop sells pens at 3 for 2 euros. How many pens can Ana buy with the 14 euros that she has left?"


def terms(**changes: Any) -> Terms:
    made: dict[str, Any] = {"app": "test", "ladder": LADDER, **changes}
    return Terms(**made)


def situation(of: Terms | None = None, text: str = QUESTION, **changes: Any) -> Situation:
    step = Step(id="step", messages=({"role": "user", "content": text},))
    made: dict[str, Any] = {"sensitivity": 0.97, "false_accept": 0.05, **changes}
    return Situation(step=step, terms=of or terms(), **made)


def attempt(rung: Rung, failure: str = "wrong", **changes: Any) -> Attempt:
    finish = "length" if failure == "truncated" else "stop"
    decision = "unsure" if failure == "unsure" else "accept" if failure == "accept" else "reject"
    named = "" if failure in {"unsure", "accept"} else failure
    made: dict[str, Any] = {
        "number": 1,
        "rung": rung,
        "mode": "first",
        "reply": None if failure == "fault" else Reply(text="an answer", finish_reason=finish),
        "verdict": None if failure == "fault" else Verdict(decision=decision, verifier="v", failure=named),  # type: ignore[arg-type]
        "error": "BackendUnavailableError: gone" if failure == "fault" else "",
    }
    return Attempt(**{**made, **changes})


def decide(where: Situation, belief: Belief | None = None) -> Plan | Stop:
    believed: Belief = belief or RuleEstimator().estimate(where.step, where.terms)
    if belief is None:
        for at, done in enumerate(where.attempts):
            seen = replace(where, attempts=where.attempts[: at + 1])
            believed = believed.after(done.rung, done.verdict.decision if done.verdict else "unsure", seen)
    return IndexPlanner().choose(believed, where)


def plan(where: Situation) -> Plan:
    decided = decide(where)
    assert isinstance(decided, Plan), decided
    return decided


def stop(where: Situation) -> Stop:
    decided = decide(where)
    assert isinstance(decided, Stop), decided
    return decided


def climb(where: Situation) -> list[str]:
    """Every answer is rejected as wrong: the rungs asked, in order."""
    asked: list[str] = []
    while isinstance(decided := decide(where), Plan):
        asked.append(decided.rung.id)
        done = attempt(decided.rung, mode=decided.mode)
        where = replace(where, attempts=(*where.attempts, done))
    return asked


def test_dial_zero_looks_at_value_only_and_dial_one_at_cost_only() -> None:
    free: dict[str, Any] = {"sensitivity": 1.0, "false_accept": 1.0}
    assert plan(situation(terms(dial=0.0), **free)).rung is TOP
    assert plan(situation(terms(dial=1.0), **free)).rung is SMALL
    assert plan(situation(terms(dial=1.0))).rung is SMALL
    assert climb(situation(terms(dial=1.0))) == ["small"]


def test_a_higher_dial_never_chooses_a_dearer_first_rung() -> None:
    for text in ("What is 3 + 4?", QUESTION, "Prove that the sum of two odd integers is even, then derive a bound."):
        places = [
            LADDER.index(plan(situation(terms(dial=at / 10), text, sensitivity=1.0, false_accept=1.0)).rung)
            for at in range(11)
        ]
        assert places == sorted(places, reverse=True)


def test_hard_steps_start_higher_than_easy_ones() -> None:
    easy = plan(situation(text="What is 3 + 4?"))
    hard = plan(
        situation(text="Prove that there are infinitely many primes p such that p divides 2^n - 1. Derive a bound.")
    )
    assert LADDER.index(easy.rung) < LADDER.index(hard.rung)


def test_without_a_verifier_one_attempt_is_all() -> None:
    free: dict[str, Any] = {"sensitivity": 1.0, "false_accept": 1.0}
    once = terms(modes=("continue", "more", "feedback", "fresh"))
    assert "first answer stands" in stop(situation(once, attempts=(attempt(SMALL, "unsure"),), **free)).reason
    assert isinstance(decide(situation(attempts=(attempt(SMALL, "truncated"),), **free)), Plan)
    assert isinstance(decide(situation(attempts=(attempt(SMALL, "fault"),), **free)), Plan)


def test_an_accepted_answer_ends_the_step() -> None:
    assert "accepted" in stop(situation(attempts=(attempt(SMALL, "accept"),))).reason


def test_a_rejected_rung_is_asked_again_only_where_it_samples_and_only_once() -> None:
    asked = climb(situation(terms(dial=0.05)))
    assert max(asked.count(rung.id) for rung in LADDER) == 2
    cold = tuple(replace(rung, temperature=0.0) for rung in LADDER)
    for fixed in (terms(dial=0.05, ladder=cold), terms(dial=0.05, modes=("feedback", "more", "fresh"))):
        asked = climb(situation(fixed))
        assert len(asked) == len(set(asked)) > 1


def test_the_first_answer_is_always_bought_but_a_second_one_is_not() -> None:
    hopeless = terms(dial=0.95, difficulty=1.0)
    assert plan(situation(hopeless)).rung is SMALL
    assert "worth" in stop(situation(hopeless, attempts=(attempt(SMALL),))).reason
    # Nothing is held after a cut reply: the step is still unanswered, so one more is bought.
    assert isinstance(decide(situation(hopeless, attempts=(attempt(SMALL, "truncated"),))), Plan)


def test_a_doubtful_answer_is_kept_unless_another_adds_enough() -> None:
    easy = terms(dial=0.5, difficulty=0.05)
    assert isinstance(decide(situation(easy, attempts=(attempt(LARGE, "unsure"),))), Stop)
    hard = terms(dial=0.05, difficulty=0.7)
    assert plan(situation(hard, attempts=(attempt(SMALL, "unsure"),))).rung in {LARGE, TOP}


def test_stochastic_failures_may_repeat_a_rung_but_not_a_third_time() -> None:
    alone = terms(ladder=(SMALL,))
    once = situation(alone, attempts=(attempt(SMALL, "fault"),))
    assert plan(once).rung is SMALL
    twice = replace(once, attempts=once.attempts * 2)
    assert "tried twice" in stop(twice).reason
    cold = terms(ladder=(replace(SMALL, temperature=0.0),))
    assert "tried" in stop(situation(cold, attempts=(attempt(cold.ladder[0], "format"),))).reason


def test_a_refused_key_closes_every_rung_of_that_model() -> None:
    refused = attempt(SMALL, "fault", error="BackendAuthError: key refused")
    assert plan(situation(terms(dial=1.0), attempts=(refused,))).rung is LARGE
    only = terms(ladder=(SMALL, SMALL_MORE))
    assert "refused the request" in stop(situation(only, attempts=(refused,))).reason


def test_limits_remove_rungs_that_do_not_fit() -> None:
    tight = Limit(scope="call", micros=2000)
    assert plan(situation(terms(dial=0.0, call=tight))).rung.model == "s"
    left = Amount(100_000, 15_000, 10**9, 9, *[10**9] * 3)
    assert plan(situation(terms(dial=0.0), left=left)).rung.model != "x"
    none = stop(situation(left=Amount(tokens=10, micros=10**9, millis=10**9, calls=9)))
    assert "no rung is left" in none.reason
    assert "tokens" in none.reason
    assert none.forecasts


def test_time_removes_slow_rungs_but_leaves_the_quickest() -> None:
    assert plan(situation(terms(dial=0.0, ladder=(SMALL, SMALL_MORE)), seconds_left=4.0)).rung is SMALL
    assert plan(situation(seconds_left=0.1)).rung.thinking_tokens == 0
    assert "deadline" in stop(situation(seconds_left=0.0)).reason
    assert isinstance(decide(situation(terms(dial=0.0), seconds_left=0.1, attempts=(attempt(SMALL),))), Stop)


def test_max_attempts_end_the_step_and_the_last_one_is_spent_on_value() -> None:
    assert "2 attempts" in stop(situation(terms(max_attempts=2), attempts=(attempt(SMALL), attempt(LARGE)))).reason
    perfect: dict[str, Any] = {"sensitivity": 1.0, "false_accept": 0.0}
    hard: dict[str, Any] = {"dial": 0.05, "difficulty": 0.6}
    assert LADDER.index(plan(situation(terms(max_attempts=1, **hard), **perfect)).rung) > LADDER.index(
        plan(situation(terms(max_attempts=4, **hard), **perfect)).rung
    )


def test_an_empty_ladder_stops() -> None:
    empty = Terms(app="test", ladder=())
    assert "no rung" in stop(situation(empty)).reason


def test_forecasts_carry_the_index_and_the_reason_is_one_line() -> None:
    made = plan(situation())
    assert [f.rung for f in made.forecasts] == [r.id for r in LADDER]
    chosen = next(f for f in made.forecasts if f.rung == made.rung.id)
    assert f"index {chosen.index:.2f}" in made.reason
    assert f"P(correct) {chosen.p_success:.2f}" in made.reason
    assert "micro-USD" in made.reason
    assert "\n" not in made.reason
    stopped = stop(situation(terms(dial=0.95, difficulty=1.0), attempts=(attempt(SMALL),)))
    assert any(f.index for f in stopped.forecasts)


def test_free_ladders_are_priced_in_tokens() -> None:
    free = tuple(replace(rung, price=Price()) for rung in LADDER)
    made = plan(situation(terms(ladder=free, dial=1.0)))
    assert made.forecasts[LADDER.index(SMALL)].micros == 0
    assert "tokens" in made.reason


def test_ties_go_to_the_cheaper_rung() -> None:
    @dataclass(frozen=True)
    class Flat:
        difficulty: float = 0.5
        reasons: tuple[str, ...] = ()

        def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
            return tuple(
                Forecast(rung=r.id, p_success=0.6, p_accept=0.6, output_tokens=9, micros=100 - at, seconds=1)
                for at, r in enumerate(situation.terms.ladder)
            )

        def after(self, rung: Rung, decision: str, situation: Situation) -> Flat:
            del rung, decision, situation
            return self

    where = situation(terms(dial=0.0), sensitivity=1.0, false_accept=1.0)
    decided = decide(where, Flat())
    assert isinstance(decided, Plan)
    assert decided.rung is TOP  # the last of the ladder is the cheapest here
    kept = decide(situation(terms(dial=None, keep=0.9)), Flat())
    assert isinstance(kept, Plan)


def test_keep_all_of_the_quality_costs_more_than_keeping_half() -> None:
    free: dict[str, Any] = {
        "sensitivity": 1.0,
        "false_accept": 1.0,
        "text": "Explain how the cache works and evaluate its design.",
    }
    whole = plan(situation(terms(dial=None, keep=1.0), **free))
    half = plan(situation(terms(dial=None, keep=0.5), **free))
    assert whole.rung is TOP
    assert LADDER.index(half.rung) < LADDER.index(whole.rung)


failures = st.sampled_from(["wrong", "format", "truncated", "fault", "empty", "refusal", "unsure"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(failures, max_size=12),
    st.one_of(st.floats(0, 1), st.none()),
    st.integers(1, 8),
    st.frozensets(st.sampled_from(["continue", "more", "feedback", "fresh", "again", "agree", "verify"])),
    st.floats(0.5, 1),
    st.floats(0, 1),
)
def test_any_course_of_events_ends_and_repeats_no_correlated_failure(
    course: list[str], dial: float | None, most: int, modes: frozenset[Any], seen: float, passed: float
) -> None:
    granted = terms(
        dial=dial,
        keep=0.9 if dial is None else None,
        max_attempts=most,
        modes=tuple(sorted(modes)),
        continues=frozenset({"small", "large"}),
    )
    where = situation(granted, sensitivity=seen, false_accept=passed, redraws=True)
    for failure in course:
        decided = decide(where)
        assert decided == decide(where)  # deterministic
        if isinstance(decided, Stop):
            break
        assert decided.mode == "first" if not where.attempts else decided.mode in modes
        earlier = [done for done in where.attempts if done.rung == decided.rung]
        if decided.mode in {"again", "agree", "verify"}:
            assert earlier
            assert sum(done.mode not in {"continue", "verify"} for done in earlier) < 2 or decided.mode == "verify"
            # Two samples of a rung at most, and two further verdicts on each.
            assert sum(done.mode == "verify" for done in earlier) < 4 or decided.mode != "verify"
        else:
            assert all(done.failure in STOCHASTIC_FAILURES for done in earlier)
        where = replace(where, attempts=(*where.attempts, attempt(decided.rung, failure, mode=decided.mode)))
    assert len(where.attempts) <= most


@pytest.mark.parametrize("dial", [0.0, 0.3, 1.0])
def test_choosing_leaves_the_belief_alone(dial: float) -> None:
    where = situation(terms(dial=dial))
    belief = RuleEstimator().estimate(where.step, where.terms)
    before = belief.weights.copy()
    decide(where, belief)
    assert (belief.weights == before).all()
