"""The shadow price of a period's budget while serving: read off the ledger, shared by its replicas."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from governor.aside import Aside
from governor.errors import LedgerError
from governor.plan.pacing import Pacing
from governor.policy import Paced
from governor.protocols import Ledger, Shelf
from governor.records import Rung
from governor.shelf import update

LOOKS = 5_000
"""How many times in a period each process looks at what was spent, as far as SLOWEST and FASTEST allow."""

SLOWEST, FASTEST = 10.0, 0.05
"""Most and least seconds between two looks."""

REMEMBERED = 10_000
"""Budgets whose price a process knows; those that were not asked for longest give way."""

_TRIES = 3
_INPUT_TOKENS, _OUTPUT_SHARE = 1_000, 0.25  # of a usual call: prompt, and share of the rung's most output tokens


@dataclass(frozen=True, slots=True)
class Pace:
    """Where one budget's spend stands in one period, as replicas share it."""

    scope: str
    pacing: Pacing

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps({"scope": self.scope, "pacing": asdict(self.pacing)}).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Pace:
        """Reads `to_bytes`. Raises LedgerError where it is something else."""
        try:
            form: dict[str, Any] = json.loads(value)
            pacing: dict[str, Any] = form["pacing"]
            pacing["profile"] = tuple(pacing["profile"])
            return cls(form["scope"], Pacing(**pacing))
        except (ValueError, TypeError, KeyError) as cause:
            raise LedgerError(f"a budget's pace in the ledger is damaged: {cause}") from cause


@dataclass(frozen=True, slots=True)
class _Look:
    """When a budget was last looked at, in which period, and the last pace that was seen of it."""

    at: float
    scope: str
    pace: Pace | None

    @property
    def mu(self) -> float:
        return 0.0 if self.pace is None else self.pace.pacing.mu


_NEVER = _Look(float("-inf"), "", None)


class Pacer:
    """Gives each step the shadow price `mu` of its paced budgets. Safe for many threads.

    What was spent comes from the ledger, so that every replica counts what all of them spend; where the ledger is a
    Shelf, mu itself is shared too. While the ledger can't be reached the last price stands: the limits are what may
    not be passed. A new period begins with the price at which the last one ended. In an event loop a ledger that asks a
    server is asked in a thread, and the step goes on at the price of the look before (at first, at none).
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._aside: Aside | None = None
        self._looks: dict[str, _Look] = {}

    def mu(self, paced: Sequence[Paced], ladder: Sequence[Rung], now: float) -> float:
        """Value per micro-USD, summed over budgets, for a step on this ladder at `now` (POSIX seconds).

        Raises TypeError where the ledger is awaited: its balances can't be read here.
        """
        unit = dear(ladder)
        if unit <= 0.0:
            return 0.0  # nothing costs anything
        with self._lock:
            due = [one for one in paced if not _current(self._known(one), one, now)]
        if due:
            self._look_aside(due, unit, now)
        with self._lock:
            return sum(self._known(one).mu for one in paced)

    def _known(self, paced: Paced) -> _Look:
        """Under the lock. What is asked for moves to the end."""
        known = self._looks.pop(paced.name, None)
        if known is not None:
            self._looks[paced.name] = known
        return known or _NEVER

    def _look_aside(self, due: Sequence[Paced], unit: float, now: float) -> None:
        ledger = self._ledger()
        if inspect.iscoroutinefunction(ledger.balance):
            raise TypeError(
                f"'{due[0].scope}' has a pace, which needs a ledger that answers at once, not an awaited one"
            )
        self._aside = self._aside or Aside(ledger)
        self._aside(lambda: self._look(ledger, due, unit, now))

    def _look(self, ledger: Ledger, due: Sequence[Paced], unit: float, now: float) -> None:
        for paced in due:
            with self._lock:
                last = self._known(paced)
                if _current(last, paced, now):
                    continue  # another thread came first
                # Marked before the store is asked: others go on with the last price meanwhile, and while it is down.
                self._looks[paced.name] = _Look(now, paced.scope, last.pace)
                if len(self._looks) > REMEMBERED:
                    del self._looks[next(iter(self._looks))]
            with suppress(LedgerError):
                found = _Look(now, paced.scope, self._looked(ledger, paced, last.pace, unit, now))
                with self._lock:
                    self._looks[paced.name] = found

    def _looked(self, ledger: Ledger, paced: Paced, known: Pace | None, unit: float, now: float) -> Pace:
        spent = ledger.balance(paced.scope).spent.micros

        def moved(old: Pace | None) -> Pace:
            return Pace(paced.scope, _begun(paced, old, unit).after(spent, now - paced.begun))

        if not isinstance(ledger, Shelf):
            return moved(known)
        saved = update(
            ledger,
            f"pace:{paced.name}",
            lambda old: moved(None if old is None else Pace.from_bytes(old)).to_bytes(),
            ttl=2.0 * paced.seconds,
            attempts=_TRIES,
        )
        return Pace.from_bytes(saved)


def dear(ladder: Sequence[Rung]) -> float:
    """Micro-USD of a usual call of the dearest rung."""
    return max((_usual(rung) for rung in ladder), default=0.0)


def _usual(rung: Rung) -> float:
    tokens = _INPUT_TOKENS * rung.price.input + _OUTPUT_SHARE * rung.max_tokens * rung.price.output
    return max(rung.samples, 1) * tokens


def _begun(paced: Paced, old: Pace | None, unit: float) -> Pacing:
    """The pacing to go on from: what is known of this period, else a new one at the price that was known last."""
    fresh = Pacing.of(float(paced.budget), paced.seconds, unit, profile=paced.weights)
    if old is None:
        return fresh
    if old.scope != paced.scope:
        return replace(fresh, mu=old.pacing.mu)
    return replace(fresh, mu=old.pacing.mu, spent=old.pacing.spent, now=old.pacing.now)


def _current(look: _Look, paced: Paced, now: float) -> bool:
    return look.scope == paced.scope and 0 <= now - look.at < _every(paced.seconds)


def _every(seconds: float) -> float:
    return min(max(seconds / LOOKS, FASTEST), SLOWEST)
