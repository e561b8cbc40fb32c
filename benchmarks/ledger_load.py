"""One load for every contender: a crowd of clients for each tenant, spread over replica processes.

A client takes the next request, whose answer has a log-normal length, until requests for several times the budget
were made. Where others hold the rest it asks again, and where the budget is spent it goes on with the next request,
both after the second that all contenders ask it to wait.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.ledger_contenders import BUSY, MAX_TOKENS, Contender, Model
from benchmarks.ledger_crew import ready, together

MEDIAN, SIGMA = 150.0, 0.8
WARM = 100

Opened: TypeAlias = Callable[[Model, int], Contender]
"""Makes a contender in a replica: from the model that it reads, and the replica's number."""

Pause: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Load:
    """How much of it: `streams` clients for each tenant, over all replicas.

    They ask for `demand` times its `budget` of tokens, and wait `pause` seconds, half of it more or less.
    """

    tenants: int = 8
    streams: int = 128
    replicas: int = 3
    budget: int = 20_000
    demand: int = 5
    pause: float = 1.0
    seed: int = 1

    def arrivals(self, tenant: str) -> list[int]:
        """Lengths of all answers that are asked for."""
        rng, lengths = random.Random(f"{self.seed}/{tenant}"), list[int]()
        while sum(lengths) < self.demand * self.budget:
            lengths.append(length(rng))
        return lengths

    @property
    def names(self) -> list[str]:
        """The tenants."""
        return [f"tenant{number}" for number in range(self.tenants)]


def length(rng: random.Random) -> int:
    """Tokens of one answer."""
    return max(1, min(round(rng.lognormvariate(math.log(MEDIAN), SIGMA)), MAX_TOKENS))


@dataclass(slots=True)
class Tally:
    """What came of one tenant's requests; `made` is what the model made for them, read or not."""

    made: int = 0
    delivered: int = 0
    streams: int = 0
    truncated: int = 0
    refused: int = 0
    waits: int = 0
    booked: int = 0

    def add(self, other: Tally) -> None:
        """Those of another replica."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Run:
    """One contender under one load: tallies by tenant, and from the first request to the last answer."""

    tallies: dict[str, Tally]
    began: float = math.inf
    ended: float = -math.inf


@dataclass(frozen=True, slots=True)
class Site:
    """A contender set up: how a replica opens it, what its books say of a tenant, and what a model elsewhere made."""

    opened: Opened
    booked: Callable[[str], int]
    made: Callable[[str], int] | None = None


def replica(place: int, opened: Opened, load: Load) -> Run:
    """One replica process, with its share of each tenant's clients."""
    return asyncio.run(_replica(place, opened, load))


async def _replica(place: int, opened: Opened, load: Load) -> Run:
    model = Model()
    contender = opened(model, place)
    rng = random.Random(f"{load.seed}/{place}")
    await contender.warm([length(rng) for _ in range(WARM)])
    run = Run({name: Tally() for name in load.names})

    async def pause() -> None:
        await asyncio.sleep(load.pause * rng.uniform(0.5, 1.5))

    await asyncio.to_thread(ready)
    run.began = time.monotonic()
    async with asyncio.TaskGroup() as clients:
        for name, tally in run.tallies.items():
            asked = deque(load.arrivals(name)[place :: load.replicas])
            for _ in range(place, load.streams, load.replicas):
                clients.create_task(_client(contender, name, asked, tally, pause))
    run.ended = time.monotonic()
    for name, tally in run.tallies.items():
        tally.made = model.made[name]
    await contender.close()
    return run


async def _client(contender: Contender, tenant: str, asked: deque[int], tally: Tally, pause: Pause) -> None:
    while asked:
        wanted = asked.popleft()
        served = await contender.serve(tenant, wanted)
        while served.refused == BUSY:
            tally.waits += 1
            await pause()
            served = await contender.serve(tenant, wanted)
        if served.refused:
            tally.refused += 1
            await pause()
        else:
            tally.streams += 1
            tally.delivered += served.tokens
            tally.truncated += served.tokens < wanted


def run(site: Site, load: Load) -> Run:
    """All replicas together."""
    whole = Run({name: Tally() for name in load.names})
    for one in together(load.replicas, replica, site.opened, load):
        whole.began, whole.ended = min(whole.began, one.began), max(whole.ended, one.ended)
        for name, tally in one.tallies.items():
            whole.tallies[name].add(tally)
    for name, tally in whole.tallies.items():
        tally.booked = site.booked(name)
        if site.made is not None:
            tally.made = site.made(name)
    return whole
