"""What each operation does to a reservation and to the sums of its scopes: pure, without store or clock.

    reserve            extend, reserve          settle            refund
    (nothing) -> open  open, expired -> open    -> settled        -> refunded
    open -> expired when its lease runs out: from then on it counts as spent at its bound

A reservation touches all of its scopes alike, so that one `Posting` says everything there is to book.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from governor.errors import BudgetExceededError, ReservationError
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit

DIMENSIONS = ("tokens", "micros", "millis", "calls")
NOTHING = Amount()
UNBOUNDED = sys.maxsize
MOST = 2**53
"""Largest figure of an amount: every store, JSON and Lua included, holds integers exactly up to here."""


@dataclass(frozen=True, slots=True)
class Posting:
    """The reservation after an operation, and what to add to the sums of each of its scopes (may be negative)."""

    after: Reservation
    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    overshoot: Amount = NOTHING


def scopes(limits: Sequence[Limit]) -> tuple[str, ...]:
    """The scopes that limits book on, each once, in order."""
    return tuple(dict.fromkeys(limit.scope for limit in limits))


def minus(amount: Amount, other: Amount) -> Amount:
    """The difference in each dimension."""
    return Amount(
        amount.tokens - other.tokens,
        amount.micros - other.micros,
        amount.millis - other.millis,
        amount.calls - other.calls,
    )


def larger(amount: Amount, other: Amount) -> Amount:
    """The larger figure in each dimension."""
    return Amount(
        max(amount.tokens, other.tokens),
        max(amount.micros, other.micros),
        max(amount.millis, other.millis),
        max(amount.calls, other.calls),
    )


def check(amount: Amount) -> None:
    """ValueError unless every figure lies in 0 .. 2**53."""
    if not (
        0 <= amount.tokens <= MOST
        and 0 <= amount.micros <= MOST
        and 0 <= amount.millis <= MOST
        and 0 <= amount.calls <= MOST
    ):
        raise ValueError(f"an amount's figures must lie between 0 and 2**53: {amount}")


def left(limits: Sequence[Limit], balances: Mapping[str, Balance]) -> Amount:
    """What could still be held under all limits together; UNBOUNDED in a dimension that none bounds."""
    room = dict.fromkeys(DIMENSIONS, UNBOUNDED)
    for limit in limits:
        taken = balances[limit.scope].spent + balances[limit.scope].reserved
        for dimension in DIMENSIONS:
            ceiling: int | None = getattr(limit, dimension)
            if ceiling is not None:
                room[dimension] = min(room[dimension], max(0, ceiling - getattr(taken, dimension)))
    return Amount(**room)


def admit(asked: Amount, limits: Sequence[Limit], balances: Mapping[str, Balance]) -> None:
    """BudgetExceededError unless spent + reserved + asked stays within every limit, in every dimension.

    A dimension in which nothing is asked can't refuse: where the money is gone, a free model still may answer.
    """
    for limit in limits:
        balance = balances[limit.scope]
        for dimension in DIMENSIONS:
            ceiling: int | None = getattr(limit, dimension)
            more: int = getattr(asked, dimension)
            if ceiling is None or more <= 0:
                continue
            if getattr(balance.spent, dimension) + getattr(balance.reserved, dimension) + more > ceiling:
                raise BudgetExceededError(limit.scope, dimension, ceiling, more, left(limits, balances))


def reserve(
    found: Reservation | None, key: str, amount: Amount, limits: tuple[Limit, ...], balances: Mapping[str, Balance]
) -> Posting:
    """Opens a reservation, or takes up again the open or expired one of the same key (the larger amount holds)."""
    if found is None:
        admit(amount, limits, balances)
        return Posting(Reservation(key=key, amount=amount, state="open", limits=limits), reserved=amount)
    _refuse_closed(found, "reserved again")
    if set(found.limits) != set(limits):
        raise ReservationError(f"reservation '{key}' is open under other limits: use a new key")
    return _hold(found, larger(found.amount, amount), balances)


def extend(found: Reservation, amount: Amount, balances: Mapping[str, Balance]) -> Posting:
    """Holds `amount` more, or refuses and changes nothing."""
    _refuse_closed(found, "extended")
    return _hold(found, found.amount + amount, balances)


def settle(found: Reservation, spent: Amount) -> Posting:
    """Closes with what was really spent; what passes the hold is booked in full and counted as overshoot."""
    if found.state == "settled" and found.amount == spent:
        return Posting(found)
    _refuse_closed(found, f"settled with {_figures(spent)}")
    return _close(found, "settled", spent)


def refund(found: Reservation) -> Posting:
    """Closes with nothing spent."""
    if found.state == "refunded":
        return Posting(found)
    _refuse_closed(found, "refunded")
    return _close(found, "refunded", NOTHING)


def expire(found: Reservation) -> Posting:
    """Books an open reservation as spent at its bound: whoever held it may have spent all of it."""
    after = Reservation(key=found.key, amount=found.amount, state="expired", limits=found.limits)
    return Posting(after, spent=found.amount, reserved=minus(NOTHING, found.amount))


def _hold(found: Reservation, whole: Amount, balances: Mapping[str, Balance]) -> Posting:
    more = minus(whole, found.amount)
    admit(more, found.limits, balances)
    after = Reservation(key=found.key, amount=whole, state="open", limits=found.limits)
    if found.state == "expired":
        return Posting(after, spent=minus(NOTHING, found.amount), reserved=whole)
    return Posting(after, reserved=more)


def _close(found: Reservation, state: Literal["settled", "refunded"], spent: Amount) -> Posting:
    after = Reservation(key=found.key, amount=spent, state=state, limits=found.limits)
    over = larger(minus(spent, found.amount), NOTHING)
    if found.state == "expired":
        return Posting(after, spent=minus(spent, found.amount), overshoot=over)
    return Posting(after, spent=spent, reserved=minus(NOTHING, found.amount), overshoot=over)


def _refuse_closed(found: Reservation, what: str) -> None:
    if found.state in ("settled", "refunded"):
        closed = f"settled with {_figures(found.amount)}" if found.state == "settled" else "refunded"
        raise ReservationError(f"reservation '{found.key}' was already {closed}, it can't be {what}")


def _figures(amount: Amount) -> str:
    named = [f"{getattr(amount, dimension)} {dimension}" for dimension in DIMENSIONS if getattr(amount, dimension)]
    return ", ".join(named) or "nothing"
