"""One step's reservation: what is held, what is spent, what is in flight - closed exactly once.

The account asks for ledger effects and never does anything itself. Every model call of a step goes through
`charged`, its verifier's calls included, so that there is one place where spend is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from governor.effects import CallModel, Extend, Now, Process, Refund, Reserve, Settle
from governor.errors import BackendError, LedgerError, MissingExtraError, ModelFileError
from governor.plan.bounds import bound, output_bound
from governor.records import Amount, Call, Limit, Reply, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Charge:
    """What a stretch of work used: tokens, micro-USD, calls, seconds."""

    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.usage + other.usage,
            self.micros + other.micros,
            self.calls + other.calls,
            self.seconds + other.seconds,
        )

    def __sub__(self, earlier: Charge) -> Charge:
        mine, theirs = self.usage, earlier.usage
        return Charge(
            Usage(
                mine.input_tokens - theirs.input_tokens,
                mine.output_tokens - theirs.output_tokens,
                mine.thinking_tokens - theirs.thinking_tokens,
                mine.cached_tokens - theirs.cached_tokens,
            ),
            self.micros - earlier.micros,
            self.calls - earlier.calls,
            self.seconds - earlier.seconds,
        )

    @property
    def amount(self) -> Amount:
        """The same in the ledger's dimensions; milliseconds are rounded up."""
        return Amount(self.usage.total_tokens, self.micros, math.ceil(self.seconds * 1000), self.calls)


def charge(call: Call, answer: Reply | BackendError) -> Charge:
    """What one call cost: as reported; at its bound where usage is unknown; nothing if it was never sent."""
    if isinstance(answer, BackendError) and not answer.sent:
        return Charge(seconds=answer.seconds)
    usage = answer.usage
    if usage is None or (isinstance(answer, Reply) and not answer.usage_known):
        most = bound(call)
        output = output_bound(call)
        return Charge(Usage(most.tokens - output, output), most.micros, 1, answer.seconds)
    return Charge(usage, call.rung.price.micros(usage), 1, answer.seconds)


@dataclass(slots=True)
class Account:
    """The reservation of the step `key` under `limits`. Mutable, owned by one loop."""

    key: str
    limits: Sequence[Limit]
    held: Amount = field(default_factory=Amount)
    total: Charge = field(default_factory=Charge)
    in_flight: Amount = field(default_factory=Amount)
    opened: bool = False
    off_the_books: bool = False
    """True after the ledger was unreachable and the policy lets the step go on without it."""

    def grant(self, amount: Amount) -> Process[None]:
        """Hold enough for `amount` on top of what is spent; BudgetExceededError when it does not fit."""
        if self.off_the_books:
            return
        if not self.opened:
            yield Reserve(self.key, amount, tuple(self.limits))
            self.opened, self.held = True, amount
            return
        missing = _shortfall(self.held, self.total.amount + amount)
        if missing != Amount():
            yield Extend(self.key, missing)
            self.held += missing

    def charged(self, call: Call) -> Process[Reply | BackendError]:
        """Make a call and book it. Until its answer is here, its whole bound counts as in flight."""
        self.in_flight = bound(call)
        answer: Reply | BackendError
        try:
            answer = yield CallModel(call)
        except BackendError as fault:
            answer = fault
        except (MissingExtraError, ModelFileError):
            self.in_flight = Amount()  # the model could not even be started: nothing was sent
            raise
        self.in_flight = Amount()
        self.total += charge(call, answer)
        return answer

    def metered(self, process: Process[T]) -> Process[T]:
        """Run a process (a verifier) with its model calls and its own time charged to this account."""
        started = yield Now()
        before = self.total.seconds
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                effect = process.throw(failure) if failure is not None else process.send(answer)
            except StopIteration as end:
                result: T = end.value
                break
            answer, failure = None, None
            try:
                if isinstance(effect, CallModel):
                    answer = yield from self.charged(effect.call)
                    if isinstance(answer, BackendError):
                        failure = answer
                else:
                    answer = yield effect
            except BaseException as cause:  # noqa: BLE001 - handed to the process, which raises it again or copes
                failure = cause
        ended = yield Now()
        own = ended - started - (self.total.seconds - before)
        self.total += Charge(seconds=max(0.0, own))
        return result

    def close(self) -> Process[None]:
        """Settle or refund; safe to call twice. What is still in flight is booked at its bound."""
        if not self.opened:
            return
        spent = self.total.amount + self.in_flight
        closing = Refund(self.key) if spent == Amount() else Settle(self.key, spent)
        self.opened = False
        try:
            yield closing
        except LedgerError:
            raise  # the lease runs out and books the bound: nothing more can be done from here
        except BaseException:
            # A signal interrupted the store in mid-work. Closing is idempotent, so it is simply done again.
            yield closing
            raise


def _shortfall(held: Amount, needed: Amount) -> Amount:
    return Amount(
        max(0, needed.tokens - held.tokens),
        max(0, needed.micros - held.micros),
        max(0, needed.millis - held.millis),
        max(0, needed.calls - held.calls),
    )
