"""Records added up against the ledger (does every scope hold what its steps spent, to the micro-unit?).

Each outcome's line says what was settled and on which scopes; its attempts' lines are re-added beside it. What the
ledger remembers of single reservations says more: where an outcome of before scopes were recorded was booked, and what
leases that ran out hold at their bound. Pure: lines, balances, reservations and the time are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from governor.ledger.admission import NOTHING, larger, minus
from governor.ledger.sums import DIMENSIONS, GRAINS
from governor.protocols import Balance, Reservation
from governor.records import Amount
from governor.telemetry.spend import ALWAYS, Ending, Spend, kept, told_by

EDGE_SECONDS = 5.0
"""How much later than its settlement an outcome's line may be written: near the edge of a sliding window both fit."""

_ANY_TIME = float("-inf")
_LIFE = re.compile(r"~\d+$")  # the key of a resumed step's later life


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scope: what the records come to, what leases hold at their bound, what the ledger says, and the rest.

    `ledger` is None where it has forgotten the scope, as it may: then there is nothing to compare. `compared` are the
    dimensions that every record of it states.
    """

    scope: str
    steps: int
    records: Amount
    expired: Amount
    ledger: Amount | None
    difference: Amount
    compared: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing is left over in any dimension that is compared."""
        return not any(getattr(self.difference, name) for name in self.compared)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A step, or a reservation, that could not be matched, and why."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What came of it.

    `unrecorded` are reservations that the ledger settled and no outcome tells of; `unbooked` counts outcomes that state
    that they were booked nowhere, because nothing limits them or the store was down. `parts` counts outcomes of steps
    that are parts of others and were booked with these.
    """

    rows: tuple[Row, ...]
    outcomes: int
    attempts: int
    unmatched: tuple[Mismatch, ...]
    unrecorded: tuple[Mismatch, ...]
    unbooked: int
    cancelled: bool = False
    """Whether the ledger's word is taken for what is unrecorded."""
    parts: int = 0

    @property
    def compared(self) -> int:
        """How many scopes were compared."""
        return sum(row.ledger is not None for row in self.rows)

    @property
    def agrees(self) -> bool:
        """Whether it is proved: every scope agrees, every record was matched, and there was something to compare."""
        something = self.compared > 0 or self.unbooked + self.parts == self.outcomes
        told = self.cancelled or not self.unrecorded
        return something and told and not self.unmatched and all(row.agrees for row in self.rows)


def audited(
    records: Iterable[Mapping[str, Any]],
    balances: Sequence[Balance],
    reservations: Sequence[Reservation],
    now: float,
    *,
    cancelled: bool = False,
    prefix: str = "",
) -> Audit:
    """Compare record lines with an Auditable's balances and reservations, read at `now` (seconds since the epoch).

    `cancelled` takes the ledger's word for settled reservations without an outcome: steps that were cut off book what
    was in flight at its bound and leave no outcome. `prefix` leaves out all scopes that don't begin so.
    """
    told = told_by(records)
    books = _Books(balances, reservations, told.steps, now)
    for step in told.steps.values():
        books.add(step)
    books.add_unrecorded(take=cancelled)
    return Audit(
        rows=tuple(row for row in books.rows() if row.scope.startswith(prefix)),
        outcomes=told.outcomes,
        attempts=told.attempts,
        unmatched=tuple(books.unmatched),
        unrecorded=tuple(books.unrecorded),
        unbooked=books.unbooked,
        cancelled=cancelled,
        parts=books.parts,
    )


@dataclass(slots=True)
class _Tally:
    """What one scope should hold; `low` is without what may have left a sliding window already."""

    steps: int = 0
    low: Amount = NOTHING
    high: Amount = NOTHING
    expired: Amount = NOTHING
    newest: float = _ANY_TIME
    by_kind: bool = True
    remembered: bool = False


class _Books:
    """What every scope should hold, and what it does. Mutable, made for one audit."""

    def __init__(
        self, balances: Sequence[Balance], reservations: Sequence[Reservation], steps: Mapping[str, Spend], now: float
    ) -> None:
        self.unmatched: list[Mismatch] = []
        self.unrecorded: list[Mismatch] = []
        self.unbooked = 0
        self.parts = 0
        self._now = now
        self._steps = steps
        self._spent = {balance.scope: balance.spent for balance in balances}
        self._edges = {one.scope: _edge(one.window.sliding, now) for one in balances if one.window.sliding is not None}
        self._tallies: dict[str, _Tally] = {}
        self._lives: dict[str, list[Reservation]] = {}
        self._others: list[Reservation] = []
        for reservation in reservations:
            step = self._step(reservation.key)
            if step is not None and step.endings:
                self._lives.setdefault(step.key, []).append(reservation)
            else:
                self._others.append(reservation)

    def add(self, step: Spend) -> None:
        """One step's outcomes, each on every scope that it was booked on."""
        lives = self._lives.get(step.key, [])
        if step.apart:
            self.unmatched.append(Mismatch(step.key, step.apart))
        if any(life.state in ("open", "expired") for life in lives):
            self._add_unsettled(lives)
            return
        for ending in step.endings:
            known = _scopes(lives) if len(step.endings) == 1 else ()
            self._add_ending(step, ending, known or ending.scopes, remembered=bool(lives))
        if len(step.endings) == 1:
            self._check(step.endings[0], step.key, lives)

    def add_unrecorded(self, *, take: bool) -> None:
        """What the ledger holds of reservations that no outcome tells of: leases that ran out, steps that were cut.

        Only of applications that the records are of: several may share a store.
        """
        owners = {_owner(scope) for scope in self._tallies}
        for reservation in self._others:
            if not any(_owner(scope) in owners for scope in _scopes([reservation])):
                continue
            if reservation.state == "expired":
                self._add_unsettled([reservation])
            elif reservation.state == "settled":
                self._add_settled(reservation, take=take)

    def rows(self) -> list[Row]:
        """Every scope of the records, and every other one that the same applications have spent on."""
        owners = {_owner(scope) for scope in self._tallies}
        others = {scope for scope, spent in self._spent.items() if spent != NOTHING and _owner(scope) in owners}
        return [self._row(scope) for scope in sorted({*self._tallies, *others})]

    def _row(self, scope: str) -> Row:
        tally = self._tallies.get(scope) or _Tally()
        ledger = self._spent.get(scope)
        if ledger is None and not self._forgotten(scope, tally):
            ledger = NOTHING
        high = tally.high + tally.expired
        low = tally.low if scope in self._edges else high
        held = high if ledger is None else ledger
        return Row(
            scope=scope,
            steps=tally.steps,
            records=tally.high,
            expired=tally.expired,
            ledger=ledger,
            difference=minus(larger(minus(held, high), NOTHING), larger(minus(low, held), NOTHING)),
            compared=DIMENSIONS if tally.by_kind else ALWAYS,
        )

    def _add_ending(self, step: Spend, ending: Ending, scopes: tuple[str, ...] | None, *, remembered: bool) -> None:
        if scopes is None:
            reason = "its outcome does not state its scopes, and the ledger has forgotten its reservation"
            self.unmatched.append(Mismatch(step.key, reason))
        elif not scopes and step.parent:
            self.parts += 1
        elif not scopes:
            self.unbooked += 1
        for scope in scopes or ():
            tally = self._book(scope, ending.spent, ending.time)
            tally.by_kind = tally.by_kind and ending.by_kind
            tally.remembered = tally.remembered or remembered

    def _check(self, ending: Ending, key: str, lives: Sequence[Reservation]) -> None:
        """The settlement that the ledger remembers against the outcome: names the step where a scope only differs."""
        if not any(life.key == key for life in lives):
            return  # forgotten, or only its first life is
        settled = sum((life.amount for life in lives if life.state == "settled"), NOTHING)
        names = DIMENSIONS if ending.by_kind else ALWAYS
        pairs = [(name, getattr(ending.spent, name), getattr(settled, name)) for name in names]
        words = [f"{told} {name} where the ledger settled {booked}" for name, told, booked in pairs if told != booked]
        if words:
            self.unmatched.append(Mismatch(key, f"its outcome says {', '.join(words)}"))

    def _add_unsettled(self, lives: Sequence[Reservation]) -> None:
        """A lease that ran out counts at its bound, whatever an outcome says; what is open counts nowhere yet."""
        for life in lives:
            for scope in _scopes([life]):
                if life.state == "settled":
                    self._book(scope, life.amount, _ANY_TIME)
                tally = self._tallies.setdefault(scope, _Tally())
                tally.remembered = True
                if life.state == "expired" and life.sent:
                    tally.expired += life.amount

    def _add_settled(self, reservation: Reservation, *, take: bool) -> None:
        found = "attempts, but no outcome" if self._step(reservation.key) else "nothing in these records"
        reason = f"settled with {reservation.amount.micros} micro-USD, {reservation.amount.tokens} tokens: {found}"
        self.unrecorded.append(Mismatch(reservation.key, reason))
        if take:
            self._add_unsettled([reservation])

    def _book(self, scope: str, spent: Amount, time: float) -> _Tally:
        tally = self._tallies.setdefault(scope, _Tally())
        tally.steps += 1
        tally.newest = max(tally.newest, time)
        edge = self._edges.get(scope, _ANY_TIME)
        if time >= edge or time == _ANY_TIME:
            tally.high += spent
        if time - EDGE_SECONDS >= edge:
            tally.low += spent
        return tally

    def _step(self, key: str) -> Spend | None:
        """The step whose reservation has this key, or had one of its former lives under it."""
        return self._steps.get(key) or self._steps.get(_LIFE.sub("", key))

    def _forgotten(self, scope: str, tally: _Tally) -> bool:
        """Whether a ledger may have dropped these sums: old enough, and nothing remembered is booked on them."""
        return not tally.remembered and tally.newest + kept(scope) < self._now


def _edge(sliding: float, now: float) -> float:
    """When the oldest grain begins that a sliding window still counts."""
    width = sliding / GRAINS
    return (now - sliding) // width * width


def _scopes(lives: Iterable[Reservation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(limit.scope for life in lives for limit in life.limits))


def _owner(scope: str) -> str:
    """The application in a scope's key: `app:desk@2026-11-21` and `session:desk/9` are both desk's."""
    return re.split(r"[/@~]", scope.partition(":")[2], maxsplit=1)[0]
