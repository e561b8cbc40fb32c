"""For tests of what builds on Governor: a turned clock, a scripted backend, the contracts of ledgers and shelves.

    class TestMyLedger(LedgerContract):
        def make_ledger(self, clock, ttl):
            return MyLedger("redis://localhost", clock=clock, ttl=ttl)

Nothing here imports pytest; ask it for readable failures with `pytest.register_assert_rewrite("governor.testing")`.
"""

from __future__ import annotations

from governor.testing.awaited import AsyncLedger, Awaited
from governor.testing.clock import FrozenClock, raised
from governor.testing.leases import Leases
from governor.testing.reservations import Reservations
from governor.testing.scripted import Answer, Script, ScriptedBackend
from governor.testing.shelves import ShelfContract
from governor.testing.windows import Windows

__all__ = [
    "Answer",
    "AsyncLedger",
    "Awaited",
    "FrozenClock",
    "LedgerContract",
    "Script",
    "ScriptedBackend",
    "ShelfContract",
    "raised",
]


class LedgerContract(Reservations, Leases, Windows):
    """What every ledger must do. Subclass it in a test module, under a name that begins with Test.

    Say in `make_ledger(clock, ttl)` how an empty ledger is made: each test asks for one or several, which share
    nothing (a fresh file, a prefix of their own in a server that is shared). All time comes from `clock`, which the
    tests turn: a ledger that asks its server for the time can't pass. Close what you opened in a fixture of yours.

    `ttl` is how long leases run in these tests; set `keep` to the seconds for which your ledger remembers what was
    closed (at least 10,000: some tests come back after hours, and it must have forgotten after that). Several threads
    call one ledger at once. It must be `Auditable` beside: the tests look at what is left behind.

    The contract is written in blocking calls. Where every operation of a ledger is awaited, give it as
    `Awaited(ledger)`; a store that has both colours proves both, in two subclasses.
    """
