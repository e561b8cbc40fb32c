"""The shadow price of a paced budget while serving: from the ledger, shared by replicas, never in the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from governor import Governor
from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.pacer import Pace, Pacer, dear
from governor.plan.pacing import Pacing
from governor.policy import Paced, policy_from
from governor.protocols import Balance, Ledger
from governor.records import Amount, Limit, Plan, Price, Rung, Step
from governor.testing import FrozenClock, ScriptedBackend

DAY = 86_400.0
LADDER = (
    Rung(id="small", model="s", answer_tokens=400, price=Price(input=0.1, output=0.4)),
    Rung(id="large", model="l", answer_tokens=4_000, price=Price(input=1.0, output=4.0)),
)


def paced(day: int = 0, budget: int = 1_000_000) -> Paced:
    return Paced("app:a/day", f"app:a@{day}", budget, day * DAY, DAY, (1.0,))


def spend(ledger: Ledger, key: str, micros: int, day: int = 0) -> None:
    ledger.reserve(key, Amount(micros=micros), (Limit(f"app:a@{day}"),))
    ledger.settle(key, Amount(micros=micros))


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(0.0)


def test_spend_ahead_of_pace_has_a_price_that_falls_once_it_is_caught_up(clock: FrozenClock) -> None:
    ledger = open_ledger("memory://", clock=clock)
    pacer = Pacer(lambda: ledger)
    assert pacer.mu([paced()], LADDER, 1.0) == 0.0
    spend(ledger, "burst", 200_000)  # a fifth of the day's money in its first hour
    ahead = pacer.mu([paced()], LADDER, 3_600.0)
    assert ahead * dear(LADDER) > 1.0  # the dearest rung is not worth a right answer now
    later = [pacer.mu([paced()], LADDER, hour * 3_600.0) for hour in range(2, 24)]
    assert later[-1] == 0.0
    assert all(one >= two for one, two in pairwise(later) if one <= ahead)


def test_replicas_count_what_all_of_them_spend(clock: FrozenClock) -> None:
    ledger = open_ledger("memory://", clock=clock)
    one, other = Pacer(lambda: ledger), Pacer(lambda: ledger)
    one.mu([paced()], LADDER, 1.0)
    spend(ledger, "by one", 300_000)
    told = one.mu([paced()], LADDER, 600.0)
    assert told > 0.0
    assert other.mu([paced()], LADDER, 600.0) == told  # the same moment: nothing is counted twice


def test_the_ledger_is_asked_now_and_then_only(clock: FrozenClock) -> None:
    class Counting:
        looks = 0

        def balance(self, scope: str) -> Balance:
            self.looks += 1
            return Balance(scope=scope)

    ledger = Counting()
    pacer = Pacer(lambda: ledger)  # type: ignore[arg-type, return-value]  # nothing else is asked of it
    for tenth in range(1_000):
        pacer.mu([paced()], LADDER, tenth / 10)
    assert ledger.looks == 10  # a hundred seconds


def test_a_new_period_begins_with_the_price_of_the_last(clock: FrozenClock) -> None:
    ledger = open_ledger("memory://", clock=clock)
    pacer = Pacer(lambda: ledger)
    pacer.mu([paced()], LADDER, DAY - 700.0)
    spend(ledger, "late", 1_500_000)
    before = pacer.mu([paced()], LADDER, DAY - 10.0)
    assert before > 0.0
    assert pacer.mu([paced(1)], LADDER, DAY + 0.0) == pytest.approx(before)


def test_a_store_that_is_down_leaves_the_last_price(clock: FrozenClock) -> None:
    class Failing:
        """A ledger whose store goes away."""

        def __init__(self, ledger: Ledger) -> None:
            self.ledger, self.down, self.asked = ledger, False, 0

        def balance(self, scope: str) -> Balance:
            self.asked += 1
            if self.down:
                raise LedgerUnavailableError("gone")
            return self.ledger.balance(scope)

    ledger = Failing(open_ledger("memory://", clock=clock))
    pacer = Pacer(lambda: ledger)  # type: ignore[arg-type, return-value]  # nothing else is asked of it
    pacer.mu([paced()], LADDER, 1.0)
    spend(ledger.ledger, "burst", 400_000)
    told = pacer.mu([paced()], LADDER, 900.0)
    ledger.down = True
    assert told > 0.0
    asked = ledger.asked
    assert pacer.mu([paced()], LADDER, 5_000.0) == told
    assert pacer.mu([paced()], LADDER, 5_000.5) == told
    assert ledger.asked == asked + 1  # a store that is down is not asked by every step
    assert Pacer(lambda: ledger).mu([paced()], LADDER, 5_000.0) == 0.0  # type: ignore[arg-type, return-value]  # as above


async def test_in_an_event_loop_every_price_that_a_server_knows_comes_with_the_next_steps(clock: FrozenClock) -> None:
    class Remote:
        remote = True

        def __init__(self, ledger: Ledger) -> None:
            self.ledger, self.askers, self.go = ledger, set[int](), threading.Event()

        def balance(self, scope: str) -> Balance:
            assert self.go.wait(10)
            self.askers.add(threading.get_ident())
            return self.ledger.balance(scope)

    inner = open_ledger("memory://", clock=clock)
    spend(inner, "burst", 400_000)
    ledger = Remote(inner)
    pacer = Pacer(lambda: ledger)  # type: ignore[arg-type, return-value]  # nothing else is asked of it
    both = [paced(), replace(paced(), name="tenant:a/day", scope="app:a@0")]
    assert pacer.mu(both, LADDER, 900.0) == 0.0
    ledger.go.set()
    async with asyncio.timeout(10):
        while pacer.mu(both[1:], LADDER, 901.0) == 0.0:  # noqa: ASYNC110 - a price, no event
            await asyncio.sleep(0.01)
    assert pacer.mu(both, LADDER, 902.0) == pytest.approx(2 * pacer.mu(both[:1], LADDER, 902.0))
    assert threading.get_ident() not in ledger.askers


def test_an_awaited_ledger_can_not_be_paced_by() -> None:
    class Later:
        async def balance(self, scope: str) -> Balance:
            return Balance(scope=scope)

    pacer = Pacer(Later)  # type: ignore[arg-type]  # what a governor may be given
    with pytest.raises(TypeError, match="'app:a@0' has a pace, which needs a ledger that answers at once"):
        pacer.mu([paced()], LADDER, 1.0)


def test_budgets_that_nobody_asks_for_are_forgotten(monkeypatch: pytest.MonkeyPatch, clock: FrozenClock) -> None:
    monkeypatch.setattr("governor.pacer.REMEMBERED", 2)
    ledger = open_ledger("memory://", clock=clock)
    pacer = Pacer(lambda: ledger)
    tenants = [replace(paced(), name=f"tenant:a/{number}/day") for number in range(5)]
    for one in tenants:
        pacer.mu([one], LADDER, 1.0)
    assert list(pacer._looks) == [one.name for one in tenants[-2:]]


def test_where_nothing_costs_money_nothing_is_paced(clock: FrozenClock) -> None:
    def unused() -> Ledger:
        raise AssertionError("asked the ledger")

    assert Pacer(unused).mu([paced()], (Rung(id="free", model="m"),), 1.0) == 0.0


def test_a_pace_is_read_as_it_was_written_and_nothing_else() -> None:
    pace = Pace("app:a@0", Pacing.of(1e6, DAY, 100.0, profile=(1.0, 3.0)).after(5.0, 60.0))
    assert Pace.from_bytes(pace.to_bytes()) == pace
    for damaged in (b"", b"[]", b'{"scope": "a"}', b'{"scope": "a", "pacing": {"profile": [], "budget": 1}}'):
        with pytest.raises(LedgerError, match="pace"):
            Pace.from_bytes(damaged)


POLICY = {
    "version": 1,
    "app": "a",
    "dial": 0.0,
    "models": {"m": {"price": {"input": 1.0, "output": 4.0}}},
    "ladder": [
        {"id": "low", "model": "m", "answer_tokens": 100},
        {"id": "high", "model": "m", "answer_tokens": 4000},
    ],
    "budget": {"app": {"usd": 1.0, "per": "day", "pace": [1]}},
}


def governed(clock: Callable[[], float], ledger: Ledger) -> Governor:
    return Governor(policy_from(POLICY), backend=ScriptedBackend(["yes"]), ledger=ledger, clock=clock)


def chosen(governor: Governor, step: Step) -> str:
    plan = governor.explain(step).plan
    assert isinstance(plan, Plan)
    return plan.rung.id


def test_a_paced_policy_prices_steps_by_what_the_day_has_spent(clock: FrozenClock) -> None:
    ledger = open_ledger("memory://", clock=clock)
    with governed(clock, ledger) as governor:
        step = governor.step("What is 17 times 23?")
        assert governor.terms(step).mu == 0.0
        assert chosen(governor, step) == "high"
        (limit,) = governor.terms(step).limits
        ledger.reserve("burst", Amount(micros=300_000), (limit,))
        ledger.settle("burst", Amount(micros=300_000))
        clock.advance(600.0)
        paced_now = governor.terms(step)
        assert paced_now.mu > 0.0
        assert governor.terms(step, mu=0.0).mu == 0.0
        assert chosen(governor, step) == "low"


@pytest.mark.parametrize(
    ("period", "problem"),
    [
        ({"tokens": 5, "per": "day", "pace": [1]}, "there is no money to spread"),
        ({"usd": 1, "per": "total", "pace": [1]}, "a total has no end"),
        ({"usd": 1, "per": "hour", "sliding": True, "pace": [1]}, "a sliding window has no end"),
        ({"usd": 1, "per": "day", "pace": [0, 0]}, "no slice has a weight above 0"),
        ({"usd": 1, "per": "day", "pace": []}, "pace"),
        ({"usd": 1, "per": "day", "pace": [-1]}, "must be at least 0"),
    ],
)
def test_a_pace_that_means_nothing_is_refused(period: dict[str, object], problem: str) -> None:
    with pytest.raises(Exception, match=problem) as refused:
        policy_from({**POLICY, "budget": {"app": period}})
    assert "budget.app" in str(refused.value)
