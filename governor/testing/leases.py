"""The part of the ledger contract about time: leases that run out, and what is remembered how long."""

from __future__ import annotations

from collections.abc import Callable

from governor.errors import BudgetExceededError, ReservationError
from governor.protocols import Auditable
from governor.records import Amount, Limit, Window
from governor.testing.clock import FrozenClock, raised
from governor.testing.made import STEP, MadeLedger


class Leases(MadeLedger):
    """Expiry, late settlements, leases under which nothing was sent, retention."""

    # leases

    def test_an_expired_lease_counts_as_spent_at_its_bound(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        clock.advance(self.ttl - 1)
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=60)
        clock.advance(1)
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=60), Amount())
        held = ledger.reservation("k")
        assert held is not None
        assert held.state == "expired"
        raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=41), (STEP,)))

    def test_reserving_or_extending_renews_the_lease(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        renewals: tuple[Callable[[], object], ...] = (
            lambda: ledger.extend("k", Amount()),
            lambda: ledger.reserve("k", Amount(), (STEP,)),
            lambda: ledger.extend("k", Amount(tokens=1)),
        )
        for renew in renewals:
            clock.advance(self.ttl - 1)
            renew()
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=61)

    def test_a_late_settlement_or_refund_replaces_the_booking(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        for key in ("under", "over", "unsent"):
            ledger.reserve(key, Amount(tokens=20), (STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=60)
        ledger.settle("under", Amount(tokens=5))
        ledger.settle("over", Amount(tokens=30))
        ledger.refund("unsent")
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=35), Amount())
        assert balance.overshoot == Amount(tokens=10)

    def test_reserving_an_expired_key_turns_its_booking_into_a_hold_again(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=80), (STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=80)
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (STEP,)))
        assert ledger.reserve("k", Amount(tokens=90), (STEP,)).state == "open"
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount(tokens=90))
        ledger.settle("k", Amount(tokens=50))
        assert ledger.balance(STEP.scope).spent == Amount(tokens=50)

    def test_extending_an_expired_key_turns_its_booking_into_a_hold_again(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=80), (STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=80)
        assert ledger.extend("k", Amount(tokens=20)).amount == Amount(tokens=100)
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount(tokens=100))

    def test_a_clock_that_jumps_back_expires_nothing(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        clock.advance(-10 * self.ttl)
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=60)
        ledger.settle("k", Amount(tokens=10))
        assert ledger.balance(STEP.scope).spent == Amount(tokens=10)

    # not sent

    def test_a_lease_under_which_nothing_was_sent_is_given_back(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        assert not ledger.reserve("k", Amount(tokens=60), (STEP,), sent=False).sent
        clock.advance(self.ttl)
        held = ledger.reservation("k")
        assert held is not None
        assert (held.state, held.sent) == ("expired", False)
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.reserved, balance.expired) == (Amount(), Amount(), 1)
        ledger.reserve("l", Amount(tokens=100), (STEP,))

    def test_what_was_given_back_is_admitted_anew_or_refused(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,), sent=False)
        clock.advance(self.ttl)
        ledger.reserve("l", Amount(tokens=50), (STEP,))
        raised(BudgetExceededError, lambda: ledger.extend("k", Amount()))
        ledger.settle("l", Amount(tokens=40))
        assert ledger.extend("k", Amount()).sent
        assert ledger.balance(STEP.scope).reserved == Amount(tokens=60)

    def test_an_extension_marks_a_lease_as_sent_for_good(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,), sent=False)
        assert not ledger.extend("k", Amount(), sent=False).sent
        assert ledger.extend("k", Amount()).sent
        assert ledger.reserve("k", Amount(), (STEP,), sent=False).sent
        clock.advance(self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=60)

    def test_a_settlement_of_what_was_given_back_is_booked_in_full_and_counted(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,), sent=False)
        clock.advance(self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount()
        ledger.settle("k", Amount(tokens=10))
        balance = ledger.balance(STEP.scope)
        assert (balance.spent, balance.overshoot) == (Amount(tokens=10), Amount(tokens=10))

    # retention

    def test_a_closed_key_is_remembered_so_long_and_no_longer(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.settle(ledger.reserve("k", Amount(tokens=60), (STEP,)).key, Amount(tokens=50))
        clock.advance(self.keep - 1)
        ledger.refund(ledger.reserve("other", Amount(tokens=1), (STEP,)).key)
        assert ledger.settle("k", Amount(tokens=50)).amount == Amount(tokens=50)
        clock.advance(2)
        ledger.refund(ledger.reserve("another", Amount(tokens=1), (STEP,)).key)
        assert ledger.reservation("k") is None
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=50)))
        assert ledger.balance(STEP.scope).spent == Amount(tokens=50)

    def test_an_expired_lease_stays_booked_when_it_is_forgotten(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        clock.advance(self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=60)
        clock.advance(self.keep + 1)
        ledger.refund(ledger.reserve("other", Amount(tokens=1), (STEP,)).key)
        assert ledger.reservation("k") is None
        assert ledger.balance(STEP.scope).spent == Amount(tokens=60)

    def test_a_lease_settled_in_the_moment_it_ran_out_is_forgotten_once(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (STEP,))
        clock.advance(self.ttl)
        assert ledger.balance(STEP.scope).spent == Amount(tokens=60)
        ledger.settle("k", Amount(tokens=50))
        clock.advance(self.keep + 1)
        ledger.refund(ledger.reserve("other", Amount(tokens=1), (STEP,)).key)
        assert ledger.reservation("k") is None
        assert ledger.balance(STEP.scope).spent == Amount(tokens=50)

    def test_sums_that_came_into_use_again_are_not_forgotten(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        month = Limit("app", window=Window(idle=2 * self.keep))
        ledger.settle(ledger.reserve("k", Amount(tokens=60), (month,)).key, Amount(tokens=60))
        clock.advance(self.keep + 1)
        ledger.refund(ledger.reserve("other", Amount(tokens=1), (STEP,)).key)
        assert ledger.reservation("k") is None
        ledger.settle(ledger.reserve("l", Amount(tokens=30), (month,)).key, Amount(tokens=30))
        clock.advance(self.keep - 1)
        ledger.refund(ledger.reserve("another", Amount(tokens=1), (STEP,)).key)
        assert ledger.balance("app").spent == Amount(tokens=90)

    def test_an_hour_of_traffic_leaves_no_more_behind_than_what_is_remembered(self) -> None:
        """Each round is ten steps with limits of their own, in a minute's window; the clock runs ahead of the work."""
        clock = FrozenClock(0.0)
        ledger = self.make_ledger(clock, self.ttl)
        assert isinstance(ledger, Auditable)
        seen: list[tuple[int, int]] = []
        for number in range(40):
            minute = Limit(f"app@{number}", window=Window(until=(number + 1) * self.keep / 2))
            for step in range(10):
                key = f"{number}-{step}"
                own = Limit(f"step:{key}", tokens=9, window=Window(idle=0.0))
                ledger.reserve(key, Amount(tokens=5), (own, minute, Limit("all"), Limit("hour", window=SLIDING)))
                if step % 5 < 4:  # the fifth is lost with its process
                    ledger.settle(key, Amount(tokens=5))
            clock.advance(self.keep / 2)
            seen.append((len(ledger.balances()), len(ledger.reservations())))
        assert max(seen[10:]) <= max(seen[:10])
        assert ledger.balance("all").spent == Amount(tokens=40 * 10 * 5)


SLIDING = Window(sliding=600.0)
