"""The reservation of a journaled step, which may live more than once.

A life ends when its reservation is closed or its process killed. A killed life's reservation is open or expired,
and the next life takes it up under the same key. A closed one (closed, but the step did not end: Ctrl-C) stays
closed, and the next life books what comes on top under a key of its own: `key~2`, `key~3`. So each token is
booked once, however often a step is taken up.

These are processes (see governor.effects): the ledger is asked by whoever runs them.
"""

from __future__ import annotations

from collections.abc import Sequence

from governor.effects import Extend, Process, Refund, Reserve, Settle
from governor.errors import ReservationError
from governor.ledger.admission import NOTHING, larger, minus
from governor.protocols import Reservation
from governor.records import Amount, Limit


class Holds:
    """`closings` are the totals with which former lives were closed, each including the ones before."""

    def __init__(self, closings: Sequence[Amount]) -> None:
        self._past = list(closings)
        self._base = ""
        self._limits: tuple[Limit, ...] | None = None  # None: nothing is held
        self._held = NOTHING
        self._is_open = False  # whether this life's reservation is known to be open in the ledger
        self._settled_former = False

    def remember(self, effect: Reserve | Extend) -> Reservation:
        """What a former life reserved or extended: the ledger knows it already and isn't asked before it must be."""
        if isinstance(effect, Reserve):
            self._base, self._limits = effect.key, effect.limits
        self._held = self._held + effect.amount
        return Reservation(key=effect.key, amount=self._held, state="open", limits=self._limits or ())

    def reserve(self, effect: Reserve) -> Process[Reservation]:
        """Opens this life's reservation."""
        self._base = effect.key
        yield from self._settle_former_life()
        answer: Reservation = yield Reserve(self._key(), effect.amount, effect.limits)
        self._limits, self._held, self._is_open = effect.limits, effect.amount, True
        return answer

    def extend(self, effect: Extend) -> Process[Reservation]:
        """Holds more; the first extension of a resumed step takes up or opens its reservation."""
        held = self._held + effect.amount
        if self._is_open or self._limits is None:
            answer: Reservation = yield Extend(self._key(), effect.amount)
        else:
            # One larger reservation instead of two steps: the former life may have got as far as to extend.
            yield from self._settle_former_life()
            answer = yield Reserve(self._key(), self._rest(held), self._limits)
            self._is_open = True
        self._held = held
        return answer

    def take_up(self) -> Process[None]:
        """Sees to it that what is held but not yet booked is held in the ledger, before more is spent."""
        if not self._is_open and self._limits is not None:
            yield from self._settle_former_life()
            yield Reserve(self._key(), self._rest(self._held), self._limits)
            self._is_open = True

    def closing(self, effect: Settle | Refund) -> Amount | None:
        """The total to note before `close`; None where a former life has booked all of it already."""
        booked = self._booked() + self._rest(_total(effect))
        return booked if self._is_open or not self._past or booked != self._booked() else None

    def close(self, effect: Settle | Refund) -> Process[Reservation]:
        """Books what this life spent on top of the former ones."""
        rest = self._rest(_total(effect))
        if self._limits is None:
            passed: Reservation = yield effect
            return passed
        if not self._is_open:
            yield from self._settle_former_life()
            if self._past and rest == NOTHING:
                return Reservation(key=effect.key, amount=_total(effect), state="settled", limits=self._limits)
            # Nothing more is asked, so nothing is refused; a ledger that forgot the step books it all the same.
            yield Reserve(self._key(), NOTHING, self._limits)
            self._is_open = True
        answer: Reservation = yield Refund(self._key()) if isinstance(effect, Refund) else Settle(self._key(), rest)
        return answer

    def _settle_former_life(self) -> Process[None]:
        """The last closing was noted before it was booked: book it now, in case the process died in between."""
        if self._settled_former or not self._past:
            return
        before = self._past[-2] if len(self._past) > 1 else NOTHING
        try:
            yield Settle(self._key(len(self._past) - 1), minus(self._past[-1], before))
        except ReservationError:
            self._settled_former = True  # refunded, or a ledger in memory that began empty: nothing is owed there
        self._settled_former = True

    def _key(self, life: int | None = None) -> str:
        number = len(self._past) if life is None else life
        return f"{self._base}~{number + 1}" if number else self._base

    def _booked(self) -> Amount:
        return self._past[-1] if self._past else NOTHING

    def _rest(self, total: Amount) -> Amount:
        return larger(minus(total, self._booked()), NOTHING)


def _total(effect: Settle | Refund) -> Amount:
    return effect.spent if isinstance(effect, Settle) else NOTHING
