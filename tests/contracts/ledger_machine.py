"""Random histories of a ledger beside a model of a few lines: a list of reservations, summed when asked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from governor.errors import BudgetExceededError, ReservationError
from governor.ledger import open_ledger
from governor.protocols import Ledger, Reservation
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock, raised

TTL = 60.0
WINDOW = 240.0
KEEP = 1e9  # the model forgets nothing
TOKENS = {"step": 60, "app": 100, "sliding": 90}
LIMITS = {
    "both": (Limit("step", tokens=60), Limit("app", tokens=100)),
    "app": (Limit("app", tokens=100),),
    "slid": (Limit("app", tokens=100), Limit("sliding", tokens=90, window=Window(sliding=WINDOW))),
}
GRAVITY = ("budget_busy", "budget_exceeded", "too_large")
keys = st.sampled_from("abcdef")
amounts = st.integers(0, 40)


@dataclass
class Hold:
    """A reservation of the model; `at` is when it was booked as spent, `left` says that it left the sliding window."""

    limits: str
    tokens: int
    state: str
    touched: float
    sent: bool = True
    at: float = 0.0
    left: bool = False

    def books_on(self, scope: str) -> bool:
        return any(limit.scope == scope for limit in LIMITS[self.limits])

    def reserved(self, scope: str) -> int:
        return self.tokens if self.state == "open" and self.books_on(scope) else 0

    def spent(self, scope: str) -> int:
        counts = self.state == "settled" or (self.state == "expired" and self.sent)
        live = scope != "sliding" or not self.left
        return self.tokens if counts and live and self.books_on(scope) else 0


class LedgerMachine(RuleBasedStateMachine):
    """Subclass it with the `uri` of a store; {} in it is a fresh folder."""

    uri = "memory://"

    @initialize()
    def open(self) -> None:
        self.clock = FrozenClock()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = self.open_again()
        self.model: dict[str, Hold] = {}
        self.last: Callable[[], Reservation] | None = None
        self.gone = -1e9  # the last grain that left the sliding window, once something was booked on it

    def open_again(self) -> Ledger:
        return open_ledger(self.uri.format(self.folder), clock=self.clock, ttl=TTL, keep=KEEP)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(key=keys, tokens=amounts, limits=st.sampled_from(sorted(LIMITS)), sent=st.booleans())
    def reserve(self, key: str, tokens: int, limits: str, sent: bool) -> None:
        hold = self.model.get(key)
        ask = partial(self.ledger.reserve, key, Amount(tokens=tokens), LIMITS[limits], sent=sent)
        if hold and (hold.state in ("settled", "refunded") or hold.limits != limits):
            raised(ReservationError, ask)
        else:
            self.hold(key, hold or Hold(limits, 0, "new", 0.0, sent=False), tokens, sent, ask, whole=True)

    @rule(key=keys, tokens=amounts, whole=st.booleans(), sent=st.booleans())
    def extend(self, key: str, tokens: int, whole: bool, sent: bool) -> None:
        hold = self.model.get(key)
        ask = partial(self.ledger.extend, key, Amount(tokens=tokens), whole=whole, sent=sent)
        if not hold or hold.state in ("settled", "refunded"):
            raised(ReservationError, ask)
        else:
            self.hold(key, hold, tokens if whole else hold.tokens + tokens, sent, ask, whole=whole)

    def hold(
        self, key: str, hold: Hold, tokens: int, sent: bool, ask: Callable[[], Reservation], *, whole: bool
    ) -> None:
        """What reserve and extend come to."""
        tokens = max(tokens, hold.tokens)
        kinds = [kind for limit in LIMITS[hold.limits] if (kind := self.refused(hold, limit.scope, tokens))]
        if kinds:
            refusal = raised(BudgetExceededError, ask)
            assert refusal.kind == max(kinds, key=GRAVITY.index)
        else:
            self.model[key] = Hold(hold.limits, tokens, "open", self.clock(), sent=hold.sent or sent)
            held = ask()
            assert (held.amount, held.state, held.sent) == (Amount(tokens=tokens), "open", hold.sent or sent)
            self.last = ask if whole else None

    def refused(self, hold: Hold, scope: str, tokens: int) -> str:
        """Why a limit refuses that `hold` comes to hold `tokens`; empty if it does not."""
        others = [one for one in self.model.values() if one is not hold]
        spent, reserved = (sum(part(one, scope) for one in others) for part in (Hold.spent, Hold.reserved))
        if tokens <= hold.spent(scope) + hold.reserved(scope) or spent + reserved + tokens <= TOKENS[scope]:
            return ""
        if tokens > TOKENS[scope]:
            return "too_large"
        return "budget_exceeded" if spent + tokens > TOKENS[scope] else "budget_busy"

    @rule(key=keys, share=st.floats(0, 1))
    def settle(self, key: str, share: float) -> None:
        """Within what is held, as backends that honour max_tokens do: of what was given back, nothing."""
        hold = self.model.get(key)
        given_back = hold is not None and hold.state == "expired" and not hold.sent
        spent = int(share * hold.tokens) if hold and not given_back else 0
        ask = partial(self.ledger.settle, key, Amount(tokens=spent))
        again = hold is not None and hold.state == "settled" and hold.tokens == spent
        if not hold or hold.state == "refunded" or (hold.state == "settled" and not again):
            raised(ReservationError, ask)
        else:
            if not again:
                at, left = (hold.at, hold.left) if hold.state == "expired" else (self.clock(), False)
                self.model[key] = Hold(hold.limits, spent, "settled", 0.0, at=at, left=left)
            assert ask().state == "settled"
            self.last = ask

    @rule(key=keys)
    def refund(self, key: str) -> None:
        hold = self.model.get(key)
        ask = partial(self.ledger.refund, key)
        if not hold or hold.state == "settled":
            raised(ReservationError, ask)
        else:
            self.model[key] = Hold(hold.limits, 0, "refunded", 0.0)
            assert ask().amount == Amount()
            self.last = ask

    @precondition(lambda self: self.last is not None)
    @rule(times=st.integers(1, 3))
    def repeat(self, times: int) -> None:
        """A message that was delivered twice changes nothing (nor the clock: a renewed lease is the same one)."""
        assert self.last is not None
        before = [self.ledger.balance(scope) for scope in TOKENS]
        answers = {repr(self.last()) for _ in range(times)}
        assert len(answers) == 1
        assert [self.ledger.balance(scope) for scope in TOKENS] == before

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 240, 600, -1, -59, -5_000]))
    def turn_the_clock(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.last = None

    @invariant()
    def agrees(self) -> None:
        """Spent + reserved <= limit; nothing lost, nothing twice; no lease left past its time."""
        self.pass_time()
        for scope, ceiling in TOKENS.items():
            balance = self.ledger.balance(scope)
            assert balance.spent.tokens == sum(hold.spent(scope) for hold in self.model.values())
            assert balance.reserved.tokens == sum(hold.reserved(scope) for hold in self.model.values())
            assert balance.spent.tokens + balance.reserved.tokens <= ceiling
            assert balance.overshoot == Amount()
        for key, hold in self.model.items():
            held = self.ledger.reservation(key)
            assert held is not None
            assert (held.state, held.amount.tokens) == (hold.state, hold.tokens)

    def pass_time(self) -> None:
        """What the clock alone does to the model."""
        now, grain = self.clock(), WINDOW / 60
        first = (now - WINDOW) // grain
        if any(hold.books_on("sliding") for hold in self.model.values()):
            self.gone = max(self.gone, first - 1)
        for hold in self.model.values():
            if hold.state == "open" and hold.touched <= now - TTL:
                hold.state, hold.at, hold.left = "expired", hold.touched + TTL, False
                if first <= hold.at // grain <= self.gone:  # the clock was set back: it stays as if booked later
                    hold.at = (self.gone + 1.5) * grain
            if hold.state in ("settled", "expired") and hold.at // grain < first:
                hold.left = True
