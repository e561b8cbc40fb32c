"""What is booked on one scope: spent, reserved, overshoot - and, of a sliding window, when it was spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeAlias, cast

from governor.protocols import Balance
from governor.records import Amount, Limit, Window

DIMENSIONS = ("tokens", "micros", "millis", "calls", "input", "thinking", "answer")
"""The order of figures in every tuple and list of this package, and of `Amount`'s arguments."""

GRAINS = 60
"""Steps in which spend leaves a sliding window: a sixtieth of it counts up to a sixtieth too long, none too short."""

Figures: TypeAlias = tuple[int, ...]
Pairs: TypeAlias = list[tuple[int, int]]
"""The figures that are not 0, each with its place in DIMENSIONS: most amounts have two or three."""

figures: Callable[[Amount], Figures] = attrgetter(*DIMENSIONS)
"""The seven figures of an amount."""

ceilings: Callable[[Limit], tuple[int | None, ...]] = attrgetter(*DIMENSIONS)
"""The seven ceilings of a limit; None where there is none."""


def booking(amount: Amount) -> Pairs:
    """What there is to book of an amount; spelled out, because every operation begins with it."""
    numbers: Pairs = []
    if amount.tokens:
        numbers.append((0, amount.tokens))
    if amount.micros:
        numbers.append((1, amount.micros))
    if amount.millis:
        numbers.append((2, amount.millis))
    if amount.calls:
        numbers.append((3, amount.calls))
    if amount.input:
        numbers.append((4, amount.input))
    if amount.thinking:
        numbers.append((5, amount.thinking))
    if amount.answer:
        numbers.append((6, amount.answer))
    return numbers


def zeros() -> list[int]:
    """A sum of nothing."""
    return [0] * len(DIMENSIONS)


@dataclass(slots=True)
class Sums:
    """The row of one scope. Mutable: a store hands it out inside a transaction and keeps what became of it.

    `grains` is the spend of a sliding window by its grain (None for all other windows), `gone` the last grain that has
    left it (None: none yet), `references` how many remembered reservations book here, `touched` when something was last
    booked, `since` up to when bookings were replaced by a sum set by hand.
    """

    scope: str
    window: Window
    spent: list[int] = field(default_factory=zeros)
    reserved: list[int] = field(default_factory=zeros)
    overshoot: list[int] = field(default_factory=zeros)
    expired: int = 0
    references: int = 0
    touched: float = 0.0
    since: float = float("-inf")
    grains: dict[int, list[int]] | None = None
    gone: int | None = None

    @property
    def balance(self) -> Balance:
        """As a record."""
        return Balance(
            scope=self.scope,
            spent=Amount(*self.spent),
            reserved=Amount(*self.reserved),
            overshoot=Amount(*self.overshoot),
            expired=self.expired,
            window=self.window,
        )

    @property
    def due(self) -> float | None:
        """When the sums may be forgotten, if nothing is booked meanwhile; None: never, or not as things are."""
        window = self.window
        if self.references or any(self.reserved):
            return None
        ends = [window.until] if window.until is not None else []
        if window.sliding is not None:
            ends.append(self.touched + window.sliding * (1 + 2 / GRAINS))
        if window.idle is not None:
            ends.append(self.touched + window.idle)
        return max(ends, default=None)

    def slide(self, now: float) -> bool:
        """Lets go of the spend that has left a sliding window; whether anything has changed."""
        if self.grains is None:
            return False
        first = self._first(now)
        left = [grain for grain in self.grains if grain < first]
        for grain in left:
            for place, number in enumerate(self.grains.pop(grain)):
                self.spent[place] -= number
        if self.gone is not None and first <= self.gone + 1:
            return bool(left)  # booked on a clock that was set back
        self.gone = first - 1
        return True

    def hold(self, numbers: Pairs) -> None:
        """Adds to what is reserved."""
        reserved = self.reserved
        for place, number in numbers:
            reserved[place] += number

    def free(self, numbers: Pairs) -> None:
        """Takes from what is reserved."""
        reserved = self.reserved
        for place, number in numbers:
            reserved[place] -= number

    def spend(self, numbers: Pairs, at: float) -> None:
        """Books as spent at a moment: now, or one that is `live`."""
        if self.grains is not None:
            grain = self._grain(at)
            row = self.grains.setdefault(grain, zeros())
            for place, number in numbers:
                row[place] += number
        spent = self.spent
        for place, number in numbers:
            spent[place] += number

    def unspend(self, numbers: Pairs, at: float) -> None:
        """Takes back what was booked at a moment; only for what `counts`."""
        row = None if self.grains is None else self.grains.get(self._grain(at))
        for place, number in numbers:
            self.spent[place] -= number
            if row is not None:
                row[place] -= number

    def counts(self, at: float) -> bool:
        """Whether a lease booked at that moment is part of `spent`: not after a reset, nor once it left the window."""
        return at > self.since and self.live(at)

    def live(self, at: float) -> bool:
        """Whether what is booked as of that moment would count at all."""
        return self.grains is None or self.gone is None or self._grain(at) > self.gone

    def lapse(self, end: float, now: float) -> float:
        """When a lease that ran out at `end` is booked: then, or late enough to be told from bookings of before.

        The latter only after the clock was set back: what has left a window, or was replaced by hand, had later times.
        """
        if self.grains is not None and not self.live(end) and self._grain(end) >= self._first(now):
            end = (cast("int", self.gone) + 1.5) * cast("float", self.window.sliding) / GRAINS
        return end if end > self.since else self.since + 2**-20

    def room_at(self, place: int, least: int) -> float | None:
        """When at least `least` of a dimension's spend will have left; None: never by itself."""
        if self.grains is None or self.window.sliding is None:
            return self.window.until
        width = self.window.sliding / GRAINS
        for grain in sorted(self.grains):
            least -= self.grains[grain][place]
            if least <= 0:
                return (grain + 1) * width + self.window.sliding
        return None

    def reset(self, spent: Amount, now: float) -> None:
        """Sets what counts as spent, as if booked now."""
        self.spent, self.overshoot, self.since, self.touched = zeros(), zeros(), max(now, self.touched, self.since), now
        if self.grains is not None:
            self.grains.clear()
        self.spend(booking(spent), now)

    def _first(self, now: float) -> int:
        """The first grain of the window that ends now."""
        return self._grain(now - cast("float", self.window.sliding))

    def _grain(self, at: float) -> int:
        return int(at * GRAINS // cast("float", self.window.sliding))


def empty(limit: Limit) -> Sums:
    """The sums of a scope on which nothing was booked."""
    return Sums(limit.scope, limit.window, grains=None if limit.window.sliding is None else {})
