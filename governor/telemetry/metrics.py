"""OpenTelemetry metrics of budgets, counted where the loop's effects meet the ledger, and of stop rules.

Counters and sums of this process, to be added up over replicas:

    governor.budget.spent.*              settled, in a scope's dimension           counter
    governor.budget.reserved.*           held now by steps of this process         up-down counter
    governor.budget.overshoot.*          settled beyond what was held; always 0    counter
    governor.budget.refused              refusals, by governor.refusal.kind        counter
    governor.budget.expired_leases       leases that ran out, as the store says    observable gauge
    governor.thought.stopped             thoughts that a rule ended, by its name   counter

Sums are kept as integers and read when metrics are collected. The last is read from the store, the same by every
replica: a maximum, not a sum. A step books on several scopes: sum over one `governor.scope.kind` only. Nothing here
needs the SDK: without one, the API's instruments do nothing.
Source: OpenTelemetry semantic conventions for metrics (names, units in UCUM, annotations in braces).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from weakref import WeakSet

from governor.effects import Extend, Refund, Reserve, Settle
from governor.errors import BudgetExceededError, LedgerError
from governor.ledger.exposition import kind_of
from governor.ledger.standing import UNITS
from governor.ledger.sums import DIMENSIONS, Figures, Pairs, booking, figures, zeros
from governor.protocols import Auditable, Ledger, Reservation

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation

Measure: TypeAlias = Literal["spent", "reserved", "overshoot"]

_UCUM = {"usd": "{USD}", "seconds": "s", "calls": "{call}"}
_WORDS: Mapping[Measure, str] = {
    "spent": "Settled on scopes of a kind.",
    "reserved": "Held by open reservations of this process.",
    "overshoot": "Settled beyond what was held for it; should always be 0.",
}
_NONE: Figures = (0,) * len(DIMENSIONS)

WIDEST = ("app", "tenant", "node", "session", "run", "model")
"""Kinds of scopes, of which the first that a store knows tells of expired leases: a lease runs out on all alike."""

Booking: TypeAlias = Reserve | Extend | Settle | Refund


class Meter(Protocol):
    """Told of every operation on the ledger, after it, and of thoughts that were ended."""

    def booked(self, effect: Booking, answer: Reservation) -> None: ...

    def failed(self, effect: Booking, fault: LedgerError) -> None: ...

    def stopped(self, rule: str) -> None:
        """A stop rule has ended a thought, or a reply."""
        ...


class NullMeter:
    """A Meter that counts nothing."""

    def booked(self, effect: Booking, answer: Reservation) -> None:
        """Count nothing."""

    def failed(self, effect: Booking, fault: LedgerError) -> None:
        """Count nothing."""

    def stopped(self, rule: str) -> None:
        """Count nothing."""


@dataclass(slots=True)
class _Held:
    figures: Figures
    kinds: tuple[str, ...]


@dataclass(slots=True)
class _Instruments:
    """What one meter provider is told, by every meter on it: read when it collects, so that steps don't wait for it.

    `totals` are those of each application's scopes of each kind, in the ledger's units: exact, and cheap to add to.
    """

    refused: Counter
    ended: Counter
    totals: dict[tuple[str, str], dict[Measure, list[int]]] = field(default_factory=dict)
    ledgers: WeakSet[_Observed] = field(default_factory=WeakSet)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, app: str, kinds: Iterable[str], measure: Measure, numbers: Pairs) -> None:
        with self.lock:
            for kind in kinds:
                found = self.totals.get((app, kind))
                if found is None:
                    found = self.totals[app, kind] = {name: zeros() for name in _WORDS}
                column = found[measure]
                for place, number in numbers:
                    column[place] += number

    def read(self, measure: Measure, place: int) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        with self.lock:
            found = [(app, kind, one[measure][place]) for (app, kind), one in self.totals.items()]
        for app, kind, number in found:
            yield Observation(_scaled(number, place), _attributes(kind, DIMENSIONS[place], app))


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
        held = self._let_go(answer.key)
        if held is None or isinstance(effect, Refund):
            return  # closed before, or opened by another process, which counts it
        spent = booking(effect.spent)
        over = [(place, number - held.figures[place]) for place, number in spent if number > held.figures[place]]
        self._made.add(self._app, held.kinds, "spent", spent)
        self._made.add(self._app, held.kinds, "overshoot", over)

    def failed(self, effect: Booking, fault: LedgerError) -> None:
        if isinstance(fault, BudgetExceededError):
            told = _attributes(kind_of(fault.scope), fault.dimension, self._app)
            self._made.refused.add(1, {**told, "governor.refusal.kind": fault.kind})
        elif isinstance(effect, Settle | Refund):
            self._let_go(effect.key)  # nobody here holds it any more: its lease books it, or a later settlement

    def stopped(self, rule: str) -> None:
        self._made.ended.add(1, {"governor.stop.rule": rule, **({"governor.app": self._app} if self._app else {})})

    def _hold(self, answer: Reservation) -> None:
        held, now = self._held.get(answer.key), figures(answer.amount)
        if held is None:
            kinds = tuple(sorted({kind_of(limit.scope) for limit in answer.limits})) or ("none",)
            held = self._held[answer.key] = _Held(_NONE, kinds)
        more = [
            (place, new - old) for place, (new, old) in enumerate(zip(now, held.figures, strict=True)) if new != old
        ]
        held.figures = now
        self._made.add(self._app, held.kinds, "reserved", more)

    def _let_go(self, key: str) -> _Held | None:
        held = self._held.pop(key, None)
        if held is not None:
            freed = [(place, -number) for place, number in enumerate(held.figures) if number]
            self._made.add(self._app, held.kinds, "reserved", freed)
        return held


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
    made = _Instruments(
        meter.create_counter("governor.budget.refused", "{refusal}", "Reservations that a limit refused."),
        meter.create_counter("governor.thought.stopped", "{thought}", "Thoughts that a stop rule ended."),
    )
    for measure in _WORDS:
        create = meter.create_observable_up_down_counter if measure == "reserved" else meter.create_observable_counter
        for place in range(len(DIMENSIONS)):
            name, unit, words = _named(measure, place)
            create(name, [_reader(made, measure, place)], unit, words)

    def expired(_: CallbackOptions) -> Iterable[Observation]:
        return [seen for one in list(made.ledgers) for seen in _expired(one)]

    words = "Leases that ran out and were booked at their bound, over the scopes that the store remembers."
    meter.create_observable_gauge("governor.budget.expired_leases", [expired], "{lease}", words)
    return made


def _reader(made: _Instruments, measure: Measure, place: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: made.read(measure, place)


def _named(measure: Measure, place: int) -> tuple[str, str, str]:
    """Name, unit and description: the unit is part of the name only where Prometheus would not add it by itself."""
    word = UNITS[DIMENSIONS[place]][0]
    name = "time" if word == "seconds" else word
    return f"governor.budget.{measure}.{name}", _UCUM.get(word, "{token}"), _WORDS[measure]


def _expired(observed: _Observed) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    for kind in WIDEST:
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
            return
