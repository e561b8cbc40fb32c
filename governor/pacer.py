"""The shadow price of a period's budget while serving: read off the ledger, shared by its replicas."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

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
    not be passed. A new period begins with the price at which the last one ended.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}

    def mu(self, paced: Sequence[Paced], ladder: Sequence[Rung], now: float) -> float:
        """Value per micro-USD, summed over budgets, for a step on this ladder at `now` (POSIX seconds).

        Raises TypeError where the ledger is awaited: its balances can't be read here.
        """
        unit = dear(ladder)
        return sum(self._price(one, unit, now) for one in paced) if unit > 0.0 else 0.0  # nothing costs anything

    def _price(self, paced: Paced, unit: float, now: float) -> float:
        with self._lock:
            last = self._looks.pop(paced.name, _NEVER)
            current = last.scope == paced.scope and 0 <= now - last.at < _every(paced.seconds)
            # Marked before the store is asked: others go on with the last price meanwhile, and while it is down.
            self._looks[paced.name] = last if current else _Look(now, paced.scope, last.pace)
            if len(self._looks) > REMEMBERED:
                del self._looks[next(iter(self._looks))]
        if current:
            return last.mu
        try:
            found = _Look(now, paced.scope, self._looked(paced, last.pace, unit, now))
        except LedgerError:
            return last.mu
        with self._lock:
            self._looks[paced.name] = found
        return found.mu

    def _looked(self, paced: Paced, known: Pace | None, unit: float, now: float) -> Pace:
        ledger = self._ledger()
        balance: Any = ledger.balance(paced.scope)
        if inspect.isawaitable(balance):
            cast("Coroutine[Any, Any, Any]", balance).close()
            raise TypeError(
                f"'{paced.scope}' has a pace, which needs a ledger that answers at once, not an awaited one"
            )
        spent = balance.spent.micros

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


def _every(seconds: float) -> float:
    return min(max(seconds / LOOKS, FASTEST), SLOWEST)
