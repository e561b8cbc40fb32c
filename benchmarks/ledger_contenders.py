"""Ways to keep streams inside a token budget that replicas share, each over the project's own ledger.

All read the same scripted model and book `answer` tokens on one scope a tenant. `governor` itself is in
`ledger_product`, the peer in `ledger_hardcap`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar, cast

from governor.errors import BudgetExceededError
from governor.ledger import open_ledger
from governor.ledger.redis_store import AsyncRedisLedger
from governor.protocols import Ledger
from governor.records import Amount, Limit
from governor.testing import AsyncLedger

T = TypeVar("T")

MAX_TOKENS = 1024
STEP = 64
TICK = 0.005
"""Seconds from token to token of one stream."""

BUSY, SPENT = "budget_busy", "budget_exceeded"


@dataclass(frozen=True, slots=True)
class Served:
    """What a client got for one request: tokens, or a refusal's kind."""

    tokens: int = 0
    refused: str = ""


class Contender(Protocol):
    """One replica of a way to keep budgets."""

    async def warm(self, lengths: Sequence[int]) -> None:
        """Runs streams outside of all budgets, for whoever learns from what went before."""
        ...

    async def serve(self, tenant: str, length: int) -> Served:
        """One stream; the model would end it by itself after `length` tokens, at most MAX_TOKENS."""
        ...

    async def close(self) -> None: ...


class Model:
    """One token a tick; `made` counts all that it made by tenant, whoever read them: what a provider would bill."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    async def tokens(self, tenant: str, length: int) -> AsyncGenerator[int, None]:
        """Numbers each token from 1; closing the stream ends it."""
        for number in range(1, length + 1):
            await asyncio.sleep(TICK)
            self.made[tenant] += 1
            yield number


def scope(tenant: str) -> str:
    """Where a tenant's tokens are booked."""
    return f"tenant:streams/{tenant}"


class OverLedger:
    """What the contenders below share: a ledger that is awaited where it can be, and a model."""

    def __init__(self, model: Model, uri: str, budget: int, replica: int) -> None:
        redis = uri.startswith("redis")
        self._ledger: Ledger | AsyncLedger = AsyncRedisLedger(uri) if redis else open_ledger(uri)
        self._model = model
        self._budget = budget
        self._keys = (f"step:streams/{replica}-{number}" for number in count())

    async def warm(self, lengths: Sequence[int]) -> None:
        """Nothing is learned."""

    async def close(self) -> None:
        await _told(self._ledger.close())

    async def _open(self, tenant: str, held: int) -> str:
        """The key of a new hold; BudgetExceededError."""
        key = next(self._keys)
        await _told(self._ledger.reserve(key, Amount(answer=held), [Limit(scope(tenant), answer=self._budget)]))
        return key

    async def _settle(self, key: str, tokens: int) -> Served:
        await _told(self._ledger.settle(key, Amount(answer=tokens)))
        return Served(tokens)

    async def _whole(self, tenant: str, length: int) -> int:
        async for _ in self._model.tokens(tenant, length):
            pass
        return length


class CountAfterwards(OverLedger):
    """Admits while anything is left, and adds what a stream came to when it is over."""

    async def serve(self, tenant: str, length: int) -> Served:
        balance = await _told(self._ledger.balance(scope(tenant)))
        if balance.spent.answer >= self._budget:
            return Served(refused=SPENT)
        tokens = await self._whole(tenant, length)
        return await self._settle(await self._open(tenant, 0), tokens)


class FullBound(OverLedger):
    """Holds MAX_TOKENS for every stream."""

    async def serve(self, tenant: str, length: int) -> Served:
        try:
            key = await self._open(tenant, MAX_TOKENS)
        except BudgetExceededError as refusal:
            return Served(refused=refusal.kind)
        return await self._settle(key, await self._whole(tenant, length))


class ByHand(OverLedger):
    """Holds a fixed 95th percentile, extends by STEP one step ahead, and cuts where nothing more is to be had."""

    HELD = 560
    LEAST = 150  # the median: a rest that is smaller would hardly ever hold an answer
    AGAIN = 8

    async def serve(self, tenant: str, length: int) -> Served:
        try:
            key, held = await self._admit(tenant)
        except BudgetExceededError as refusal:
            return Served(refused=refusal.kind)
        made = 0
        async with aclosing(self._model.tokens(tenant, length)) as tokens:
            async for made in tokens:
                ahead = held - made
                if made < length and ahead < STEP and ahead % self.AGAIN == 0:
                    held += await self._more(key, STEP if ahead else 1)
                if made == held:
                    break
        return await self._settle(key, made)

    async def _admit(self, tenant: str) -> tuple[str, int]:
        """With what is left where that is less, but at least LEAST, as soon as nobody else holds anything."""
        try:
            return await self._open(tenant, self.HELD), self.HELD
        except BudgetExceededError as refusal:
            if refusal.kind == BUSY or refusal.left is None:
                raise
            balance = await _told(self._ledger.balance(scope(tenant)))
            rest = self._budget - balance.spent.answer
            if rest < self.LEAST:
                raise
            return await self._open(tenant, min(rest, self.HELD)), min(rest, self.HELD)

    async def _more(self, key: str, least: int) -> int:
        """STEP, or what is left of it if that is at least `least`; else nothing."""
        try:
            await _told(self._ledger.extend(key, Amount(answer=STEP)))
        except BudgetExceededError as refusal:
            rest = min(refusal.left.answer if refusal.left else 0, STEP)
            return await self._more_of(key, rest) if rest >= least else 0
        return STEP

    async def _more_of(self, key: str, rest: int) -> int:
        try:
            await _told(self._ledger.extend(key, Amount(answer=rest)))
        except BudgetExceededError:
            return 0
        return rest


async def _told(answer: T | Awaitable[T]) -> T:
    return await cast("Awaitable[T]", answer) if isinstance(answer, Awaitable) else answer
