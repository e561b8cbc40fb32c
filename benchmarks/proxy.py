"""What the hook costs a LiteLLM proxy: one without it against governed ones, before an upstream that answers at once.

    python -m benchmarks.proxy [--runs 10] [--requests 300] [--stint 20] [--json]

Needs the extra `proxy`; takes 15 minutes. Every run starts fresh processes: an upstream, a bare proxy, and one
governed proxy for each kind of ledger, one of which verifies each answer too. Waiting times are of one client that asks
the proxies in turn, 20 times each (`--stint`), for whole answers and for the first event of streams that pass;
throughput is of 20 connections to one proxy at a time, in four turns, each in the order that reverses the one before.
The policy has two rungs, a monthly budget of the application and a daily one of the tenant; the prompt has 1,600
characters.

A run gives each proxy a median, and governed less bare is taken within the run. What is printed is the median over
runs, and a 95 % percentile bootstrap over runs (10,000 resamples, seed 0). Exit status 1 where a median passes its
limit. Client, upstream and proxies share the machine: take figures while it is idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.proxy_client import STINT, Connection, at_once, taking_turns
from benchmarks.proxy_servers import BARE, MEMORY, PROXIES, SQLITE, VERIFIED, proxies

CONCURRENCY = 20
TURNS = 4
WARMING = 40
MOST_MS: Mapping[str, float] = {MEMORY: 0.5, SQLITE: 1.0, VERIFIED: 1.0}
MOST_FIRST_MS = 2.0
PASSING = (BARE, MEMORY, SQLITE)
"""Proxies whose streams pass: what is verified is held back."""
LEAST_THROUGHPUT = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """One run: median milliseconds, those to a stream's first event, and requests a second of each proxy."""

    ms: Mapping[str, float]
    first_ms: Mapping[str, float]
    rps: Mapping[str, float]

    def added(self, name: str) -> float:
        """Milliseconds beyond the bare proxy's."""
        return self.ms[name] - self.ms[BARE]

    def added_first(self, name: str) -> float:
        """The same, until a stream's first event."""
        return self.first_ms[name] - self.first_ms[BARE]

    def ratio(self, name: str) -> float:
        """Throughput as a share of the bare proxy's."""
        return self.rps[name] / self.rps[BARE]


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over runs with its 95 % interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        found = np.asarray(values)
        picks = np.random.default_rng(0).integers(0, len(found), (10_000, len(found)))
        low, high = np.percentile(np.median(found[picks], axis=1), [2.5, 97.5])
        return cls(float(np.median(found)), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Compared:
    """A governed proxy against the bare one, and whether it keeps its limits."""

    name: str
    added_ms: Figure
    added_first_ms: Figure | None
    throughput: Figure

    @property
    def passed(self) -> bool:
        first = self.added_first_ms is None or self.added_first_ms.median <= MOST_FIRST_MS
        return first and self.added_ms.median <= MOST_MS[self.name] and self.throughput.median >= LEAST_THROUGHPUT


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Every governed proxy."""
    return [
        Compared(
            name,
            Figure.of([run.added(name) for run in runs]),
            Figure.of([run.added_first(name) for run in runs]) if name in PASSING else None,
            Figure.of([run.ratio(name) for run in runs]),
        )
        for name in PROXIES
        if name != BARE
    ]


def measured(requests: int, stint: int) -> Run:
    """One run."""
    with tempfile.TemporaryDirectory() as folder, proxies(Path(folder)) as ports:
        return asyncio.run(_measured(ports, requests, stint))


async def _measured(ports: Mapping[str, int], requests: int, stint: int) -> Run:
    for port in ports.values():
        await at_once(port, WARMING, CONCURRENCY)
    seconds = await taking_turns(list(ports.values()), requests, stint=stint)
    firsts = await taking_turns([ports[name] for name in PASSING], requests, Connection.first, stint)
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for name in (*ports, *reversed([*ports])) * (TURNS // 2):
        rates[name].append(await at_once(ports[name], 2 * requests // TURNS, CONCURRENCY))
    return Run(
        _medians(ports, seconds),
        _medians(PASSING, firsts),
        {name: statistics.harmonic_mean(found) for name, found in rates.items()},
    )


def _medians(names: Iterable[str], seconds: Iterable[Sequence[float]]) -> dict[str, float]:
    """In milliseconds."""
    return {name: statistics.median(found) * 1e3 for name, found in zip(names, seconds, strict=True)}


def table(runs: Sequence[Run], found: Sequence[Compared]) -> str:
    """As Markdown."""
    bare = f"{statistics.median(run.ms[BARE] for run in runs):.2f} ms, {_rps(runs):.0f} requests/s"
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines = [
        f"{len(runs)} runs; bare: {bare} with {CONCURRENCY} at once; {os.cpu_count()} processors, load {load}",
        "",
        "| ledger | added, ms | at most | to a stream's first event, ms | at most | throughput of bare | at least | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        added, share, verdict = _told(one.added_ms), _told(one.throughput), "pass" if one.passed else "**FAIL**"
        first = "held back | " if one.added_first_ms is None else f"{_told(one.added_first_ms)} | {MOST_FIRST_MS}"
        cells = (one.name, added, MOST_MS[one.name], first, share, LEAST_THROUGHPUT, verdict)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _rps(runs: Sequence[Run]) -> float:
    return statistics.median(run.rps[BARE] for run in runs)


def _told(figure: Figure) -> str:
    return f"{figure.median:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs, each of fresh processes (default 10)")
    parser.add_argument("--requests", type=int, default=300, help="to each proxy, for either figure (default 300)")
    parser.add_argument("--stint", type=int, default=STINT, help=f"of these in a row to one proxy (default {STINT})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    runs: list[Run] = []
    for number in range(1, arguments.runs + 1):
        print(f"run {number} of {arguments.runs} ...", file=sys.stderr, flush=True)
        runs.append(measured(arguments.requests, arguments.stint))
    found = compared(runs)
    passed = all(one.passed for one in found)
    if arguments.json:
        rows = {one.name: asdict(one) | {"passed": one.passed} for one in found}
        print(json.dumps({"runs": [asdict(run) for run in runs], "governed": rows, "passed": passed}))
    else:
        print(table(runs, found))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
