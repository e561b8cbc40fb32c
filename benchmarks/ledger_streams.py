"""A crowd of streams against each tenant's token budget: what is overspent, what stays unused, and who is cut short."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TypeAlias

from benchmarks import ledger_stores
from benchmarks.ledger_contenders import (
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
from benchmarks.ledger_hardcap import gateways
from benchmarks.ledger_hardcap import installed as hardcap_is_there
from benchmarks.ledger_load import MEDIAN, SIGMA, Load, Run, Site, run
from benchmarks.ledger_product import Governed
from benchmarks.ledger_report import Claim, Report, Table
from benchmarks.ledger_stores import Fresh
from governor.ledger import open_ledger

LEAST_USABLE = 0.99
MOST_TRUNCATED = 1.2
NAIVE_OVERSHOOT = 2.0


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one contender over the tenants of all its runs; shares are of the budget."""

    overshoot: int
    share_over: float
    usable: float
    least_usable: float
    truncated: float
    refused: float
    waits: float
    misbooked: int
    seconds: float

    @classmethod
    def of(cls, runs: Sequence[Run], budget: int) -> Result:
        """The worst and the mean tenant."""
        tallies = [tally for one in runs for tally in one.tallies.values()]
        usable = [min(tally.delivered, budget) / budget for tally in tallies]
        over = max(max(tally.made - budget for tally in tallies), 0)
        return cls(
            overshoot=over,
            share_over=over / budget,
            usable=fmean(usable),
            least_usable=min(usable),
            truncated=fmean(tally.truncated for tally in tallies),
            refused=fmean(tally.refused for tally in tallies),
            waits=fmean(tally.waits for tally in tallies),
            misbooked=max(abs(tally.made - tally.booked) for tally in tallies),
            seconds=fmean(one.ended - one.began for one in runs),
        )


Kind: TypeAlias = Callable[[Model, str, int, int], Contender]
Sited: TypeAlias = Callable[[Load], AbstractContextManager[Site]]


def opened(kind: Kind, uri: str, budget: int, model: Model, place: int) -> Contender:
    """In a replica: a contender over a ledger."""
    return kind(model, uri, budget, place)


@contextmanager
def over_ledger(
    store: Callable[[], AbstractContextManager[Fresh]], kind: Kind, load: Load
) -> Generator[Site, None, None]:
    """A contender over an empty ledger."""
    with store() as fresh:
        uri = fresh()
        yield Site(partial(opened, kind, uri, load.budget), partial(booked, uri))


def booked(uri: str, tenant: str) -> int:
    """What the ledger says that a tenant's streams came to."""
    ledger = open_ledger(uri)
    try:
        return ledger.balance(scope(tenant)).spent.answer
    finally:
        ledger.close()


@contextmanager
def peer(load: Load) -> Generator[Site, None, None]:
    """The best one there is."""
    with gateways(load.replicas, load.names, load.budget) as running:
        yield Site(running.client, running.booked, running.made)


CONTENDERS: dict[str, Sited] = {
    "governor, SQLite": partial(over_ledger, ledger_stores.sqlite, Governed),
    "governor, Redis": partial(over_ledger, ledger_stores.redis, Governed),
    "hardcap, Redis": peer,
    "ledger by hand, SQLite": partial(over_ledger, ledger_stores.sqlite, ByHand),
    "ledger by hand, Redis": partial(over_ledger, ledger_stores.redis, ByHand),
    "full bound held, Redis": partial(over_ledger, ledger_stores.redis, FullBound),
    "counted afterwards, Redis": partial(over_ledger, ledger_stores.redis, CountAfterwards),
}
HOLD = ("governor, SQLite", "governor, Redis")
PEER, NAIVE = "hardcap, Redis", "counted afterwards, Redis"
SHORT = (*HOLD, NAIVE)


def measure(*, short: bool, runs: int = 3) -> Report:
    """Every contender under the same loads; in short, three of them under a small one."""
    loads = (
        [Load(tenants=2, streams=32, budget=5_000, demand=2, pause=0.2)]
        if short
        else [Load(seed=seed) for seed in range(1, runs + 1)]
    )
    names = [name for name in CONTENDERS if _wanted(name, short=short)]
    found = {name: Result.of([_one(name, load) for load in loads], loads[0].budget) for name in names}
    return Report((_table(found, loads),), tuple(_claims(found, short=short)))


def _wanted(name: str, *, short: bool) -> bool:
    return name in SHORT if short else name != PEER or hardcap_is_there()


def _one(name: str, load: Load) -> Run:
    print(f"streams: {name}, seed {load.seed} ...", file=sys.stderr, flush=True)
    with CONTENDERS[name](load) as site:
        return run(site, load)


def _table(found: dict[str, Result], loads: Sequence[Load]) -> Table:
    load = loads[0]
    note = (
        f"{len(loads)} x {load.tenants} tenants with {load.budget:,} tokens and {load.streams} concurrent streams each "
        f"over {load.replicas} replicas; lengths log-normal (median {MEDIAN:g}, sigma {SIGMA:g}), at most {MAX_TOKENS},"
        f" a token every {1000 * TICK:g} ms; steps of {STEP}; requests for {load.demand} budgets. Means over tenants, "
        "but for the most over and the least usable. `made` is what the model made, whoever read it."
    )
    head = (
        "contender", "most over, tokens", "usable", "least", "truncated", "refused for good", "asked again",
        "made, but booked otherwise", "seconds",
    )  # fmt: skip
    absent = () if PEER in found or len(found) == len(SHORT) else ((f"{PEER} (not installed)", *"--------"),)
    return Table("Streams", head, (*(_row(name, one) for name, one in found.items()), *absent), note)


def _row(name: str, one: Result) -> tuple[str, ...]:
    return (
        name,
        f"{one.overshoot:,} (+{one.share_over:.2%})",
        f"{one.usable:.1%}",
        f"{one.least_usable:.1%}",
        f"{one.truncated:.2f}",
        f"{one.refused:.0f}",
        f"{one.waits:,.0f}",
        f"{one.misbooked:,}",
        f"{one.seconds:.1f}",
    )


def _claims(found: dict[str, Result], *, short: bool) -> Iterator[Claim]:
    for name in HOLD:
        one = found[name]
        yield Claim(
            text=f"overshoot, {name}", measured=f"{one.overshoot} tokens", target="0 tokens", met=one.overshoot == 0
        )
        yield Claim(
            text=f"made, but booked otherwise, {name}",
            measured=f"{one.misbooked} tokens",
            target="0 tokens",
            met=one.misbooked == 0,
        )
        if short:
            continue
        yield Claim(
            text=f"usable, {name}",
            measured=f"{one.usable:.2%}",
            target=f">= {LEAST_USABLE:.0%}",
            met=one.usable >= LEAST_USABLE,
        )
        yield Claim(
            text=f"truncated streams a tenant, {name}",
            measured=f"{one.truncated:.2f}",
            target=f"<= {MOST_TRUNCATED}",
            met=one.truncated <= MOST_TRUNCATED,
        )
    if not short:
        naive = found[NAIVE].share_over
        target = f">= +{NAIVE_OVERSHOOT:.0%}"
        yield Claim(
            text="overshoot, counted afterwards", measured=f"+{naive:.0%}", target=target, met=naive >= NAIVE_OVERSHOOT
        )
