"""An awaited ledger that makes up for what its store did not hear of while it was down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from governor.errors import LedgerError, LedgerLostError, LedgerUnavailableError
from governor.ledger.standby import MOST_DEBTS, RETRY_SECONDS
from governor.protocols import AwaitedLedger, Reservation
from governor.records import Amount, Limit

log = logging.getLogger("governor.ledger")


class LateLedger:
    """An AwaitedLedger over another, for one event loop: what can't be closed now is closed once the store answers.

    Errors are raised as they come. A settlement or refund that met LedgerUnavailableError is then tried again every
    `every` seconds; one that comes after its lease ran out takes the place of what the lease booked. Where keys are
    `unique`, so that nobody reserves one again, a reservation that met it, and may be held all the same, is given back.
    `close` makes a last attempt; what is owed even then is left to leases.
    """

    def __init__(self, ledger: AwaitedLedger, *, unique: bool = False, every: float = RETRY_SECONDS) -> None:
        self._ledger = ledger
        self._unique = unique
        self._every = every
        self._debts: dict[str, Amount | None] = {}
        """What was spent under each key that waits, None for a refund."""
        self._paying: asyncio.Task[None] | None = None

    @property
    def owed(self) -> int:
        """How many reservations wait to be closed."""
        return len(self._debts)

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        try:
            return await self._ledger.reserve(key, amount, limits, sent=sent)
        except LedgerLostError:
            raise  # the store has answered: nothing is held
        except LedgerUnavailableError:
            if self._unique:
                self._owe(key, None)
            raise

    async def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return await self._ledger.extend(key, amount, whole=whole, sent=sent)

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return await self._close(key, spent)

    async def refund(self, key: str) -> Reservation:
        return await self._close(key, None)

    async def close(self) -> None:
        try:
            if self._paying is not None:
                self._paying.cancel()
                await asyncio.wait([self._paying])
            await self._pay()
            if self._debts:
                log.error("%d reservations could not be closed: that is left to their leases", len(self._debts))
        finally:
            await self._ledger.close()

    async def _close(self, key: str, spent: Amount | None) -> Reservation:
        try:
            return await self._ask(key, spent)
        except LedgerUnavailableError:
            self._owe(key, spent)
            raise

    async def _ask(self, key: str, spent: Amount | None) -> Reservation:
        return await (self._ledger.refund(key) if spent is None else self._ledger.settle(key, spent))

    def _owe(self, key: str, spent: Amount | None) -> None:
        if len(self._debts) >= MOST_DEBTS and key not in self._debts:
            log.error("too many reservations wait to be closed: that of %s is left to its lease", key)
            return
        self._debts[key] = spent
        if self._paying is None or self._paying.done():
            self._paying = asyncio.get_running_loop().create_task(self._pay_later())

    async def _pay_later(self) -> None:
        while self._debts:
            await asyncio.sleep(self._every)
            await self._pay()

    async def _pay(self) -> None:
        """Close what is owed, settlements first, until two in a row fail: one may fail for what it asks."""
        failed = 0
        for key, spent in sorted(self._debts.items(), key=lambda debt: debt[1] is None):
            done = await self._paid(key, spent)
            failed = 0 if done else failed + 1
            if done:
                self._debts.pop(key, None)
            else:
                self._debts[key] = self._debts.pop(key)  # behind the others
            if failed == 2:
                return

    async def _paid(self, key: str, spent: Amount | None) -> bool:
        """Whether nothing more is to be done about a debt."""
        try:
            await self._ask(key, spent)
        except LedgerUnavailableError:
            return False
        except LedgerError as error:
            if spent is not None:
                log.error("the settlement of %s came too late: %s", key, error)
        except Exception:  # a defect in closing one debt must not keep all others from being paid
            log.exception("the reservation %s can't be closed: that is left to its lease", key)
        return True
