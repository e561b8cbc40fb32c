"""A ledger whose store is a server, for event loops: its operations wait in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from governor.aside import Threads
from governor.protocols import Ledger, Reservation
from governor.records import Amount, Limit

THREADS = 16
"""Operations that may wait at once: a server that says nothing takes its whole time limit for each."""


class ThreadedLedger:
    """An AwaitedLedger (governor.protocols) over one whose operations block. `close` leaves that one open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._threads = Threads(THREADS, "governor-ledger")

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return await self._run(partial(self._ledger.reserve, key, amount, limits, sent=sent))

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return await self._run(partial(self._ledger.extend, key, amount, whole=whole, sent=sent))

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return await self._run(partial(self._ledger.settle, key, spent))

    async def refund(self, key: str) -> Reservation:
        return await self._run(partial(self._ledger.refund, key))

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """Let go of the threads; operations under way come to their end."""
        self._threads.end()

    async def _run(self, operation: Callable[[], Reservation]) -> Reservation:
        """What the operation came to, whoever cancels: the thread goes on, and what it books must be known."""
        waiting = asyncio.wrap_future(self._threads.submit(operation))
        while not waiting.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([waiting])
        return waiting.result()
