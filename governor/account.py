"""One step's reservation: what is held, what is spent, what is in flight - closed exactly once.

The account asks for ledger effects and never does anything itself. Every model call of a step goes through
`charged`, its verifier's calls included, so that there is one place where spend is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from governor.charge import Charge, at_bound, charge
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
from governor.plan.bounds import bound, over
from governor.plan.reach import Reach
from governor.protocols import Reservation
from governor.records import Amount, Call, Limit, Reply, Share

T = TypeVar("T")


@dataclass(slots=True)
class _Book:
    """One reservation of a step: what is held, and what was spent. Mutable, owned by one account."""

    key: str
    limits: Sequence[Limit]
    held: Amount = NOTHING
    total: Charge = field(default_factory=Charge)
    opened: bool = False
    scopes: tuple[str, ...] = ()

    def hold(self, amount: Amount) -> Process[None]:
        """Hold enough for `amount` on top of what is spent; LedgerError where that is refused."""
        if not self.opened:
            opened: Reservation = yield Reserve(self.key, amount, tuple(self.limits))
            self.opened, self.held = True, amount
            self.scopes = tuple(dict.fromkeys(limit.scope for limit in opened.limits))
            return
        missing = self.missing(amount)
        if missing != NOTHING:
            yield Extend(self.key, missing)
            self.held += missing

    def missing(self, amount: Amount) -> Amount:
        """What `amount` more would need beside what is held."""
        return shortfall(self.held, self.total.amount + amount)

    def closing(self, in_flight: Amount) -> Settle | Refund:
        """What closes it, once: whatever happens then, it is not closed a second time."""
        self.opened = False
        spent = self.total.amount + in_flight
        return Refund(self.key) if spent == NOTHING else Settle(self.key, spent)


@dataclass(slots=True)
class Account:
    """The reservations of the step `key`: one under `limits`, and one for each model that has limits of its own.

    Mutable, owned by one loop. `models` are these limits by the model's name. `ends` is the step's deadline on the
    clock of `Now`: no call's time limit goes beyond it. `each` limits every single call, whoever asks for it.
    `fails_closed`: without its ledger the step ends.
    """

    key: str
    limits: Sequence[Limit]
    models: Mapping[str, Sequence[Limit]] = field(default_factory=dict)
    ends: float | None = None
    each: Limit | None = None
    fails_closed: bool = True
    in_flight: Amount = NOTHING
    most: Amount | None = None
    """What the step could come to in all when the ledger last refused it; None before."""
    cut: LedgerError | None = None
    """Why the last stream could not be extended; None where it could."""
    off_the_books: bool = False
    """True where the step's calls book for themselves, and after the ledger was unreachable and the policy lets the
    step go on without it."""
    _whole: _Book = field(init=False)
    _parts: dict[str, _Book] = field(init=False)
    _flying: str = ""

    def __post_init__(self) -> None:
        self._whole = _Book(self.key, self.limits)
        self._parts = {model: _Book(f"{self.key}#{model}", limits) for model, limits in self.models.items()}

    @property
    def total(self) -> Charge:
        """What the step has spent so far."""
        return self._whole.total

    @property
    def opened(self) -> bool:
        """Whether anything is held for the step as a whole."""
        return self._whole.opened

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the step is booked on, each once, as the ledger says: a resumed step stays in its first period."""
        return self._whole.scopes

    @property
    def shares(self) -> tuple[Share, ...]:
        """What was booked on the budgets of single models."""
        parts = self._parts.items()
        return tuple(Share(model, part.total.amount, part.scopes) for model, part in parts if part.scopes)

    @property
    def left(self) -> Amount | None:
        """What the next attempt may still use, as far as a refusal told; None before one."""
        return None if self.most is None else shortfall(self.total.amount, self.most)

    def grant(self, amount: Amount, model: str = "", part: Amount = NOTHING) -> Process[None]:
        """Hold enough for `amount` on top of what is spent, `part` of it of a model; BudgetExceededError if not."""
        try:
            yield from self._hold(amount, model, part)
        except BudgetExceededError as refusal:
            if refusal.scope not in self._scopes_of(model):  # what is left of one model says nothing of others
                self.most = self._whole.held + (refusal.left or NOTHING)
            raise

    def grant_reach(self, call: Call, reach: Reach) -> Process[Reach]:
        """Hold what a stream may reach, or as much as is left where nobody else holds any of it.

        As long as others do, BudgetExceededError says `budget_busy`: what they don't use comes back.
        """
        try:
            yield from self._grant_reached(call, reach)
        except BudgetExceededError as refusal:
            if refusal.others:
                raise _busy(refusal) from None
            fitting = reach.shortened(reach.least, self._fitting(call, refusal))
            reach = fitting or replace(reach, tokens=reach.least)  # whose refusal tells why
            yield from self._grant_reached(call, reach)
        return reach

    def _grant_reached(self, call: Call, reach: Reach) -> Process[None]:
        part = bound(call, reach.tokens)
        yield from self.grant(part + reach.beside, call.rung.model, part)

    def _hold(self, amount: Amount, model: str, part: Amount) -> Process[None]:
        """The model's part first: it is the more likely to be refused, and then nothing more is held."""
        if self.off_the_books:
            return
        if model in self._parts:
            yield from self._parts[model].hold(part)
        yield from self._whole.hold(amount)

    def _fitting(self, call: Call, refusal: BudgetExceededError) -> Callable[[Reach], bool]:
        """Whether a reach fits what a refusal left."""
        room, model = refusal.left or NOTHING, call.rung.model
        if refusal.scope in self._scopes_of(model):
            return lambda reach: not over(self._parts[model].missing(bound(call, reach.tokens)), room)
        return lambda reach: not over(self._whole.missing(bound(call, reach.tokens) + reach.beside), room)

    def _scopes_of(self, model: str) -> set[str]:
        return {limit.scope for limit in self.models.get(model, ())}

    def charged(self, call: Call, reach: Reach | None = None) -> Process[Reply | BackendError]:
        """Make a call and book it. Until its answer is here, all it may come to counts as in flight.

        With `reach`, which is held, it is a stream that is extended as it runs, and cut where that is refused.
        """
        model = call.rung.model
        if self.ends is not None:
            left = self.ends - (yield Now())
            if left <= 0:
                return BackendTimeoutError("the step's deadline has passed", model=model, sent=False)
            call = replace(call, timeout=min(call.timeout, left))
        if self.each is not None and (passed := over(bound(call), replace(self.each, millis=None))):
            return BackendRequestError(f"over the limit of a call ({passed})", model=model, sent=False)
        most = bound(call, reach.tokens if reach else None)
        if refusal := (yield from self._uncovered(model, most)):
            return BackendRequestError(f"over the budget of {model} ({refusal})", model=model, sent=False)
        self.in_flight, self._flying = most, model
        answer: Reply | BackendError
        try:
            answer = yield from self._streamed(call, reach) if reach else _called(call)
        except BackendError as fault:
            answer = fault
        except (MissingExtraError, ModelFileError):
            self.in_flight = NOTHING  # the model could not even be started: nothing was sent
            raise
        except Exception:
            # Not one of a backend's own errors: who knows what was sent? A verifier may go on after it.
            self._book(at_bound(call, call.timeout, self._most_output(reach)))
            raise
        self._book(charge(call, answer, self._most_output(reach)))
        return answer

    def _uncovered(self, model: str, most: Amount) -> Process[LedgerError | None]:
        """Hold what a call needs of its model's own budget where nobody did: a verifier's calls. None: it is held."""
        if model not in self._parts or self.off_the_books:
            return None
        try:
            yield from self._parts[model].hold(most)
        except LedgerError as fault:
            if self.fails_closed or not isinstance(fault, LedgerUnavailableError):
                return fault
            self.off_the_books = True
        return None

    def _book(self, used: Charge) -> None:
        """What was in flight has come to this."""
        self._whole.total += used
        if self._flying in self._parts:
            self._parts[self._flying].total += used
        self.in_flight = NOTHING

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
        part = bound(call, longer.tokens)
        try:
            yield from self._hold(part + longer.beside, call.rung.model, part)
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
        self._whole.total += Charge(seconds=max(0.0, ended - started - (self.total.seconds - before)))

    def close(self) -> Process[None]:
        """Settle or refund all; safe to call twice. What is still in flight is booked at its bound."""
        failed: BaseException | None = None
        for closing in self._closings():
            try:
                yield closing
            except LedgerError as fault:
                failed = failed or fault  # the lease runs out and books the bound: nothing more can be done from here
            except BaseException as interruption:  # noqa: BLE001 - raised once everything is closed
                # A signal interrupted the store in mid-work. Closing is idempotent, so it is simply done again.
                yield closing
                failed = interruption
        if failed is not None:
            raise failed

    def _closings(self) -> list[Settle | Refund]:
        books = [(self._whole, self.in_flight)] + [
            (part, self.in_flight if model == self._flying else NOTHING) for model, part in self._parts.items()
        ]
        return [book.closing(in_flight) for book, in_flight in books if book.opened]


def _called(call: Call) -> Process[Reply]:
    reply: Reply = yield CallModel(call)
    return reply


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


def shortfall(held: Amount, needed: Amount) -> Amount:
    """What is missing of `needed`, never below zero."""
    return larger(minus(needed, held), NOTHING)
