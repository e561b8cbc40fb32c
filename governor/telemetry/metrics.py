"""OpenTelemetry metrics of budgets, counted where the loop's effects meet the ledger: the same for every store.

Counters and sums of this process, to be added up over replicas:

    governor.budget.spent.*              settled, in a scope's dimension           counter
    governor.budget.reserved.*           held now by steps of this process         up-down counter
    governor.budget.overshoot.*          settled beyond what was held; always 0    counter
    governor.budget.refused              refusals, by governor.refusal.kind        counter
    governor.budget.expired_leases       leases that ran out, as the store says    observable gauge

The last is read from the store, the same by every replica: a maximum, not a sum. A step books on several scopes: sum
over one `governor.scope.kind` only. Nothing here needs the SDK: without one, the API's instruments do nothing.
Source: OpenTelemetry semantic conventions for metrics (names, units in UCUM, annotations in braces).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from governor.effects import Extend, Refund, Reserve, Settle
from governor.errors import BudgetExceededError, LedgerError
from governor.ledger.admission import NOTHING, larger, minus
from governor.ledger.exposition import kind_of
from governor.ledger.standing import UNITS
from governor.ledger.sums import DIMENSIONS, booking, figures
from governor.protocols import Auditable, Ledger, Reservation
from governor.records import Amount

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation, UpDownCounter

_UCUM = {"usd": "{USD}", "seconds": "s", "calls": "{call}"}
_WORDS = {
    "spent": "Settled on scopes of a kind.",
    "reserved": "Held by open reservations of this process.",
    "overshoot": "Settled beyond what was held for it; should always be 0.",
}
LISTED_KINDS = ("session", "node", "tenant", "app")
"""Kinds of scopes whose expired leases are read from a store: those of single steps are many, and say no more."""

Booking = Reserve | Extend | Settle | Refund


class Meter(Protocol):
    """Told of every operation on the ledger, after it."""

    def booked(self, effect: Booking, answer: Reservation) -> None: ...

    def failed(self, effect: Booking, fault: LedgerError) -> None: ...


class NullMeter:
    """A Meter that counts nothing."""

    def booked(self, effect: Booking, answer: Reservation) -> None:
        """Count nothing."""

    def failed(self, effect: Booking, fault: LedgerError) -> None:
        """Count nothing."""


@dataclass(slots=True)
class _Held:
    amount: Amount
    kinds: tuple[str, ...]


@dataclass(slots=True)
class _Instruments:
    """The instruments of one meter provider, made once: an SDK warns of a second making."""

    spent: Sequence[Counter]
    reserved: Sequence[UpDownCounter]
    overshoot: Sequence[Counter]
    refused: Counter
    ledgers: WeakSet[_Observed]


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Observed:
    """A ledger whose expired leases are read."""

    app: str
    ledger: Auditable


class OtelMeter:
    """A Meter of the application `app`, on the global meter provider or the one given. Safe for many threads.

    What is reserved is known of reservations that this process opened or took up. `observe` adds what only the store
    knows.
    """

    def __init__(self, app: str = "", meter_provider: MeterProvider | None = None) -> None:
        self._app = app
        self._made = _instruments(meter_provider)
        self._held: dict[str, _Held] = {}
        self._observed: _Observed | None = None
        self._lock = threading.Lock()

    def observe(self, ledger: Ledger) -> None:
        """Read the expired leases of this application's scopes from `ledger` whenever metrics are collected.

        It must be Auditable and answer at once; others are left alone. Read as long as this meter lives.
        """
        with self._lock:
            if self._observed is None and isinstance(ledger, Auditable):
                self._observed = _Observed(self._app, ledger)
                self._made.ledgers.add(self._observed)

    def close(self) -> None:
        """Ask the ledger no more."""
        with self._lock:
            if self._observed is not None:
                self._made.ledgers.discard(self._observed)

    def booked(self, effect: Booking, answer: Reservation) -> None:
        if isinstance(effect, Reserve | Extend):
            self._hold(answer)
            return
        held = self._held.pop(answer.key, None)
        if held is None:
            return  # closed before, or opened by another process, which counts it
        self._add(self._made.reserved, held.kinds, minus(NOTHING, held.amount))
        if isinstance(effect, Settle):
            self._add(self._made.spent, held.kinds, effect.spent)
            self._overshoot(held, effect.spent)

    def failed(self, effect: Booking, fault: LedgerError) -> None:
        if isinstance(fault, BudgetExceededError):
            told = dict(_attributes(kind_of(fault.scope), fault.dimension, self._app))
            self._made.refused.add(1, told | {"governor.refusal.kind": fault.kind})
        elif isinstance(effect, Settle | Refund):
            held = self._held.pop(effect.key, None)
            if held is not None:  # nobody here holds it any more: its lease will book it
                self._add(self._made.reserved, held.kinds, minus(NOTHING, held.amount))

    def _hold(self, answer: Reservation) -> None:
        held = self._held.get(answer.key)
        if held is None:
            kinds = tuple(sorted({kind_of(limit.scope) for limit in answer.limits})) or ("none",)
            held = self._held[answer.key] = _Held(NOTHING, kinds)
        more, held.amount = minus(answer.amount, held.amount), answer.amount
        self._add(self._made.reserved, held.kinds, more)

    def _overshoot(self, held: _Held, spent: Amount) -> None:
        """Said of every dimension in which something was spent, so that the 0 can be seen."""
        over = figures(larger(minus(spent, held.amount), NOTHING))
        for place, _ in booking(spent):
            number = _scaled(over[place], place)
            for kind in held.kinds:
                self._made.overshoot[place].add(number, _attributes(kind, DIMENSIONS[place], self._app))

    def _add(self, instruments: Sequence[Counter | UpDownCounter], kinds: Iterable[str], amount: Amount) -> None:
        for place, number in booking(amount):
            scaled = _scaled(number, place)
            for kind in kinds:
                instruments[place].add(scaled, _attributes(kind, DIMENSIONS[place], self._app))


@lru_cache(maxsize=1024)
def _attributes(kind: str, dimension: str, app: str) -> Mapping[str, str]:
    told = {"governor.scope.kind": kind, "governor.dimension": dimension, "governor.app": app}
    return {name: value for name, value in told.items() if value}


def _scaled(number: int, place: int) -> float:
    """In the instrument's unit: USD and seconds, else as it is."""
    scale = UNITS[DIMENSIONS[place]][1]
    return number if scale == 1 else number / scale


_making = threading.Lock()
_made: dict[MeterProvider | None, _Instruments] = {}


def _instruments(provider: MeterProvider | None) -> _Instruments:
    """One set for each provider; the global one may be set later."""
    with _making:
        if provider not in _made:
            _made[provider] = _make(provider)
        return _made[provider]


def _make(provider: MeterProvider | None) -> _Instruments:
    from opentelemetry.metrics import get_meter

    meter = get_meter("governor", meter_provider=provider)
    names = {measure: [_named(measure, place) for place in range(len(DIMENSIONS))] for measure in _WORDS}
    made = _Instruments(
        spent=[meter.create_counter(*told) for told in names["spent"]],
        reserved=[meter.create_up_down_counter(*told) for told in names["reserved"]],
        overshoot=[meter.create_counter(*told) for told in names["overshoot"]],
        refused=meter.create_counter("governor.budget.refused", "{refusal}", "Reservations that a limit refused."),
        ledgers=WeakSet(),
    )

    def expired(_: CallbackOptions) -> Iterable[Observation]:
        return [seen for one in list(made.ledgers) for seen in _expired(one)]

    words = "Leases that ran out and were booked at their bound, over the scopes that the store remembers."
    meter.create_observable_gauge("governor.budget.expired_leases", [expired], "{lease}", words)
    return made


def _named(measure: str, place: int) -> tuple[str, str, str]:
    """Name, unit and description: the unit is part of the name only where Prometheus would not add it by itself."""
    word = UNITS[DIMENSIONS[place]][0]
    name = "time" if word == "seconds" else word
    return f"governor.budget.{measure}.{name}", _UCUM.get(word, "{token}"), _WORDS[measure]


def _expired(observed: _Observed) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    for kind in LISTED_KINDS:
        owner = f"{kind}:{observed.app}"
        try:
            balances: Any = observed.ledger.balances(owner)
        except LedgerError:
            return  # the store is down: nothing is said of it now
        if inspect.iscoroutine(balances):
            balances.close()  # its balances are awaited, which a callback can't do
            return
        own = [one.expired for one in balances if one.scope[len(owner) :][:1] in ("", "/", "@", "~")]
        if own:
            yield Observation(sum(own), _attributes(kind, "", observed.app))
