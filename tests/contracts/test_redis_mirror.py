"""The script rules as `governor.ledger.admission` does: the same history over memory and Redis, answer by answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from governor.errors import BudgetExceededError, LedgerError
from governor.ledger import open_ledger
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock
from tests.redis_servers import RedisServer

TTL, KEEP = 60.0, 500.0
Operation: TypeAlias = Callable[[Any, FrozenClock], object]

SLIDING = Window(sliding=7.3)
SET = ("total", "slid")
"""Scopes that are set by hand. In memory, unlike elsewhere, a refused limit still tells a new scope its window."""
LIMITS = (
    Limit("total", tokens=90, micros=50, calls=4),
    Limit("slid", tokens=40, window=SLIDING),
    Limit("long", tokens=70, thinking=30, window=Window(sliding=240.0, idle=300.0)),
    Limit("period", micros=60, window=Window(until=400.0)),
    Limit("idle", calls=3, window=Window(idle=0.0)),
)
keys = st.sampled_from("abcde")
amounts = st.builds(
    Amount,
    tokens=st.integers(0, 40),
    micros=st.integers(0, 20),
    calls=st.integers(0, 2),
    thinking=st.integers(0, 12),
)
limits = st.permutations(LIMITS).flatmap(lambda order: st.integers(0, 3).map(lambda most: tuple(order[:most])))
flags = st.booleans()


def reserve(key: str, amount: Amount, under: tuple[Limit, ...], sent: bool) -> Operation:
    return lambda ledger, _: ledger.reserve(key, amount, under, sent=sent)


def extend(key: str, amount: Amount, whole: bool, sent: bool) -> Operation:
    return lambda ledger, _: ledger.extend(key, amount, whole=whole, sent=sent)


def turn(seconds: float) -> Operation:
    """Forward only: what had left a window when the clock went back is a matter of who looked in between."""
    return lambda _, clock: clock.advance(seconds)


def named(name: str, *arguments: object) -> Operation:
    return lambda ledger, _: getattr(ledger, name)(*arguments)


operations = st.one_of(
    st.builds(reserve, keys, amounts, limits, flags),
    st.builds(reserve, keys, amounts, st.just(LIMITS[:2]), flags),
    st.builds(reserve, keys, amounts, st.just((Limit("slid", window=Window(sliding=9.0)),)), flags),
    st.builds(extend, keys, amounts, flags, flags),
    st.builds(partial(named, "settle"), keys, amounts),
    st.builds(partial(named, "refund"), keys),
    st.builds(partial(named, "reset"), st.sampled_from(SET), amounts),
    st.builds(turn, st.sampled_from([0.1, 0.3, 1.0, 7.3, 29.9, TTL, 120.0, KEEP])),
)


def told(operation: Operation, ledger: Any, clock: FrozenClock) -> str:
    """What an operation answers or raises, with everything that a refusal says."""
    try:
        return repr(operation(ledger, clock))
    except BudgetExceededError as refusal:
        return f"{refusal.told} {refusal.left} {refusal.asked}"
    except LedgerError as error:
        return f"{type(error).__name__}: {error}"


def compare(server: RedisServer, start: float, history: list[Operation]) -> None:
    clocks = FrozenClock(start), FrozenClock(start)
    memory = open_ledger("memory://", clock=clocks[0], ttl=TTL, keep=KEEP)
    redis = open_ledger(f"{server.uri}?tenant={uuid4().hex}&timeout=5", clock=clocks[1], ttl=TTL, keep=KEEP)
    for operation in (*history, named("balances"), named("reservations")):
        for look in (operation, named("balance", "slid"), named("balance", "total"), named("reservation", "a")):
            assert told(look, redis, clocks[1]) == told(look, memory, clocks[0])
        if clocks[0]() != clocks[1]():
            raise AssertionError("the clocks of the two ledgers went apart")
    for name in ("balances", "reservations"):
        assert told(named(name), redis, clocks[1]) == told(named(name), memory, clocks[0])
    redis.close()


histories = st.lists(operations, min_size=5, max_size=40)
starts = st.sampled_from([0.0, 1_000.0, 1_700_000_000.123])
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
MANY = settings(max_examples=2_000, deadline=None, suppress_health_check=SLOW, phases=[Phase.generate, Phase.shrink])


@FEW
@given(starts, histories)
def test_every_history_has_the_same_answers(redis_server: RedisServer, start: float, history: list[Operation]) -> None:
    compare(redis_server, start, history)


@pytest.mark.slow
@MANY
@given(starts, histories)
def test_very_many_histories_have_the_same_answers(
    redis_server: RedisServer, start: float, history: list[Operation]
) -> None:
    compare(redis_server, start, history)
