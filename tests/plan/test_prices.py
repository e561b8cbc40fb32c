from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate import RuleEstimator
from governor.plan.index import IndexPlanner
from governor.plan.prices import Unit, added_price, with_cache
from governor.protocols import Situation, Terms
from governor.records import Attempt, Forecast, Plan, Price, Rung, Step, Usage, Verdict

A = Rung(id="a", model="a", price=Price(input=1.0, output=4.0, cached_input=0.1))
B = Rung(id="b", model="b", price=Price(input=1.0, output=4.0, cached_input=0.1))
TOP = Rung(id="top", model="t", thinking_tokens=4000, price=Price(input=5.0, output=20.0))


def forecast(micros: float, tokens: float = 10, seconds: float = 1, rung: str = "a") -> Forecast:
    return Forecast(rung=rung, p_success=0.5, p_accept=0.5, output_tokens=tokens, micros=micros, seconds=seconds)


def situation(state: dict[str, Any] | None = None, *ladder: Rung, **terms: Any) -> Situation:
    step = Step(id="s", messages=({"role": "user", "content": "Explain how caches work. " * 40},), state=state or {})
    made: dict[str, Any] = {"app": "t", "ladder": ladder or (A, B, TOP), "dial": 0.3, **terms}
    return Situation(step=step, terms=Terms(**made), sensitivity=0.9, false_accept=0.1)


def chosen(where: Situation, planner: IndexPlanner | None = None) -> Plan:
    plan = (planner or IndexPlanner()).choose(RuleEstimator().estimate(where.step, where.terms), where)
    assert isinstance(plan, Plan)
    return plan


def test_costs_are_relative_to_the_dearest_in_money_or_else_in_tokens() -> None:
    assert Unit.of(pair := (forecast(2, 100), forecast(8, 10))).costs(pair).tolist() == [0.25, 1.0]
    assert Unit.of(pair := (forecast(0, 100), forecast(0, 50))).costs(pair).tolist() == [1.0, 0.5]
    assert Unit.of((forecast(0, 0),)).costs((forecast(0, 0),)).tolist() == [0.0]


def test_a_second_of_waiting_is_a_cost_beside_the_money() -> None:
    pair = (forecast(2, seconds=1), forecast(2, seconds=4))
    unit = Unit.of(pair, latency=2.0)
    assert (unit.size, unit.costs(pair).tolist()) == (10.0, [0.4, 1.0])
    judged = Verdict(decision="reject", verifier="v", micros=3, seconds=1.0, usage=Usage(9, 1))
    attempt = Attempt(number=1, rung=A, mode="first", reply=None, verdict=judged)
    assert unit.verdict(attempt) == pytest.approx(0.5)
    slow = Rung(id="slow", model="local", thinking_tokens=4000, price=Price(input=0.01, output=0.01))
    fast = Rung(id="fast", model="paid", price=Price(input=5.0, output=20.0))
    for latency, rung in ((0.0, slow), (10_000.0, fast)):
        assert chosen(situation({}, slow, fast, dial=0.9, latency=latency)).rung is rung


def test_a_switch_of_model_forfeits_the_cached_prompt() -> None:
    warm = {"cached_model": "b", "cached_tokens": 600}
    own = (forecast(1040, 10), forecast(1040, 10, rung="b"))
    cheaper = with_cache(own, situation(warm, A, B))
    assert [one.micros for one in cheaper] == [1040, pytest.approx(1040 - 600 * 0.9)]
    small = with_cache(own, situation({**warm, "cached_tokens": 10**9}, A, B))
    assert small[1].micros == pytest.approx(40 + 1000 * 0.1)  # never more than the prompt
    assert with_cache(own, situation({}, A, B)) == own
    no_discount = replace(B, price=Price(1.0, 4.0))
    assert with_cache(own, situation(warm, A, no_discount)) == own
    assert chosen(situation({}, A, B, dial=0.9)).rung is B
    assert chosen(situation({"cached_model": "a", "cached_tokens": 200}, A, B, dial=0.9)).rung is A


@given(st.floats(0, 0.99), st.floats(0, 1e-3))
def test_load_and_shadow_price_add_up(load: float, mu: float) -> None:
    terms = replace(situation().terms, mu=mu)
    assert added_price(terms, {"load": load}, Unit(200.0)) == pytest.approx(0.5 * load / (1 - load) + 200 * mu)


@pytest.mark.parametrize("load", [None, "full", True, math.nan, -3, 0])
def test_a_load_that_is_no_number_is_none(load: Any) -> None:
    assert added_price(situation().terms, {"load": load}, Unit(1.0)) == 0.0


def test_load_and_a_short_budget_choose_cheaper_rungs() -> None:
    assert chosen(situation(dial=0.0)).rung is TOP
    assert chosen(situation({"load": 0.95}, dial=0.0)).rung is not TOP
    assert chosen(situation({"load": 1.0}, dial=0.0)).rung is A
    assert chosen(situation(dial=0.0, mu=1e-3)).rung is not TOP


def test_prices_of_a_calibration_replace_the_dial() -> None:
    class Fixed:
        def __init__(self, price: float) -> None:
            self.lam, self.asked = price, 0

        def price(self, terms: Terms, situation: Situation, unit: float) -> float:
            assert situation.terms is terms
            assert unit > 0.0
            self.asked += 1
            return self.lam

    aims: tuple[dict[str, Any], ...] = ({"dial": 1.0}, {"dial": None, "keep": 0.5})
    for terms in aims:
        free = Fixed(0.0)
        assert chosen(situation(**terms), IndexPlanner(free)).rung is TOP
        assert free.asked == 1
    assert chosen(situation(dial=0.0), IndexPlanner(Fixed(50.0))).rung is not TOP
