"""For tests of what builds on Governor: a turned clock, a scripted backend, the contracts of ledgers and shelves.

    class TestMyLedger(LedgerContract):
        def make_ledger(self, clock, ttl):
            return MyLedger("redis://localhost", clock=clock, ttl=ttl)

Nothing here imports pytest; ask it for readable failures with `pytest.register_assert_rewrite("governor.testing")`.
"""

from __future__ import annotations

from governor.testing.clock import FrozenClock, raised
from governor.testing.leases import Leases
from governor.testing.reservations import Reservations
from governor.testing.scripted import Answer, Script, ScriptedBackend
from governor.testing.shelves import ShelfContract
from governor.testing.windows import Windows

__all__ = ["Answer", "FrozenClock", "LedgerContract", "Script", "ScriptedBackend", "ShelfContract", "raised"]


class LedgerContract(Reservations, Leases, Windows):
    """What every ledger must do. Subclass it in a test module and say how an empty ledger is made.

    `ttl` is how long leases run in its tests; set `keep` to the seconds for which your ledger remembers what was closed
    (at least 10,000: some tests come back after hours).
    """
