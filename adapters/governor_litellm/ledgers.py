"""The ledgers behind the policies of a proxy: they outlive every governor that books in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from governor.ledger.late import LateLedger
from governor.ledger.standby import RETRY_SECONDS, StandbyLedger, standby
from governor.protocols import AwaitedLedger
from governor.records import Limit

log = logging.getLogger("governor.proxy")


@dataclass(slots=True)
class Ledgers:
    """One open ledger per URI, shared by all governors and closed by none of them; where it can be awaited, two.

    What stands in for one while its store is down outlives governors too, with what it owes and what its cap has left.
    """

    open: Callable[[str], Any]
    open_awaited: Callable[[str], AwaitedLedger | None] = lambda _: None
    _opened: dict[str, Any] = field(default_factory=dict)
    _awaited: dict[str, AwaitedLedger | None] = field(default_factory=dict)
    _standing_in: dict[tuple[str, str], StandbyLedger] = field(default_factory=dict)
    _paying: asyncio.Task[None] | None = None

    def of(self, uri: str) -> Any:
        """The ledger of this URI. LedgerError where it can't be opened."""
        if uri not in self._opened:
            self._opened[uri] = self.open(uri)
        return self._opened[uri]

    def awaited(self, uri: str) -> AwaitedLedger | None:
        """The awaited ledger of this URI; None where it has none."""
        if uri not in self._awaited:
            self._awaited[uri] = self.open_awaited(uri)
        return self._awaited[uri]

    def standing_in(self, uri: str, cap: Limit) -> StandbyLedger:
        """What stands in for the ledger of this URI, up to a cap. LedgerError where it can't be opened."""
        found = self._standing_in.get((uri, cap.scope))
        if found is None:
            found = self._standing_in[uri, cap.scope] = standby(self.of(uri), cap)
        found.stand_in_to(cap)
        return found

    def pay(self) -> None:
        """Book what is owed by those that stand in, again and again until nothing is."""
        if self._owed_aside and (self._paying is None or self._paying.done()):
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        while self._owed_aside:
            await asyncio.sleep(RETRY_SECONDS)
            await self._pay_once()

    async def _pay_once(self) -> None:
        for one in tuple(self._standing_in.values()):
            if one.owed:
                await asyncio.to_thread(one.pay)

    @property
    def _owed_aside(self) -> int:
        return sum(one.owed for one in tuple(self._standing_in.values()))

    @property
    def opened(self) -> Mapping[str, Any]:
        return dict(self._opened)

    @property
    def owed(self) -> int:
        """How many reservations wait to be closed, because their store did not answer when they should have been."""
        late = sum(one.owed for one in tuple(self._awaited.values()) if isinstance(one, LateLedger))
        return late + self._owed_aside

    def close(self) -> None:
        for ledger in self._opened.values():
            ledger.close()
        self._opened.clear()

    async def aclose(self) -> None:
        """Close them all, after a last attempt to book what is owed."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.wait([self._paying])
        await self._pay_once()
        if self._owed_aside:
            log.error("%d closed reservations could not be booked: their store is down", self._owed_aside)
        self._standing_in.clear()
        for awaited in self._awaited.values():
            if awaited is not None:
                await awaited.close()
        self._awaited.clear()
        self.close()
