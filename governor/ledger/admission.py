"""What each operation does to a reservation and to the sums of its scopes: without store or clock.

    reserve            extend, reserve          settle            refund
    (nothing) -> open  open, expired -> open    -> settled        -> refunded
    open -> expired when its lease runs out: from then on it counts as spent at its bound, if it was sent

A reservation touches all of its scopes alike. Every function makes all its checks before it changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from governor.errors import ReservationError
from governor.ledger.refusals import refusal
from governor.ledger.sums import DIMENSIONS, Figures, Pairs, Sums, booking, ceilings, figures
from governor.protocols import Reservation
from governor.records import Amount, Limit

NOTHING = Amount()
MOST = 2**53
"""Largest figure of an amount: every store, JSON and Lua included, holds integers exactly up to here."""

CLOSED = ("settled", "refunded")
NO_PAIRS: Pairs = []
_NONE: Figures = (0,) * len(DIMENSIONS)

Booked: TypeAlias = Mapping[str, Sums]
"""The sums of every scope of a reservation's limits, by scope."""


@dataclass(slots=True)
class _Draft:
    """A Reservation that is still to be frozen: Python refuses to make one of it unless it has the very same slots."""

    key: str
    amount: Amount
    state: Literal["open", "settled", "refunded", "expired"]
    limits: tuple[Limit, ...]
    sent: bool


@dataclass(slots=True)
class Hold:
    """The row of one reservation. Mutable, as `Sums` is.

    `moment` is when an open one was last touched, when an expired one's lease ran out, when another was closed;
    `numbers` are what `amount` comes to, of an open or expired one: nothing more is booked of others.
    """

    key: str
    amount: Amount
    limits: tuple[Limit, ...]
    state: Literal["open", "settled", "refunded", "expired"]
    sent: bool
    moment: float
    numbers: Pairs

    @property
    def record(self) -> Reservation:
        """As a record."""
        # Every operation ends with one, and the frozen class's own __init__ would be a seventh of its cost in memory:
        # it looks each field's slot up by name.
        made: Any = _Draft(self.key, self.amount, self.state, self.limits, self.sent)
        made.__class__ = Reservation
        record: Reservation = made
        return record


def minus(amount: Amount, other: Amount) -> Amount:
    """The difference in each dimension."""
    return Amount(*(one - two for one, two in zip(figures(amount), figures(other), strict=True)))


def larger(amount: Amount, other: Amount) -> Amount:
    """The larger figure in each dimension."""
    return Amount(*map(max, figures(amount), figures(other)))


def checked(amount: Amount) -> Pairs:
    """What there is to book of an amount; ValueError unless every figure lies in 0 .. 2**53."""
    numbers = booking(amount)
    for _, number in numbers:
        if not 0 < number <= MOST:
            raise ValueError(f"an amount's figures must lie between 0 and 2**53: {amount}")
    return numbers


def opened(key: str, amount: Amount, limits: tuple[Limit, ...], booked: Booked, now: float, *, sent: bool) -> Hold:
    """A new reservation, or BudgetExceededError."""
    numbers = checked(amount)
    for limit in limits:
        sums, allowed = booked[limit.scope], ceilings(limit)
        for place, number in numbers:
            ceiling = allowed[place]
            if ceiling is not None and sums.spent[place] + sums.reserved[place] + number > ceiling:
                raise refusal(figures(amount), dict.fromkeys(booked, _NONE), True, limits, booked, now)
    for sums in booked.values():
        sums.hold(numbers)
        sums.references += 1
        sums.touched = now
    return Hold(key, amount, limits, "open", sent, now, numbers)


def taken_up(found: Hold, amount: Amount, limits: tuple[Limit, ...], booked: Booked, now: float, *, sent: bool) -> None:
    """Reserving a key that is known: the larger amount holds."""
    checked(amount)
    if found.state in CLOSED:
        raise _closed(found, "reserved again")
    if found.limits != limits and set(found.limits) != set(limits):
        raise ReservationError(f"reservation '{found.key}' is open under other limits: use a new key")
    _hold(found, larger(found.amount, amount), booked, now, sent=sent)


def extend(found: Hold, amount: Amount, booked: Booked, now: float, *, whole: bool, sent: bool) -> None:
    """Holds `amount` more, or that in all, or refuses and changes nothing."""
    checked(amount)
    if found.state in CLOSED:
        raise _closed(found, "extended")
    _hold(found, larger(found.amount, amount) if whole else found.amount + amount, booked, now, sent=sent)


def settle(found: Hold, spent: Amount, booked: Booked, now: float) -> bool:
    """Closes with what was really spent; what passes the hold is booked in full and counted as overshoot.

    False: it was settled so before. A late settlement takes the place of its lease's booking, in the same grain of a
    sliding window: if that has left, so has what is settled.
    """
    numbers = checked(spent)
    if found.state == "settled" and found.amount == spent:
        return False
    if found.state in CLOSED:
        raise _closed(found, f"settled with {_said(spent)}")
    late = found.state == "expired" and found.sent
    when = found.moment if late else now
    over = _over(numbers, found)
    for sums in booked.values():
        _free(found, sums)
        if not late or sums.live(when):
            sums.spend(numbers, when)
        for place, number in over:
            sums.overshoot[place] += number
        sums.touched = now
    found.amount, found.numbers, found.state, found.moment = spent, NO_PAIRS, "settled", now
    return True


def _over(numbers: Pairs, found: Hold) -> Pairs:
    """By how much a settlement passes what its reservation still weighed."""
    held = figures(found.amount) if found.sent or found.state == "open" else _NONE
    over = NO_PAIRS
    for place, number in numbers:
        if number > held[place]:
            over = [*over, (place, number - held[place])]
    return over


def refund(found: Hold, booked: Booked, now: float) -> bool:
    """Closes with nothing spent; False: it was before."""
    if found.state == "refunded":
        return False
    if found.state in CLOSED:
        raise _closed(found, "refunded")
    for sums in booked.values():
        _free(found, sums)
        sums.touched = now
    found.amount, found.numbers, found.state, found.moment = NOTHING, NO_PAIRS, "refunded", now
    return True


def expire(found: Hold, booked: Booked, ttl: float, now: float) -> None:
    """Books an open reservation as spent at its bound when its lease ran out: its holder may have spent all of it."""
    numbers, end = found.numbers, found.moment + ttl
    for sums in booked.values():
        end = sums.lapse(end, now)
    for sums in booked.values():
        sums.free(numbers)
        if found.sent and sums.live(end):
            sums.spend(numbers, end)
        sums.expired += 1
        sums.touched = now
    found.state, found.moment = "expired", end


def _hold(found: Hold, amount: Amount, booked: Booked, now: float, *, sent: bool) -> None:
    numbers, before, own = booking(amount), figures(found.amount), found.state == "open"
    for limit in found.limits:
        sums, allowed = booked[limit.scope], ceilings(limit)
        mine = before if own or _weighs(found, sums) else _NONE
        for place, number in numbers:
            ceiling, more = allowed[place], number - mine[place]
            if ceiling is not None and more > 0 and sums.spent[place] + sums.reserved[place] + more > ceiling:
                held = {scope: before if own or _weighs(found, one) else _NONE for scope, one in booked.items()}
                raise refusal(figures(amount), held, own, found.limits, booked, now)
    for sums in booked.values():
        _free(found, sums)
        sums.hold(numbers)
        sums.touched = now
    found.amount, found.numbers, found.state = amount, numbers, "open"
    found.moment, found.sent = now, found.sent or sent


def _weighs(found: Hold, sums: Sums) -> bool:
    """Whether an expired reservation counts as spent on a scope."""
    return found.sent and sums.counts(found.moment)


def _free(found: Hold, sums: Sums) -> None:
    """Takes an open or expired reservation's weight off a scope."""
    if found.state == "open":
        sums.free(found.numbers)
    elif _weighs(found, sums):
        sums.unspend(found.numbers, found.moment)


def _closed(found: Hold, what: str) -> ReservationError:
    closed = f"settled with {_said(found.amount)}" if found.state == "settled" else "refunded"
    return ReservationError(f"reservation '{found.key}' was already {closed}, it can't be {what}")


def _said(amount: Amount) -> str:
    named = [f"{number} {DIMENSIONS[place]}" for place, number in booking(amount)]
    return ", ".join(named) or "nothing"
