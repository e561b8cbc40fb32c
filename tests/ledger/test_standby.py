"""A store that goes down and comes back, and the cap that stands in meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.ledger.standby import RETRY_SECONDS, StandbyLedger, standby
from governor.protocols import Auditable, Balance, Ledger, Reservation, Shelf
from governor.records import Amount, Limit
from governor.testing import FrozenClock, LedgerContract

APP = Limit("app", tokens=1_000)
CAP = Limit("emergency", tokens=50)


class Flaky:
    """A ledger whose store is up or down, or does its work and loses the answer."""

    def __init__(self, clock: FrozenClock) -> None:
        self.inner = open_ledger("memory://", clock=clock, ttl=60)
        self.state = "up"

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        held: Reservation = self._do(self.inner.reserve, key, amount, limits, sent=sent)
        return held

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        held: Reservation = self._do(self.inner.extend, key, amount, whole=whole, sent=sent)
        return held

    def settle(self, key: str, spent: Amount) -> Reservation:
        closed: Reservation = self._do(self.inner.settle, key, spent)
        return closed

    def refund(self, key: str) -> Reservation:
        closed: Reservation = self._do(self.inner.refund, key)
        return closed

    def reservation(self, key: str) -> Reservation | None:
        found: Reservation | None = self._do(self.inner.reservation, key)
        return found

    def balance(self, scope: str) -> Balance:
        found: Balance = self._do(self.inner.balance, scope)
        return found

    def close(self) -> None:
        self.inner.close()

    def _do(self, operation: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.state == "down":
            raise LedgerUnavailableError("the store is down")
        answer = operation(*args, **options)
        if self.state == "mute":
            raise LedgerUnavailableError("the answer was lost")
        return answer


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(clock: FrozenClock) -> Flaky:
    return Flaky(clock)


@pytest.fixture
def ledger(store: Flaky, clock: FrozenClock) -> StandbyLedger:
    return standby(store, CAP, clock=clock)


class TestUp(LedgerContract):
    """While its store is up it is that store."""

    keep = 20_000.0

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        return standby(open_ledger("memory://", clock=clock, ttl=ttl, keep=self.keep), CAP, clock=clock)


def test_it_is_a_shelf_and_auditable_where_its_ledger_is(store: Flaky) -> None:
    assert isinstance(standby(store.inner, CAP), Shelf)
    assert isinstance(standby(store.inner, CAP), Auditable)
    assert not isinstance(standby(store, CAP), Shelf)


def test_the_cap_stands_in_and_is_paid_back(store: Flaky, ledger: StandbyLedger, clock: FrozenClock) -> None:
    store.state = "down"
    assert ledger.reserve("k", Amount(tokens=40), (APP,)).amount == Amount(tokens=40)
    with pytest.raises(BudgetExceededError) as refused:
        ledger.reserve("l", Amount(tokens=11), (APP,))
    assert refused.value.scope == "emergency"
    assert ledger.extend("k", Amount(tokens=10)).amount == Amount(tokens=50)
    assert ledger.settle("k", Amount(tokens=45)).state == "settled"
    assert ledger.owed == 1
    store.state = "up"
    clock.advance(RETRY_SECONDS)
    assert ledger.balance("app").spent == Amount(tokens=45)
    assert ledger.owed == 0
    store.state = "down"
    assert ledger.reserve("m", Amount(tokens=50), (APP,)).state == "open"  # the cap is whole again


def test_the_steps_own_limits_hold_in_the_meantime(store: Flaky, ledger: StandbyLedger) -> None:
    store.state = "down"
    with pytest.raises(BudgetExceededError) as refused:
        ledger.reserve("k", Amount(tokens=20), (Limit("step:k", tokens=19),))
    assert refused.value.scope == "step:k"


def test_a_step_that_began_before_goes_on_and_is_booked_once(
    store: Flaky, ledger: StandbyLedger, clock: FrozenClock
) -> None:
    ledger.reserve("k", Amount(tokens=100), (APP,))
    store.state = "down"
    assert ledger.extend("k", Amount(tokens=30)).amount == Amount(tokens=130)
    assert ledger.settle("k", Amount(tokens=120)).amount == Amount(tokens=120)
    store.state = "up"
    clock.advance(RETRY_SECONDS)
    balance = ledger.balance("app")
    assert (balance.spent, balance.reserved) == (Amount(tokens=120), Amount())
    assert balance.overshoot == Amount(tokens=20)


def test_what_passes_a_limit_of_the_store_is_booked_all_the_same(
    store: Flaky, ledger: StandbyLedger, clock: FrozenClock
) -> None:
    ledger.settle(ledger.reserve("full", Amount(tokens=1_000), (APP,)).key, Amount(tokens=1_000))
    store.state = "down"
    ledger.settle(ledger.reserve("k", Amount(tokens=30), (APP,)).key, Amount(tokens=30))
    store.state = "up"
    clock.advance(RETRY_SECONDS)
    assert ledger.balance("app").spent == Amount(tokens=1_030)


def test_a_store_that_failed_is_left_alone_for_a_while(store: Flaky, ledger: StandbyLedger, clock: FrozenClock) -> None:
    store.state = "down"
    with pytest.raises(LedgerUnavailableError, match="the store is down"):
        ledger.balance("app")
    store.state = "up"
    with pytest.raises(LedgerUnavailableError, match="did not answer: asked again after 1 s"):
        ledger.balance("app")
    clock.advance(RETRY_SECONDS)
    assert ledger.balance("app").spent == Amount()


def test_what_is_owed_can_be_paid_without_anything_else_being_asked(store: Flaky, ledger: StandbyLedger) -> None:
    store.state = "down"
    ledger.reserve("a", Amount(tokens=40), (Limit("app", tokens=100),))
    ledger.settle("a", Amount(tokens=30))
    ledger.pay()
    assert ledger.owed == 1, "the store is still down"
    store.state = "up"
    ledger.pay()
    assert (ledger.owed, store.balance("app").spent.tokens) == (0, 30)


def test_another_cap_counts_what_was_spent_under_the_one_before(store: Flaky, ledger: StandbyLedger) -> None:
    store.state = "down"
    ledger.reserve("a", Amount(tokens=40), ())
    ledger.settle("a", Amount(tokens=40))
    ledger.stand_in_to(replace(CAP, tokens=60))
    ledger.reserve("b", Amount(tokens=20), ())
    with pytest.raises(BudgetExceededError):
        ledger.reserve("c", Amount(tokens=1), ())


def test_what_can_not_be_paid_back_at_the_end_is_said(store: Flaky, ledger: StandbyLedger) -> None:
    store.state = "down"
    ledger.settle(ledger.reserve("k", Amount(tokens=30), (APP,)).key, Amount(tokens=30))
    with pytest.raises(LedgerUnavailableError):
        ledger.close()


@given(
    st.lists(st.tuples(st.sampled_from(["up", "down", "mute"]), st.integers(0, 20), st.integers(0, 10)), max_size=25)
)
def test_whenever_the_store_goes_nothing_is_lost_and_nothing_booked_twice(steps: list[tuple[str, int, int]]) -> None:
    clock = FrozenClock()
    store = Flaky(clock)
    ledger = standby(store, CAP, clock=clock)
    spent = 0
    for number, (state, held, more) in enumerate(steps):
        store.state = state
        clock.advance(RETRY_SECONDS)
        try:
            ledger.reserve(str(number), Amount(tokens=held), (APP,))
        except BudgetExceededError:
            continue
        store.state = steps[-1 - number][0]
        clock.advance(RETRY_SECONDS)
        try:
            ledger.extend(str(number), Amount(tokens=held + more), whole=True)
        except BudgetExceededError:
            more = 0
        ledger.settle(str(number), Amount(tokens=held + more))
        spent += held + more
    store.state = "up"
    clock.advance(RETRY_SECONDS)
    balance = ledger.balance("app")
    assert ledger.owed == 0
    assert balance.spent == Amount(tokens=spent)
