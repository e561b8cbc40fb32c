"""One step's reservation: what is held, what is spent, what is in flight - closed exactly once.

The account asks for ledger effects and never does anything itself. Every model call of a step goes through
`charged`, its verifier's calls included, so that there is one place where spend is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from governor.effects import (
    CallModel,
    Cut,
    Effect,
    Extend,
    Now,
    Paused,
    Process,
    Refund,
    Reserve,
    Resume,
    Settle,
    relayed,
)
from governor.errors import (
    BackendError,
    BackendRequestError,
    BackendTimeoutError,
    BudgetExceededError,
    LedgerError,
    LedgerUnavailableError,
    MissingExtraError,
    ModelFileError,
)
from governor.ledger.admission import NOTHING, larger, minus
from governor.ledger.refusals import BUSY_SECONDS
from governor.plan.bounds import bound, output_bound, over
from governor.plan.reach import Reach
from governor.protocols import Reservation
from governor.records import Amount, Call, Limit, Reply, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Charge:
    """What a stretch of work used: tokens, micro-USD, calls, seconds.

    `unknown` are output tokens that nobody reported: thought or answer, so that they count as both.
    """

    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0
    unknown: int = 0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.usage + other.usage,
            self.micros + other.micros,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.unknown + other.unknown,
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
            self.unknown - earlier.unknown,
        )

    @property
    def amount(self) -> Amount:
        """The same in the ledger's dimensions; milliseconds are rounded up."""
        used = self.usage
        return Amount(
            tokens=used.total_tokens,
            micros=self.micros,
            millis=math.ceil(self.seconds * 1000),
            calls=self.calls,
            input=used.input_tokens,
            thinking=used.thinking_tokens + self.unknown,
            answer=used.answer_tokens,
        )


def charge(call: Call, answer: Reply | BackendError, output: int | None = None) -> Charge:
    """What one call cost: as reported; at its bound where usage is unknown; nothing if it was never sent.

    `output` is how many tokens the call could come to where that is less than its bound.
    """
    if isinstance(answer, BackendError) and not answer.sent:
        return Charge(seconds=answer.seconds)
    usage = answer.usage
    if usage is None or (isinstance(answer, Reply) and not answer.usage_known):
        return _at_bound(call, answer.seconds, output)
    return Charge(usage, call.rung.price.micros(usage), 1, answer.seconds)


def _at_bound(call: Call, seconds: float, output: int | None = None) -> Charge:
    output = output_bound(call) if output is None else output
    most = bound(call, output)
    return Charge(Usage(most.input, output), most.micros, 1, seconds, unknown=output)


@dataclass(slots=True)
class Account:
    """The reservation of the step `key` under `limits`. Mutable, owned by one loop.

    `ends` is the step's deadline on the clock of `Now`: no call's time limit goes beyond it. `each` limits every
    single call, whoever asks for it. `fails_closed`: without its ledger the step ends.
    """

    key: str
    limits: Sequence[Limit]
    ends: float | None = None
    each: Limit | None = None
    fails_closed: bool = True
    held: Amount = field(default_factory=Amount)
    total: Charge = field(default_factory=Charge)
    in_flight: Amount = field(default_factory=Amount)
    most: Amount | None = None
    """What the step could come to in all when the ledger last refused it; None before."""
    cut: LedgerError | None = None
    """Why the last stream could not be extended; None where it could."""
    opened: bool = False
    scopes: tuple[str, ...] = ()
    """What the reservation books on, each once, as the ledger says: a resumed step stays in its first period."""
    off_the_books: bool = False
    """True after the ledger was unreachable and the policy lets the step go on without it."""

    @property
    def left(self) -> Amount | None:
        """What the next attempt may still use, as far as a refusal told; None before one."""
        return None if self.most is None else _shortfall(self.total.amount, self.most)

    def grant(self, amount: Amount) -> Process[None]:
        """Hold enough for `amount` on top of what is spent; BudgetExceededError when it does not fit."""
        try:
            yield from self._hold(amount)
        except BudgetExceededError as refusal:
            self.most = self.held + (refusal.left or Amount())
            raise

    def grant_reach(self, call: Call, reach: Reach) -> Process[Reach]:
        """Hold what a stream may reach, or as much as is left where nobody else holds any of it.

        As long as others do, BudgetExceededError says `budget_busy`: what they don't use comes back.
        """
        try:
            yield from self.grant(_reached(call, reach))
        except BudgetExceededError as refusal:
            if refusal.others:
                raise _busy(refusal) from None
            fitting = reach.shortened(reach.least, self._fitting(call, refusal))
            reach = fitting or replace(reach, tokens=reach.least)  # whose refusal tells why
            yield from self.grant(_reached(call, reach))
        return reach

    def _hold(self, amount: Amount) -> Process[None]:
        if self.off_the_books:
            return
        if not self.opened:
            opened: Reservation = yield Reserve(self.key, amount, tuple(self.limits))
            self.opened, self.held = True, amount
            self.scopes = tuple(dict.fromkeys(limit.scope for limit in opened.limits))
            return
        missing = _shortfall(self.held, self.total.amount + amount)
        if missing != Amount():
            yield Extend(self.key, missing)
            self.held += missing

    def _fitting(self, call: Call, refusal: BudgetExceededError) -> Callable[[Reach], bool]:
        """Whether a reach fits what a refusal left."""
        room = refusal.left or Amount()
        return lambda reach: not over(_shortfall(self.held, self.total.amount + _reached(call, reach)), room)

    def charged(self, call: Call, reach: Reach | None = None) -> Process[Reply | BackendError]:
        """Make a call and book it. Until its answer is here, all it may come to counts as in flight.

        With `reach`, which is held, it is a stream that is extended as it runs, and cut where that is refused.
        """
        if self.ends is not None:
            left = self.ends - (yield Now())
            if left <= 0:
                return BackendTimeoutError("the step's deadline has passed", model=call.rung.model, sent=False)
            call = replace(call, timeout=min(call.timeout, left))
        if self.each is not None and (passed := over(bound(call), replace(self.each, millis=None))):
            return BackendRequestError(f"over the limit of a call ({passed})", model=call.rung.model, sent=False)
        self.in_flight = bound(call, reach.tokens if reach else None)
        answer: Reply | BackendError
        try:
            answer = yield from self._streamed(call, reach) if reach else _called(call)
        except BackendError as fault:
            answer = fault
        except (MissingExtraError, ModelFileError):
            self.in_flight = Amount()  # the model could not even be started: nothing was sent
            raise
        except Exception:
            # Not one of a backend's own errors: who knows what was sent? A verifier may go on after it.
            self.total += _at_bound(call, call.timeout, self._most_output(reach))
            self.in_flight = Amount()
            raise
        self.total += charge(call, answer, self._most_output(reach))
        self.in_flight = Amount()
        return answer

    def _most_output(self, reach: Reach | None) -> int | None:
        """Output tokens to which a stream's reach has grown."""
        return None if reach is None else self.in_flight.answer

    def _streamed(self, call: Call, reach: Reach) -> Process[Reply]:
        self.cut = None
        answer: Reply | Paused = yield CallModel(call, reach.until())
        while isinstance(answer, Paused):
            reach = yield from self._lengthened(call, reach, answer.tokens)
            if answer.tokens > reach.tokens:
                answer = yield Cut()
            else:
                answer = yield Resume(reach.until(answer.tokens))
        return answer

    def _lengthened(self, call: Call, reach: Reach, at: int) -> Process[Reach]:
        """The reach of a stream that stands at `at` tokens: a step more, at the very end what is left, or as it is."""
        longer = yield from self._extended(call, reach.longer(at))
        refusal = self.cut
        if longer is None and at > reach.tokens and isinstance(refusal, BudgetExceededError):
            last = reach.longer(at).shortened(at, self._fitting(call, refusal))
            longer = (yield from self._extended(call, last)) if last is not None else None
            self.cut = refusal
        if longer is None:
            return reach
        self.in_flight = bound(call, longer.tokens)
        return longer

    def _extended(self, call: Call, longer: Reach) -> Process[Reach | None]:
        """Hold a longer reach; None, and why in `cut`, where the ledger refuses or can't be reached."""
        self.cut = None
        try:
            yield from self._hold(_reached(call, longer))
        except LedgerError as fault:
            if self.fails_closed or not isinstance(fault, LedgerUnavailableError):
                self.cut = fault
                return None
            self.off_the_books = True
        return longer

    def metered(self, process: Process[T]) -> Process[T]:
        """Run a process (a verifier) with its model calls and its own time charged to this account."""
        started, before = (yield Now()), self.total.seconds
        try:
            result = yield from relayed(process, self._answered)
        except Exception:
            yield from self._timed(started, before)
            raise
        yield from self._timed(started, before)
        return result

    def _answered(self, effect: Effect) -> Process[Any]:
        if not isinstance(effect, CallModel):
            return (yield effect)
        answer = yield from self.charged(effect.call)
        if isinstance(answer, BackendError):
            raise answer
        return answer

    def _timed(self, started: float, before: float) -> Process[None]:
        """Charge the time since `started` that no call was charged for."""
        ended = yield Now()
        self.total += Charge(seconds=max(0.0, ended - started - (self.total.seconds - before)))

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


def _called(call: Call) -> Process[Reply]:
    reply: Reply = yield CallModel(call)
    return reply


def _reached(call: Call, reach: Reach) -> Amount:
    return bound(call, reach.tokens) + reach.beside


def _busy(refusal: BudgetExceededError) -> BudgetExceededError:
    """The refusal of a call that could do with less, while others hold some."""
    return BudgetExceededError(
        refusal.scope,
        refusal.dimension,
        refusal.limit,
        refusal.asked,
        refusal.left,
        kind="budget_busy",
        retry_after=BUSY_SECONDS,
        others=refusal.others,
    )


def _shortfall(held: Amount, needed: Amount) -> Amount:
    """What is missing of `needed`, never below zero."""
    return larger(minus(needed, held), NOTHING)
