"""The part of the ledger contract about reservations: what is admitted, what a key means, what is booked."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from governor.errors import BudgetExceededError, ReservationError
from governor.records import Amount, Limit
from governor.testing.clock import raised
from governor.testing.made import APP, STEP, MadeLedger


class Reservations(MadeLedger):
    """Reserve, extend, settle, refund - by one caller, and by many threads."""

    # reserve

    def test_reserve_holds_on_every_scope(self) -> None:
        ledger = self._ledger()
        held = ledger.reserve("k", Amount(tokens=60, micros=5), (STEP, APP))
        assert (held.key, held.state, held.amount) == ("k", "open", Amount(tokens=60, micros=5))
        assert held.limits == (STEP, APP)
        for scope in (STEP.scope, APP.scope):
            balance = ledger.balance(scope)
            assert (balance.reserved, balance.spent) == (Amount(tokens=60, micros=5), Amount())

    def test_a_limit_can_be_used_up_exactly_and_no_further(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=99), (STEP,))
        ledger.reserve("l", Amount(tokens=1), (STEP,))
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("m", Amount(tokens=1), (STEP,)))
        assert (refusal.scope, refusal.dimension, refusal.limit, refusal.asked) == (STEP.scope, "tokens", 100, 1)

    def test_a_refusal_changes_nothing_on_any_scope(self) -> None:
        ledger = self._ledger()
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (APP, STEP)))
        assert ledger.reservation("k") is None
        assert ledger.balance(APP.scope).reserved == Amount()
        assert ledger.balance(STEP.scope).reserved == Amount()

    def test_a_refusal_says_what_is_left_under_all_limits_together(self) -> None:
        ledger = self._ledger()
        ledger.settle(ledger.reserve("j", Amount(tokens=90, micros=300), (APP,)).key, Amount(tokens=80, micros=300))
        ledger.reserve("k", Amount(tokens=30, micros=100), (STEP, APP))
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=71), (STEP, APP)))
        assert refusal.left == Amount(40, 600, *[sys.maxsize] * 5)

    def test_an_unlimited_dimension_never_refuses(self) -> None:
        ledger = self._ledger()
        huge = Amount(tokens=1, micros=2**50, millis=2**50, calls=2**50)
        assert ledger.reserve("k", huge, (STEP,)).amount == huge
        assert ledger.reserve("l", Amount(tokens=2**50), ()).state == "open"

    def test_a_dimension_in_which_nothing_is_asked_never_refuses(self) -> None:
        ledger = self._ledger()
        ledger.settle(ledger.reserve("k", Amount(micros=1_000), (APP,)).key, Amount(micros=1_500))
        assert ledger.reserve("free", Amount(tokens=10), (APP,)).state == "open"

    def test_two_limits_of_one_scope_book_it_once(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=10), (STEP, Limit(STEP.scope, calls=1)))
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=10)

    def test_negative_amounts_are_refused(self) -> None:
        ledger = self._ledger()
        raised(ValueError, lambda: ledger.reserve("k", Amount(tokens=-1), (STEP,)))
        ledger.reserve("k", Amount(tokens=1), (STEP,))
        raised(ValueError, lambda: ledger.extend("k", Amount(tokens=-1)))
        raised(ValueError, lambda: ledger.settle("k", Amount(tokens=-1)))
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=1)

    # the key

    def test_reserving_an_open_key_answers_with_the_same_reservation(self) -> None:
        ledger = self._ledger()
        first = ledger.reserve("k", Amount(tokens=60), (STEP, APP))
        assert ledger.reserve("k", Amount(tokens=60), (APP, STEP)) == first
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=60)

    def test_reserving_an_open_key_keeps_the_larger_amount(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60, micros=5), (STEP,))
        assert ledger.reserve("k", Amount(tokens=40, micros=9), (STEP,)).amount == Amount(tokens=60, micros=9)
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (STEP,)))
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=60, micros=9)

    def test_reserving_an_open_key_under_other_limits_is_an_error(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        raised(ReservationError, lambda: ledger.reserve("k", Amount(tokens=60), (STEP, APP)))
        assert ledger.balance(APP.scope).reserved == Amount()

    def test_a_closed_key_is_not_reserved_or_extended_again(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=10), (STEP,))
        ledger.settle("k", Amount(tokens=1))
        raised(ReservationError, lambda: ledger.reserve("k", Amount(tokens=10), (STEP,)))
        raised(ReservationError, lambda: ledger.extend("k", Amount(tokens=1)))
        ledger.reserve("l", Amount(tokens=10), (STEP,))
        ledger.refund("l")
        raised(ReservationError, lambda: ledger.reserve("l", Amount(tokens=10), (STEP,)))
        raised(ReservationError, lambda: ledger.extend("l", Amount(tokens=1)))
        assert ledger.balance(STEP.scope).reserved == Amount()

    def test_an_unknown_key_is_an_error(self) -> None:
        ledger = self._ledger()
        raised(ReservationError, lambda: ledger.extend("k", Amount(tokens=1)))
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=1)))
        raised(ReservationError, lambda: ledger.refund("k"))
        assert ledger.reservation("k") is None

    # extend

    def test_extend_holds_more(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (STEP, APP))
        assert ledger.extend("k", Amount(tokens=40, micros=7)).amount == Amount(tokens=100, micros=7)
        assert ledger.balance(APP.scope).reserved == Amount(tokens=100, micros=7)

    def test_a_refused_extension_changes_nothing(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (APP, STEP))
        refusal = raised(BudgetExceededError, lambda: ledger.extend("k", Amount(tokens=41, micros=7)))
        assert refusal.left is not None
        assert refusal.left.tokens == 40
        held = ledger.reservation("k")
        assert held is not None
        assert held.amount == Amount(tokens=60)
        assert ledger.balance(APP.scope).reserved == Amount(tokens=60)

    # settle and refund

    def test_settle_books_what_was_spent_and_frees_the_rest(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60, calls=3), (STEP, APP))
        settled = ledger.settle("k", Amount(tokens=25, calls=2))
        assert (settled.state, settled.amount) == ("settled", Amount(tokens=25, calls=2))
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=25, calls=2), Amount())
        assert balance.overshoot == Amount()
        ledger.reserve("l", Amount(tokens=75), (STEP,))

    def test_settling_more_than_was_held_is_booked_in_full_and_counted(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        ledger.settle("k", Amount(tokens=130))
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.overshoot) == (Amount(tokens=130), Amount(tokens=70))
        raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=1), (STEP,)))

    def test_settling_twice_alike_books_once_and_otherwise_is_an_error(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        assert ledger.settle("k", Amount(tokens=70)) == ledger.settle("k", Amount(tokens=70))
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=26)))
        raised(ReservationError, lambda: ledger.refund("k"))
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.overshoot) == (Amount(tokens=70), Amount(tokens=10))

    def test_refund_frees_the_hold_once(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        assert ledger.refund("k") == ledger.refund("k")
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=1)))
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount())

    # threads

    def test_threads_admit_exactly_what_fits(self) -> None:
        ledger = self._ledger()

        def attempt(number: int) -> int:
            try:
                ledger.reserve(f"k{number}", Amount(tokens=7), (STEP, APP))
            except BudgetExceededError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(attempt, range(80))) == 100 // 7
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=100 // 7 * 7)

    def test_threads_that_race_for_one_key_share_one_reservation(self) -> None:
        ledger = self._ledger()
        with ThreadPoolExecutor(8) as pool:
            holds = list(pool.map(lambda _: ledger.reserve("k", Amount(tokens=60), (STEP,)), range(32)))
            settled = list(pool.map(lambda _: ledger.settle("k", Amount(tokens=50)), range(32)))
        assert len(set(map(repr, holds))) == 1
        assert len(set(map(repr, settled))) == 1
        assert ledger.balance(STEP.scope).spent == Amount(tokens=50)
