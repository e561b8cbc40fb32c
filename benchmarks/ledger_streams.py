"""A crowd of streams against each tenant's token budget, spread over replicas; the same load for every contender.

Each tenant has 128 clients. A client takes the next request, whose answer has a log-normal length (median 150, sigma
0.8, at most 1,024 tokens), until requests for 5 times the budget were made. Where others hold the rest it asks again, and
where the budget is spent it goes on with the next request, both after the second that all contenders ask it to wait.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TypeAlias

from benchmarks import ledger_stores
from benchmarks.ledger_contenders import (
    BUDGET,
    BUSY,
    MAX_TOKENS,
    STEP,
    TICK,
    ByHand,
    Contender,
    CountAfterwards,
    FullBound,
    Model,
    scope,
)
from benchmarks.ledger_crew import ready, together
from benchmarks.ledger_hardcap import gateways
from benchmarks.ledger_report import Claim, Report, Table
from benchmarks.ledger_stores import Fresh
from governor.ledger import open_ledger

MEDIAN, SIGMA = 150.0, 0.8
DEMAND = 5
PAUSE = 1.0
WARM = 100
LEAST_USABLE = 0.99
MOST_TRUNCATED = 1.2
NAIVE_OVERSHOOT = 2.0

Opened: TypeAlias = Callable[[Model, int], Contender]
"""Makes a contender in a replica: from the model that it reads, and the replica's number."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much of it: `streams` clients for each tenant, over all replicas."""

    tenants: int = 8
    streams: int = 128
    replicas: int = 3
    seed: int = 1

    def arrivals(self, tenant: str) -> list[int]:
        """Lengths of all answers that are asked for."""
        rng, lengths = random.Random(f"{self.seed}/{tenant}"), list[int]()
        while sum(lengths) < DEMAND * BUDGET:
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
    await asyncio.to_thread(ready)
    run.began = time.monotonic()
    async with asyncio.TaskGroup() as clients:
        for name, tally in run.tallies.items():
            asked = deque(load.arrivals(name)[place :: load.replicas])
            for _ in range(place, load.streams, load.replicas):
                clients.create_task(_client(contender, name, asked, tally, rng))
    run.ended = time.monotonic()
    for name, tally in run.tallies.items():
        tally.made = model.made[name]
    await contender.close()
    return run


async def _client(contender: Contender, tenant: str, asked: deque[int], tally: Tally, rng: random.Random) -> None:
    while asked:
        wanted = asked.popleft()
        served = await contender.serve(tenant, wanted)
        while served.refused == BUSY:
            tally.waits += 1
            await asyncio.sleep(PAUSE * rng.uniform(0.5, 1.5))
            served = await contender.serve(tenant, wanted)
        if served.refused:
            tally.refused += 1
            await asyncio.sleep(PAUSE * rng.uniform(0.5, 1.5))
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


Kind: TypeAlias = Callable[[Model, str, int], Contender]
Sited: TypeAlias = Callable[[Load], AbstractContextManager[Site]]


def opened(kind: Kind, uri: str, model: Model, place: int) -> Contender:
    """In a replica: a contender over a ledger."""
    return kind(model, uri, place)


@contextmanager
def over_ledger(store: Callable[[], AbstractContextManager[Fresh]], kind: Kind, _load: Load) -> Iterator[Site]:
    """A contender over an empty ledger."""
    with store() as fresh:
        uri = fresh()
        yield Site(partial(opened, kind, uri), partial(booked, uri))


def booked(uri: str, tenant: str) -> int:
    """What the ledger says that a tenant's streams came to."""
    ledger = open_ledger(uri)
    try:
        return ledger.balance(scope(tenant)).spent.answer
    finally:
        ledger.close()


@contextmanager
def peer(load: Load) -> Iterator[Site]:
    """The best one there is."""
    with gateways(load.replicas, load.names) as running:
        yield Site(running.client, running.booked, running.made)


CONTENDERS: dict[str, Sited] = {
    "hardcap, Redis": peer,
    "ledger by hand, SQLite": partial(over_ledger, ledger_stores.sqlite, ByHand),
    "ledger by hand, Redis": partial(over_ledger, ledger_stores.redis, ByHand),
    "full bound held, SQLite": partial(over_ledger, ledger_stores.sqlite, FullBound),
    "count afterwards, SQLite": partial(over_ledger, ledger_stores.sqlite, CountAfterwards),
}
