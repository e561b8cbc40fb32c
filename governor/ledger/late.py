"""An awaited ledger that makes up for what its store did not hear of while it was down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger.standby import MOST_DEBTS, RETRY_SECONDS
from governor.protocols import AwaitedLedger, Reservation
from governor.records import Amount, Limit

log = logging.getLogger("governor.ledger")


class LateLedger:
    """An AwaitedLedger over another, for one event loop: what can't be closed now is closed once the store answers.

    Errors are raised as they come. A settlement or refund that met LedgerUnavailableError is then tried again every
    `every` seconds, and a reservation that met it, and may be held all the same, is refunded: a key is not used again
    after that. A settlement that comes after its lease ran out takes the place of what the lease booked. `close` makes
    a last attempt; what is owed even then is left to leases.
    """

    def __init__(self, ledger: AwaitedLedger, every: float = RETRY_SECONDS) -> None:
        self._ledger = ledger
        self._every = every
        self._debts: dict[str, Amount | None] = {}
        self._paying: asyncio.Task[None] | None = None

    @property
    def owed(self) -> int:
        """How many reservations wait to be closed."""
        return len(self._debts)

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        try:
            held = await self._ledger.reserve(key, amount, limits, sent=sent)
        except LedgerUnavailableError:
            self._owe(key, None)
            raise
        self._debts.pop(key, None)
        return held

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return await self._ledger.extend(key, amount, whole=whole, sent=sent)

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return await self._close(key, spent)

    async def refund(self, key: str) -> Reservation:
        return await self._close(key, None)

    async def close(self) -> None:
        if self._paying is not None:
            self._paying.cancel()
            with suppress(asyncio.CancelledError):
                await self._paying
        await self._pay()
        if self._debts:
            log.error("%d reservations could not be closed: their leases will book their bounds", len(self._debts))
        await self._ledger.close()

    async def _close(self, key: str, spent: Amount | None) -> Reservation:
        try:
            return await self._closed(key, spent)
        except LedgerUnavailableError:
            self._owe(key, spent)
            raise

    async def _closed(self, key: str, spent: Amount | None) -> Reservation:
        return await (self._ledger.refund(key) if spent is None else self._ledger.settle(key, spent))

    def _owe(self, key: str, spent: Amount | None) -> None:
        if len(self._debts) >= MOST_DEBTS:
            return
        self._debts[key] = spent
        if self._paying is None or self._paying.done():
            self._paying = asyncio.get_running_loop().create_task(self._pay_later())

    async def _pay_later(self) -> None:
        while self._debts:
            await asyncio.sleep(self._every)
            await self._pay()

    async def _pay(self) -> None:
        """Close what is owed, the oldest first, as far as the store answers."""
        for key, spent in [*self._debts.items()]:
            try:
                await self._closed(key, spent)
            except LedgerUnavailableError:
                return
            except LedgerError as error:
                if spent is not None:
                    log.error("the settlement of %s came too late: %s", key, error)
            self._debts.pop(key, None)
