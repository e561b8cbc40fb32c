"""The published contracts over a real Redis server, in both colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from governor.ledger import open_ledger
from governor.ledger.redis_store import AsyncRedisLedger
from governor.protocols import Ledger, Shelf
from governor.testing import Awaited, LedgerContract, ShelfContract
from tests.redis_servers import RedisServer


class OnOneServer:
    """Each ledger is another tenant's."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> Iterator[None]:
        self.server = redis_server
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def noted(self, ledger: Ledger) -> Ledger:
        self.opened.append(ledger)
        return ledger

    def uri(self) -> str:
        return f"{self.server.uri}?tenant={uuid4().hex}&timeout=5"


class TestRedis(OnOneServer, LedgerContract):
    keep = 20_000.0

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        return self.noted(open_ledger(self.uri(), clock=clock, ttl=ttl, keep=self.keep))


class TestAwaitedRedis(OnOneServer, LedgerContract):
    keep = 20_000.0

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        return self.noted(Awaited(AsyncRedisLedger(self.uri(), clock, ttl, self.keep)))


class TestRedisShelf(OnOneServer, ShelfContract):
    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        ledger = self.noted(open_ledger(self.uri(), clock=clock))
        assert isinstance(ledger, Shelf)
        return ledger
