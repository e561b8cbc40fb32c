"""Random histories of each store beside a model of a few lines: a list of reservations, summed when asked."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from governor.errors import BudgetExceededError, ReservationError
from governor.ledger import open_ledger
from governor.protocols import Ledger
from governor.records import Amount, Limit
from governor.testing import FrozenClock, raised

TTL = 60.0
TOKENS = {"step": 60, "app": 100}
LIMITS = {
    "both": (Limit("step", tokens=60), Limit("app", tokens=100)),
    "app": (Limit("app", tokens=100),),
}
keys = st.sampled_from("abcdef")
amounts = st.integers(0, 40)


@dataclass
class Hold:
    limits: str
    tokens: int
    state: str
    touched: float


class LedgerMachine(RuleBasedStateMachine):
    uri = "memory://"

    @initialize()
    def open(self) -> None:
        self.clock = FrozenClock()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = self.open_again()
        self.model: dict[str, Hold] = {}

    def open_again(self) -> Ledger:
        return open_ledger(self.uri.format(self.folder), clock=self.clock, ttl=TTL)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(key=keys, tokens=amounts, limits=st.sampled_from(sorted(LIMITS)))
    def reserve(self, key: str, tokens: int, limits: str) -> None:
        hold = self.model.get(key)
        ask = partial(self.ledger.reserve, key, Amount(tokens=tokens), LIMITS[limits])
        if hold and (hold.state in ("settled", "refunded") or hold.limits != limits):
            raised(ReservationError, ask)
        elif not self.fits(limits, tokens - (hold.tokens if hold else 0)):
            raised(BudgetExceededError, ask)
        else:
            whole = max(tokens, hold.tokens if hold else 0)
            self.model[key] = Hold(limits, whole, "open", self.clock())
            assert ask().amount == Amount(tokens=whole)

    @rule(key=keys, tokens=amounts)
    def extend(self, key: str, tokens: int) -> None:
        hold = self.model.get(key)
        ask = partial(self.ledger.extend, key, Amount(tokens=tokens))
        if not hold or hold.state in ("settled", "refunded"):
            raised(ReservationError, ask)
        elif not self.fits(hold.limits, tokens):
            raised(BudgetExceededError, ask)
        else:
            self.model[key] = Hold(hold.limits, hold.tokens + tokens, "open", self.clock())
            assert ask().state == "open"

    @rule(key=keys, share=st.floats(0, 1))
    def settle(self, key: str, share: float) -> None:
        """Within the bound, as backends that honour max_tokens do."""
        hold = self.model.get(key)
        spent = int(share * hold.tokens) if hold else 0
        again = hold is not None and hold.state == "settled" and hold.tokens == spent
        if not hold or hold.state == "refunded" or (hold.state == "settled" and not again):
            raised(ReservationError, lambda: self.ledger.settle(key, Amount(tokens=spent)))
        else:
            self.model[key] = Hold(hold.limits, spent, "settled", self.clock())
            assert self.ledger.settle(key, Amount(tokens=spent)).state == "settled"

    @rule(key=keys)
    def refund(self, key: str) -> None:
        hold = self.model.get(key)
        if not hold or hold.state == "settled":
            raised(ReservationError, lambda: self.ledger.refund(key))
        else:
            self.model[key] = Hold(hold.limits, 0, "refunded", self.clock())
            assert self.ledger.refund(key).amount == Amount()

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 600, -1, -59, -5_000]))
    def turn_the_clock(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def look(self) -> None:
        """Only looking books overdue leases; the sums below must hold whether or not anybody looked."""
        for hold in self.model.values():
            if hold.state == "open" and hold.touched <= self.clock() - TTL:
                hold.state = "expired"
        for scope in TOKENS:
            balance = self.ledger.balance(scope)
            assert balance.spent.tokens == self.total(scope, ("settled", "expired"))
            assert balance.reserved.tokens == self.total(scope, ("open",))
            assert balance.overshoot == Amount()
        for key, hold in self.model.items():
            held = self.ledger.reservation(key)
            assert held is not None
            assert (held.state, held.amount.tokens) == (hold.state, hold.tokens)

    @invariant()
    def limits_hold(self) -> None:
        for scope, ceiling in TOKENS.items():
            balance = self.look_at(scope)
            assert balance <= ceiling
            assert balance == self.total(scope, ("settled", "expired", "open"))

    def look_at(self, scope: str) -> int:
        """spent + reserved, read without booking overdue leases."""
        with self.ledger._store.transaction() as books:  # type: ignore[attr-defined]
            balance = books.balance(scope)
        return int(balance.spent.tokens + balance.reserved.tokens)

    def fits(self, limits: str, more: int) -> bool:
        return more <= 0 or all(
            self.total(limit.scope, ("settled", "expired", "open")) + more <= TOKENS[limit.scope]
            for limit in LIMITS[limits]
        )

    def total(self, scope: str, states: tuple[str, ...]) -> int:
        holds = (hold for hold in self.model.values() if hold.state in states)
        return sum(hold.tokens for hold in holds if any(limit.scope == scope for limit in LIMITS[hold.limits]))


class SqliteMachine(LedgerMachine):
    uri = "sqlite:///{}/ledger.db"

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open_again()


TestMemoryMachine = LedgerMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
