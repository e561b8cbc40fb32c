"""How far a stream may run: the first quantile, when it asks for more, and what is taken where little is left."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.plan.reach import Reach, opening, tokens_at
from governor.protocols import Streams, Terms
from governor.records import Amount, Call, Forecast, Limit, Plan, Rung

RUNG = Rung(id="low", model="m/small", answer_tokens=1024)
CALL = Call(step_id="s", rung=RUNG, messages=({"role": "user", "content": "why"},))
FORECAST = Forecast(rung="low", p_success=0.5, p_accept=0.5, output_tokens=200.0, micros=0.0, seconds=1.0, spread=0.8)
PLAN = Plan(rung=RUNG, forecasts=(FORECAST,))
TERMS = Terms(
    app="a", ladder=(RUNG,), limits=(Limit("app:a", answer=20_000),), streams=Streams(rungs=frozenset({"low"}))
)


def test_the_quantile_is_of_a_log_normal_with_the_forecasts_mean() -> None:
    assert tokens_at(FORECAST, 0.5) == pytest.approx(200 * math.exp(-0.32))
    assert tokens_at(FORECAST, 0.95) == pytest.approx(200 * math.exp(-0.32 + 1.6449 * 0.8), rel=1e-4)


def test_a_stream_opens_at_its_quantile() -> None:
    found = opening(CALL, PLAN, TERMS, Amount(calls=1))
    assert found == Reach(tokens=542, most=1024, step=64, least=146, beside=Amount(calls=1))


@pytest.mark.parametrize(
    ("tokens", "opens"), [(1.0, 64), (5_000.0, 1024)], ids=["a step at least", "its bound at most"]
)
def test_it_opens_between_a_step_and_its_bound(tokens: float, opens: int) -> None:
    plan = replace(PLAN, forecasts=(replace(FORECAST, output_tokens=tokens),))
    found = opening(CALL, plan, TERMS, Amount())
    assert found is not None
    assert found.tokens == opens


@pytest.mark.parametrize(
    "terms",
    [replace(TERMS, streams=Streams()), replace(TERMS, limits=()), replace(TERMS, reserve="ladder")],
    ids=["it can't be cut", "nothing is limited", "the whole ladder is held"],
)
def test_else_the_whole_bound_is_held(terms: Terms) -> None:
    assert opening(CALL, PLAN, terms, Amount()) is None
    assert opening(CALL, Plan(rung=RUNG), TERMS, Amount()) is None  # nothing is forecast


def test_a_limit_of_its_model_alone_is_one() -> None:
    models = (("m/small", (Limit("model:a/m/small", answer=20_000),)),)
    assert opening(CALL, PLAN, replace(TERMS, limits=(), models=models), Amount()) is not None
    assert opening(CALL, PLAN, replace(TERMS, limits=(), models=(("m/large", models[0][1]),)), Amount()) is None


def test_it_asks_two_steps_ahead_and_again_within_them() -> None:
    reach = Reach(tokens=300, most=1024, step=64)
    assert reach.until() == 172
    assert [reach.until(at) for at in (172, 173, 181, 295, 300)] == [172, 181, 189, 300, 300]
    assert Reach(tokens=64, most=1024, step=64).until() == 32
    assert Reach(tokens=1024, most=1024, step=64).until(5) is None


@given(st.integers(1, 500), st.integers(1, 600), st.integers(1, 90), st.integers(0, 600))
def test_until_never_passes_what_is_held_nor_stands_still(tokens: int, most: int, step: int, at: int) -> None:
    reach = Reach(tokens=min(tokens, most), most=most, step=step)
    until = reach.until(min(at, reach.tokens))
    if until is not None:
        assert until <= reach.tokens
        assert until >= min(at, reach.tokens)


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 600))
def test_the_longest_that_fits_is_taken(tokens: int, least: int, room: int) -> None:
    found = Reach(tokens=tokens, most=1024, step=64).shortened(least, lambda one: one.tokens <= room)
    longest = min(tokens, room)
    assert (found.tokens if found else None) == (longest if longest >= least else None)
