"""What users plug in. Each protocol is as small as its work; none has to be inherited from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from governor.effects import Process
from governor.records import (
    Amount,
    Attempt,
    BacktrackMode,
    Call,
    Forecast,
    Limit,
    Outcome,
    Plan,
    Reply,
    Rung,
    Step,
    Stop,
    Usage,
    Verdict,
    Window,
)
from governor.stops.tokens import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """How much is reserved for a call whose stream can be cut: this `quantile` of its forecast output tokens.

    While it runs it is extended by `step` tokens at a time, and cut where that is refused. `rungs` are those whose
    streams can be cut; all other calls reserve their bound.
    """

    quantile: float = 0.95
    step: int = 64
    rungs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the policy grants one step: the ladder it may climb, at which price, inside which limits.

    Either `dial` (0 quality first .. 1 thrift) or `keep` (share of the top rung's quality to keep, at the
    lowest cost) is set; neither where a certificate has yet to rule. `harm` is L of the allocation objective, the
    loss of a wrong accepted answer.
    `call` limits each single model request, `limits` are the ledger's scopes (step, session, app). `share` is
    the governed share of sessions (1 = all, 0 = shadow). `modes` lists allowed backtracks.
    """

    app: str
    ladder: tuple[Rung, ...]
    dial: float | None = 0.3
    keep: float | None = None
    harm: float = 0.5
    call: Limit | None = None
    limits: tuple[Limit, ...] = ()
    models: tuple[tuple[str, tuple[Limit, ...]], ...] = ()
    """Limits of single models, by name: on what this step calls of them."""
    on_exhausted: Literal["refuse", "degrade", "best_so_far"] = "best_so_far"
    reserve: Literal["attempt", "ladder"] = "attempt"
    streams: Streams = Streams()
    mode: Literal["on", "shadow", "canary"] = "on"
    share: float = 1.0
    fail: Literal["open", "closed"] = "closed"
    modes: tuple[BacktrackMode, ...] = ("continue", "more", "feedback", "fresh", "again", "agree", "compare", "verify")
    max_attempts: int = 6
    deadline: float | None = None
    baseline: str | None = None
    continues: frozenset[str] = frozenset()
    """Ids of rungs whose backend can go on from a truncated reply."""
    one_thought: bool = False
    """The rungs are growing budgets of one thought: a higher one goes on where the last stopped, for what it adds."""
    difficulty: float | None = None
    """A difficulty the policy states for this node (0 trivial .. 1 hardest), instead of the estimated mean."""
    streamed: bool = False
    """Text is shown to a reader as it comes: once some was, it may be gone on from but not taken back."""
    latency: float = 0.0
    """What a second of waiting is worth, in micro-USD."""
    mu: float = 0.0
    """Shadow price of the period's budget (`governor.plan.pacing`), in value per micro-USD (per token where nothing
    has a price): what a right answer is worth is 1."""
    nested: bool = False
    """The step's calls are steps of their own, which reserve and book what they spend: it books nothing itself."""
    audit: bool = False
    """The step is one whose answer the application promises to label (`Governor.feedback`)."""
    reason: str = ""
    """Which rule of the policy matched, and what set the dial, for `explain`."""

    @property
    def limits_money(self) -> bool:
        """Whether any limit, of the step or of a model, is of money: then nothing goes on without the ledger."""
        every = (*self.limits, *(limit for _, limits in self.models for limit in limits))
        return any(limit.micros is not None for limit in every)

    def rung(self, rung_id: str) -> Rung:
        """The rung with this id; KeyError if the ladder has none."""
        for rung in self.ladder:
            if rung.id == rung_id:
                return rung
        raise KeyError(rung_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a step stands when the planner is asked: its terms, what was tried, what is left.

    `left` is what may still be used, as far as a refusal of the ledger told (None: no refusal yet), `refused` the
    rungs that it refused; `seconds_left` the time to the deadline. `sensitivity` is P(accept | correct) and
    `false_accept` P(accept | wrong) of the step's verifier; both are 1 where no verifier applies. `redraws` says that
    the verifier's errors are drawn anew when it is asked again.
    """

    step: Step
    terms: Terms
    attempts: tuple[Attempt, ...] = ()
    left: Amount | None = None
    refused: frozenset[str] = frozenset()
    seconds_left: float | None = None
    sensitivity: float = 1.0
    false_accept: float = 1.0
    redraws: bool = False

    @property
    def verified(self) -> bool:
        """Whether a verifier applies."""
        return self.sensitivity < 1.0 or self.false_accept < 1.0


class Belief(Protocol):
    """What is believed of a step's difficulty, updated by each verdict. Immutable."""

    @property
    def difficulty(self) -> float:
        """Posterior mean difficulty, 0 (trivial) to 1 (hardest)."""
        ...

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in a few words each, strongest first."""
        ...

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        """One forecast per rung of the ladder, in ladder order (index left at 0)."""
        ...

    def after(self, rung: Rung, decision: str, situation: Situation) -> Belief:
        """The belief after what the last of `situation.attempts` showed.

        `decision` is "reject" (or "accept") of the step's verifier, or "agree" or "disagree" for a second sample
        that was compared; one that a belief does not know changes nothing.
        """
        ...


class Estimator(Protocol):
    """Step -> belief. Pure: no I/O, no clock."""

    def estimate(self, step: Step, terms: Terms) -> Belief: ...


class Planner(Protocol):
    """Belief + situation -> the next plan, or a stop. Pure."""

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop: ...


@runtime_checkable
class Verifier(Protocol):
    """Reply -> verdict, as a process: a check without I/O simply yields nothing.

    `sensitivity` = P(accept | correct), `false_accept` = P(accept | wrong): assumed until measured.
    `needs_whole_answer` is False only for verifiers that can watch a stream (none of a reply's text is
    then held back).
    """

    @property
    def name(self) -> str: ...

    @property
    def sensitivity(self) -> float: ...

    @property
    def false_accept(self) -> float: ...

    @property
    def needs_whole_answer(self) -> bool: ...

    @property
    def wants_logprobs(self) -> bool: ...

    def bound(self, call: Call) -> Amount:
        """The most that verifying one reply to `call` can spend."""
        ...

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]: ...


@runtime_checkable
class Redrawn(Protocol):
    """A Verifier whose errors are independent from one call to the next, as a sampling judge's are."""

    @property
    def redraws(self) -> bool: ...


@runtime_checkable
class Foreseeing(Protocol):
    """A Verifier that may tell from how an answer begins that it won't be accepted.

    `foresees`: whether it can at all. `doubts` says why no answer to the step that begins with `text` is accepted, or
    nothing while one may be: never of a text whose whole answer would pass. It may take it that an answer calls a tool
    only where the step offers one, and ends no thought that it has not begun (`</think>` without its opening tag).
    """

    @property
    def foresees(self) -> bool: ...

    def doubts(self, step: Step, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed reply. `thinking` deltas are never part of the answer.

    `usage` is what the call has come to with this piece, where the backend counts as it goes (see Counting). `tokens`
    are the piece's, where the call asked for their log-probabilities.
    """

    text: str = ""
    thinking: str = ""
    usage: Usage | None = None
    tokens: tuple[Token, ...] = ()


class Backend(Protocol):
    """Call -> reply, in both colours. `stream` yields deltas and ends with the whole Reply."""

    def call(self, call: Call) -> Reply: ...

    async def acall(self, call: Call) -> Reply: ...

    def stream(self, call: Call) -> Iterator[Delta | Reply]: ...

    def astream(self, call: Call) -> AsyncIterator[Delta | Reply]: ...

    def continues(self, rung: Rung) -> bool:
        """Whether a truncated reply of this rung can be resumed from its text (`Call.prefix`)."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Counting(Protocol):
    """A Backend that can tell the tokens of a stream while it runs, so that it can be cut at an exact number."""

    def counts(self, rung: Rung) -> bool:
        """Whether every piece of this rung's streams has its `usage`, and closing a stream ends the generation."""
        ...


@runtime_checkable
class Stopping(Protocol):
    """A Backend whose servers may run stop rules themselves, so that the client need not."""

    def stops(self, rung: Rung) -> bool:
        """Whether every rule of `rung.stops` is carried out by the server; it then tells by its phrase which acted."""
        ...


@runtime_checkable
class Foresighted(Protocol):
    """A Backend that can tell beforehand that calls of a rung would all fail."""

    def ready(self, rung: Rung) -> None:
        """Buys nothing; a server of one's own may be asked what it honours.

        Raises MissingExtraError, ModelFileError or BackendError naming what is absent.
        """
        ...


@runtime_checkable
class Pressed(Protocol):
    """A Backend that knows how busy the engines behind it are."""

    def pressure(self, rung: Rung) -> Callable[[], float] | None:
        """What asks how busy the rung's engine is, 0 (idle) to 1 (full), without failing; None where nothing tells."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An open or closed hold.

    `amount` is what is held while open, what counts as spent once expired (nothing of it where `sent` is False), and
    what was spent once settled.
    """

    key: str
    amount: Amount
    state: Literal["open", "settled", "refunded", "expired"]
    limits: tuple[Limit, ...] = ()
    sent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Sums of one scope: `spent` (settled, or expired at its bound) and `reserved` (open holds).

    `spent` is what counts now: of a sliding window what has not left it. `overshoot` is the part of all that was ever
    spent here by which settlements passed what was held for them, `expired` the number of leases that ran out.
    """

    scope: str
    spent: Amount = Amount()
    reserved: Amount = Amount()
    overshoot: Amount = Amount()
    expired: int = 0
    window: Window = Window()


class Ledger(Protocol):
    """reserve -> extend -> settle or refund, atomically over every limit of the reservation.

    The contract is `governor.testing.LedgerContract`, in words docs/ledger.md. `now` never appears: a store takes a
    clock when it is made, so that tests can turn it. Errors: BudgetExceededError for a refusal (see its `kind`), after
    which nothing has changed; ReservationError for an unknown key or one that was closed otherwise;
    LedgerUnavailableError for a store that can't be reached or written: the operation then has happened whole or not
    at all, and may be repeated.
    """

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        """Open a hold, or take up the open or expired one of this key: the larger amount holds, the lease begins anew.

        With `sent=False` nothing has been sent yet: a lease that runs out so is given back. Otherwise it counts as
        spent.
        """
        ...

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        """Hold `amount` more, renew the lease and, unless `sent` is False, mark it as sent (for good).

        With `whole`, `amount` is what is to be held in all, and less than is held changes nothing: such an extension
        may be repeated and overtaken by a later one. One without may not: it holds more each time.
        """
        ...

    def settle(self, key: str, spent: Amount) -> Reservation:
        """Book what was spent and free the rest; the first settlement stands, an equal one changes nothing."""
        ...

    def refund(self, key: str) -> Reservation:
        """Free the whole hold; once more changes nothing."""
        ...

    def reservation(self, key: str) -> Reservation | None: ...

    def balance(self, scope: str) -> Balance: ...

    def close(self) -> None: ...


class AwaitedLedger(Protocol):
    """The operations of a Ledger that change it, awaited in one event loop; its contract is the same."""

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation: ...

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation: ...

    async def settle(self, key: str, spent: Amount) -> Reservation: ...

    async def refund(self, key: str) -> Reservation: ...

    async def close(self) -> None: ...


@runtime_checkable
class Auditable(Protocol):
    """A Ledger that shows all it holds, and whose sums a person may set; those that Governor brings are."""

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """The sums of every scope that is remembered and begins with `prefix`, sorted by scope."""
        ...

    def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        """Every reservation that is remembered and whose key begins with `prefix`, sorted by key."""
        ...

    def reset(self, scope: str, spent: Amount = ...) -> Balance:
        """Set what counts as spent (default nothing) as if booked now, and the overshoot to nothing.

        Holds stay. A settlement that replaces a booking of before the reset never takes the sum below zero.
        """
        ...


@runtime_checkable
class Rebuildable(Protocol):
    """A Ledger that notices when its books were lost, and then answers with LedgerLostError until they are rebuilt."""

    def rebuild(self, balances: Iterable[Balance]) -> None:
        """Begin new books with these sums as spent; what was held is dropped."""
        ...


@runtime_checkable
class Shelf(Protocol):
    """Small values that replicas share, by compare-and-set; the ledgers that Governor brings are shelves too.

    The contract is `governor.testing.ShelfContract`; `governor.shelf.update` is the loop that changes a value.
    LedgerUnavailableError means that the store can't be reached, LedgerError that a value is damaged or too large.
    """

    def load(self, key: str) -> tuple[bytes, int] | None:
        """The value and its version (positive); None if there is none, or if its time to live is over."""
        ...

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        """Keep `value` if the stored version is still `version` (0: there is none); False if it is another.

        At most `governor.shelf.LARGEST` bytes. `ttl` is in seconds from now; None keeps it for good.
        """
        ...


class Sink(Protocol):
    """Takes each finished attempt and outcome. Raises RecordError when it can't be kept."""

    def emit(self, step: Step, record: Attempt | Outcome) -> None: ...

    def close(self) -> None: ...


class Tracer(Protocol):
    """Opens and closes nested spans."""

    @property
    def recording(self) -> bool:
        """Whether anybody is told of the spans; where nobody is, one may be closed in another context than it began."""
        ...

    def enter(self, name: str, attributes: Mapping[str, Any]) -> None: ...

    def exit(self, attributes: Mapping[str, Any], error: str) -> None: ...
