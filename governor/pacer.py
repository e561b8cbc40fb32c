"""The shadow price of a period's budget while serving: read off the ledger, shared by its replicas."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from governor.errors import LedgerError
from governor.plan.pacing import Pacing
from governor.policy import Paced
from governor.protocols import Ledger, Shelf
from governor.records import Rung
from governor.shelf import update

LOOKS = 5_000
"""How many times in a period each process looks at what was spent, at most."""

SLOWEST, FASTEST = 10.0, 0.05
"""Seconds between two looks lie between these."""

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


class Pacer:
    """Gives each step the shadow price `mu` of its paced budgets. Safe for many threads.

    What was spent comes from the ledger, so that every replica counts what all of them spend; where the ledger is a
    Shelf, mu itself is shared too. While the ledger can't be reached the last price stands: the limits are what may
    not be passed. A new period begins with the price at which the last one ended.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Pace]] = {}

    def mu(self, paced: Sequence[Paced], ladder: Sequence[Rung], now: float) -> float:
        """Value per micro-USD, summed over budgets, for a step on this ladder at `now` (POSIX seconds)."""
        return sum(self._price(one, dear(ladder), now) for one in paced)

    def _price(self, paced: Paced, unit: float, now: float) -> float:
        if unit <= 0.0:
            return 0.0  # nothing costs anything: there is no spend to spread
        with self._lock:
            looked, known = self._known.get(paced.name, (float("-inf"), None))
            current = known is not None and known.scope == paced.scope
            if known is not None and current and 0 <= now - looked < _every(paced.seconds):
                return known.pacing.mu
            try:
                found = self._looked(paced, known, unit, now)
            except LedgerError:
                return 0.0 if known is None else known.pacing.mu
            self._known[paced.name] = now, found
            return found.pacing.mu

    def _looked(self, paced: Paced, known: Pace | None, unit: float, now: float) -> Pace:
        ledger = self._ledger()
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


def _every(seconds: float) -> float:
    return min(max(seconds / LOOKS, FASTEST), SLOWEST)
