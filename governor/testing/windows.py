"""The part of the ledger contract about limits: windows, why one refuses, and what a person may see and set."""

from __future__ import annotations

from typing import Any

from governor.errors import BudgetExceededError, LedgerError
from governor.protocols import Auditable, Ledger
from governor.records import Amount, Limit, Window
from governor.testing.clock import FrozenClock, raised
from governor.testing.made import APP, STEP, MadeLedger

_HOUR = 3_600.0
_SLIDING = Limit("app~hour", tokens=100, window=Window(sliding=_HOUR))
_START = 1_700_000_000.0


def _spend(ledger: Ledger, key: str, tokens: int, *limits: Limit) -> None:
    ledger.reserve(key, Amount(tokens=tokens), limits)
    ledger.settle(key, Amount(tokens=tokens))


class Windows(MadeLedger):
    """Every dimension, fixed and sliding windows, refusals, the view of the whole."""

    def test_every_dimension_is_limited_by_itself(self) -> None:
        ledger = self._ledger()
        for name in ("tokens", "micros", "millis", "calls", "input", "thinking", "answer"):
            ceiling: dict[str, Any] = {name: 5}
            limit = Limit(f"only {name}", **ceiling)
            ledger.reserve(f"fits {name}", Amount(**{name: 5}), (limit,))
            refusal = raised(
                BudgetExceededError,
                lambda limit=limit, name=name: ledger.reserve(f"not {name}", Amount(**{name: 1}), (limit,)),  # type: ignore[misc]
            )
            assert (refusal.dimension, refusal.limit) == (name, 5)
            ledger.settle(f"fits {name}", Amount(**{name: 3}))
            assert ledger.balance(limit.scope).spent == Amount(**{name: 3})

    # windows

    def test_spend_leaves_a_sliding_window_never_early_and_at_most_a_sixtieth_late(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        _spend(ledger, "k", 60, _SLIDING)
        clock.advance(_HOUR - 1)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=60)
        raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=41), (_SLIDING,)))
        clock.advance(_HOUR / 60 + 2)
        assert ledger.balance(_SLIDING.scope).spent == Amount()
        ledger.reserve("l", Amount(tokens=100), (_SLIDING,))

    def test_what_left_a_sliding_window_stays_away_when_the_clock_is_set_back(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        _spend(ledger, "k", 60, _SLIDING)
        clock.advance(2 * _HOUR)
        assert ledger.balance(_SLIDING.scope).spent == Amount()
        clock.advance(-2 * _HOUR)
        assert ledger.balance(_SLIDING.scope).spent == Amount()

    def test_a_lease_that_left_a_window_is_told_from_one_that_ran_out_on_a_clock_set_back(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("left", Amount(tokens=60), (_SLIDING,))
        clock.advance(2 * _HOUR)
        assert ledger.balance(_SLIDING.scope).spent == Amount()
        clock.advance(-2 * _HOUR)
        ledger.reserve("came", Amount(tokens=7), (_SLIDING,))
        clock.advance(self.ttl)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=7)
        ledger.settle("left", Amount(tokens=50))
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=7)
        ledger.settle("came", Amount(tokens=5))
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=5)

    def test_what_was_booked_on_a_clock_set_back_leaves_for_good_too(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        _spend(ledger, "now", 1, _SLIDING)
        clock.advance(-10 * _HOUR)
        _spend(ledger, "then", 30, _SLIDING)
        clock.advance(2 * _HOUR)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=1)
        clock.advance(-2 * _HOUR)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=1)

    def test_a_reset_holds_when_the_clock_was_set_back(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        assert isinstance(ledger, Auditable)
        ledger.reserve("before", Amount(tokens=60), (APP,))
        clock.advance(_HOUR)
        assert ledger.balance(APP.scope).spent == Amount(tokens=60)
        clock.advance(-2 * _HOUR)
        ledger.reset(APP.scope, Amount(tokens=8))
        ledger.refund("before")
        ledger.reserve("after", Amount(tokens=30), (APP,))
        clock.advance(self.ttl)
        assert ledger.balance(APP.scope).spent == Amount(tokens=38)
        ledger.settle("after", Amount(tokens=10))
        assert ledger.balance(APP.scope).spent == Amount(tokens=18)

    def test_spend_of_a_sliding_window_belongs_to_its_settlement(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_SLIDING,))
        clock.advance(self.ttl - 1)
        ledger.settle("k", Amount(tokens=60))
        clock.advance(_HOUR - 1)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=60)

    def test_no_stretch_of_a_sliding_window_ever_holds_more_than_its_limit(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        spent: list[tuple[float, int]] = []
        for number in range(300):
            tokens = 1 + number * 7 % 23
            try:
                _spend(ledger, f"k{number}", tokens, _SLIDING)
            except BudgetExceededError:
                pass
            else:
                spent.append((clock(), tokens))
            clock.advance(1 + number * 31 % 200)
        for end, _ in spent:
            assert sum(tokens for at, tokens in spent if end - _HOUR < at <= end) <= 100
        assert sum(tokens for _, tokens in spent) > 500

    def test_a_lease_that_ran_out_belongs_to_the_moment_it_did(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_SLIDING,))
        clock.advance(self.ttl + _HOUR - 1)
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=60)
        clock.advance(_HOUR / 60 + 2)
        assert ledger.balance(_SLIDING.scope).spent == Amount()
        ledger.settle("k", Amount(tokens=20))
        assert ledger.balance(_SLIDING.scope).spent == Amount()

    def test_a_lease_taken_up_after_its_booking_left_the_window_is_admitted_as_a_whole(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_SLIDING,))
        clock.advance(self.ttl + 2 * _HOUR)
        ledger.reserve("l", Amount(tokens=50), (_SLIDING,))
        raised(BudgetExceededError, lambda: ledger.extend("k", Amount()))
        assert ledger.balance(_SLIDING.scope).reserved == Amount(tokens=50)

    def test_several_windows_hold_at_once(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        day = Limit("app@day", tokens=130, window=Window(until=_START + 86_400.0))
        _spend(ledger, "k", 100, _SLIDING, day)
        clock.advance(2 * _HOUR)
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=31), (_SLIDING, day)))
        assert (refusal.scope, refusal.resets) == ("app@day", _START + 86_400.0)
        assert ledger.reserve("m", Amount(tokens=30), (_SLIDING, day)).state == "open"

    def test_a_scope_has_one_sliding_window(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=1), (_SLIDING,))
        other = Limit(_SLIDING.scope, window=Window(sliding=60.0))
        raised(LedgerError, lambda: ledger.reserve("l", Amount(tokens=1), (other,)))

    # refusals

    def test_what_never_fits_is_too_large(self) -> None:
        ledger = self._ledger()
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (STEP,)))
        assert (refusal.kind, refusal.resets, refusal.retry_after) == ("too_large", None, None)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        refusal = raised(BudgetExceededError, lambda: ledger.extend("k", Amount(tokens=41)))
        assert refusal.kind == "too_large"

    def test_what_others_hold_is_busy(self) -> None:
        ledger = self._ledger()
        _spend(ledger, "j", 30, STEP)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=70), (STEP,)))
        assert (refusal.kind, refusal.resets) == ("budget_busy", None)
        assert refusal.retry_after is not None
        assert refusal.retry_after > 0
        ledger.refund("k")
        ledger.reserve("l", Amount(tokens=70), (STEP,))

    def test_what_is_spent_is_exceeded_and_says_when_it_resets(self) -> None:
        clock = FrozenClock(_START)
        ledger = self.make_ledger(clock, self.ttl)
        day = Limit("app@day", tokens=100, window=Window(until=_START + 500.0))
        for key, limit in (("j", STEP), ("k", day), ("l", _SLIDING)):
            _spend(ledger, key, 60, limit)
        never = raised(BudgetExceededError, lambda: ledger.reserve("m", Amount(tokens=41), (STEP,)))
        assert (never.kind, never.resets, never.retry_after) == ("budget_exceeded", None, None)
        fixed = raised(BudgetExceededError, lambda: ledger.reserve("m", Amount(tokens=41), (day,)))
        assert (fixed.kind, fixed.resets, fixed.retry_after) == ("budget_exceeded", _START + 500.0, 500.0)
        clock.advance(100.0)
        slid = raised(BudgetExceededError, lambda: ledger.reserve("m", Amount(tokens=41), (_SLIDING,)))
        assert slid.kind == "budget_exceeded"
        assert slid.resets is not None
        assert slid.retry_after == slid.resets - clock()
        clock.advance(slid.resets - clock())
        ledger.reserve("m", Amount(tokens=41), (_SLIDING,))

    def test_of_several_limits_the_gravest_refusal_speaks(self) -> None:
        ledger = self._ledger()
        small, spent, held = Limit("small", tokens=5), Limit("spent", tokens=20), Limit("held", tokens=20)
        _spend(ledger, "j", 15, spent)
        ledger.reserve("k", Amount(tokens=15), (held,))
        asked = Amount(tokens=10)
        for limits, kind in (
            ((held, spent, small), "too_large"),
            ((held, spent), "budget_exceeded"),
            ((held,), "budget_busy"),
        ):
            refusal = raised(BudgetExceededError, lambda limits=limits: ledger.reserve("l", asked, limits))  # type: ignore[misc]
            assert refusal.kind == kind

    # repeated and overtaken messages

    def test_an_extension_to_a_whole_may_be_repeated_and_overtaken(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=10), (STEP,))
        for tokens in (30, 30, 20, 30):
            held = ledger.extend("k", Amount(tokens=tokens), whole=True)
            assert held.amount == Amount(tokens=30)
        raised(BudgetExceededError, lambda: ledger.extend("k", Amount(tokens=101), whole=True))
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=30)

    # what a person may see and set

    def test_all_that_is_remembered_can_be_seen_in_order(self) -> None:
        ledger = self._ledger()
        assert isinstance(ledger, Auditable)
        ledger.reserve("b", Amount(tokens=1), (STEP,))
        _spend(ledger, "a", 2, STEP, APP)
        assert [one.scope for one in ledger.balances()] == [APP.scope, STEP.scope]
        assert [one.scope for one in ledger.balances("step:")] == [STEP.scope]
        assert ledger.balances("step:")[0] == ledger.balance(STEP.scope)
        assert [(one.key, one.state) for one in ledger.reservations()] == [("a", "settled"), ("b", "open")]
        assert ledger.reservations("b") == (ledger.reservation("b"),)

    def test_a_prefix_is_no_pattern(self) -> None:
        ledger = self._ledger()
        assert isinstance(ledger, Auditable)
        for scope in ("a*", "ab", "a%", "a_", "A*"):
            ledger.reserve(scope, Amount(), (Limit(scope),))
        for scope in ("a*", "a%", "a_"):
            assert [one.scope for one in ledger.balances(scope)] == [scope]
            assert [one.key for one in ledger.reservations(scope)] == [scope]

    def test_a_reset_sets_what_is_spent_and_keeps_the_holds(self) -> None:
        ledger = self._ledger()
        assert isinstance(ledger, Auditable)
        ledger.reserve("k", Amount(tokens=30), (STEP, _SLIDING))
        ledger.settle(ledger.reserve("j", Amount(tokens=40), (STEP, _SLIDING)).key, Amount(tokens=45))
        for scope in (STEP.scope, _SLIDING.scope):
            balance = ledger.reset(scope, Amount(tokens=5))
            assert (balance.spent, balance.reserved) == (Amount(tokens=5), Amount(tokens=30))
            assert balance.overshoot == Amount()
            assert ledger.balance(scope) == balance
        ledger.settle("k", Amount(tokens=30))
        assert ledger.balance(_SLIDING.scope).spent == Amount(tokens=35)

    def test_a_settlement_from_before_a_reset_takes_nothing_from_what_came_after(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        assert isinstance(ledger, Auditable)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        clock.advance(self.ttl + 1)
        ledger.reset(STEP.scope)
        _spend(ledger, "j", 50, STEP)
        ledger.settle("k", Amount(tokens=20))
        assert ledger.balance(STEP.scope).spent == Amount(tokens=70)
