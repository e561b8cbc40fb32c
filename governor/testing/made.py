"""How a contract gets the ledger that it tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from governor.protocols import Ledger
from governor.records import Limit
from governor.testing.clock import FrozenClock

STEP = Limit("step:1", tokens=100)
APP = Limit("app:a", tokens=150, micros=1_000)


class MadeLedger(ABC):
    """What the parts of the contract share."""

    ttl = 60.0
    keep = 86_400.0
    """For how many seconds the ledger remembers closed reservations: say here what yours was told."""

    @abstractmethod
    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        """A ledger without reservations, whose leases run `ttl` seconds on `clock`."""

    def _ledger(self) -> Ledger:
        return self.make_ledger(FrozenClock(), self.ttl)
