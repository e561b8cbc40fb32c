"""Two governed LiteLLM proxies on one Redis, at 80 % of their capacity, while everything around them breaks.

    python -m benchmarks.proxy_load [--minutes 30] [--json]

Needs the extras `proxy` and `redis`, and redis-server. Clients of three request formats come at random moments
(Poisson) to two governed proxies and, for comparison, to a bare one; all of these ask one scripted upstream. That one
answers a seeded share of calls with a 429, a 500, a cut in mid-stream or not at all; 4 % of the clients go away; Redis
is restarted again and again (one time in three by SIGKILL, with `appendfsync always`); the policies are rewritten every
second, one time in seven with a file that can't be used. Every application has a budget that is reached.

What must hold then: no scope has spent more than its limit; ledger, records and the upstream's own count agree
(`governor.telemetry.audit`); every error has a cause outside of the hook; memory is flat. Exit status 1 where one does
not. Memory is judged from 10 minutes on, against the bare one's (see proxy_load_memory). Capacity is what a closed loop
reaches with the reloads and without faults; client, upstream, Redis and proxies share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.ledger_report import Report, Table
from benchmarks.proxy_load_evidence import Evidence, Load
from benchmarks.proxy_load_judge import Judge, judged
from benchmarks.proxy_load_memory import BLOCKS, JUDGED_FROM, Sample, grown
from benchmarks.proxy_load_servers import BARE, GOVERNED, MASTER, TTL, Policies, Servers, reload, restart, servers
from benchmarks.proxy_load_traffic import CLIENT_SECONDS, closed_loop, open_loop
from benchmarks.proxy_load_upstream import Fault, Served
from governor.ledger.redis_store import RedisLedger
from governor.telemetry.records import read_records

SHARE = 0.8
"""Of the capacity."""
AT_ONCE = 24
LEAST_MINUTES = 0.5
RESTARTS_A_MINUTE = 1.0
SAMPLE_SECONDS = 1.0


def measured(minutes: float, seed: int) -> Evidence:
    """One run."""
    with (
        tempfile.TemporaryDirectory(prefix="governor-load-") as folder,
        servers(Path(folder), seed) as (known, policies),
    ):
        load = asyncio.run(_loaded(known, policies, minutes * 60, seed))
        return _evidence(known, policies, load)


async def _loaded(known: Servers, policies: Policies, seconds: float, seed: int) -> Load:
    memory: list[tuple[float, dict[str, float]]] = []
    reloading = asyncio.create_task(reload(policies))
    warming = min(10.0, seconds / 10)
    await closed_loop(known.ports, warming, AT_ONCE, seed)
    first = await closed_loop(known.ports, 2 * warming, AT_ONCE, seed + 1)
    capacity = len(first) / (2 * warming)
    sampling = asyncio.create_task(_sample(known, memory))
    restarting = asyncio.create_task(restart(known.redis, seconds, max(3, round(seconds / 60 * RESTARTS_A_MINUTE))))
    answers = await open_loop(known.ports, seconds, SHARE * capacity, seed)
    outages = await restarting
    await _ended(reloading, sampling)
    return Load(capacity, SHARE * capacity, seconds, tuple(answers), tuple(outages), tuple(memory))


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """End them; what one of them broke down of is raised."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):
            raise found


async def _sample(known: Servers, memory: list[tuple[float, dict[str, float]]]) -> None:
    while True:
        memory.append((time.time(), known.memory()))
        await asyncio.sleep(SAMPLE_SECONDS)


def _evidence(known: Servers, policies: Policies, load: Load) -> Evidence:
    died = known.died()
    for name, code in died.items():
        print(f"{name}: exit status {code}; its last words:\n{known.last_words(name)}", file=sys.stderr)
    left = {name: _until_idle(known.ports[name]) for name in GOVERNED if name not in died}
    told = _got(f"http://127.0.0.1:{known.upstream}/tally")
    with closing(RedisLedger(f"{known.redis.uri}?timeout=10", clock=lambda: time.time() + TTL + 1)) as late:
        reservations, balances = late.reservations(), late.balances()
    return Evidence(
        load=load,
        served={number: Served(*one) for number, one in told.items()},
        records=tuple(record for path in known.records() for record in read_records(path, strict=True)),
        balances=balances,
        reservations=reservations,
        flights=left,
        logs=known.logs(),
        rewritten=policies.written,
        invalid=policies.invalid,
        died=died,
    )


def _until_idle(port: int) -> int:
    """Flights that are still open, or not settled, when every client has long got its answer."""
    ends = time.monotonic() + CLIENT_SECONDS
    while True:
        status = _got(f"http://127.0.0.1:{port}/governor/status")
        left = int(status["flights"]) + int(status["owed"])
        if not left or time.monotonic() > ends:
            return left
        time.sleep(0.5)


def _got(url: str) -> Any:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {MASTER}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def report(evidence: Evidence, now: float) -> Report:
    """What was measured, and which promises hold; `now` (seconds since the epoch): when the evidence was taken."""
    load = evidence.load
    note = (
        f"{load.seconds / 60:g} minutes at {load.rate:.0f} requests/s, {SHARE:.0%} of {load.capacity:.0f}; "
        f"{len(load.outages)} restarts of Redis, policies rewritten {evidence.rewritten} times "
        f"({evidence.invalid} invalid); {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    head = ("proxy", "requests", "answered", "refused", "failed", "clients that left", "p50, ms", "p99, ms", "MiB")
    rows = tuple(_row(load, name) for name in (*GOVERNED, BARE))
    tables = (Table("Proxy under load", head, rows, note), _befell(evidence), *_memory(load.memory))
    return Report(tables, judged(evidence, now))


def _row(load: Load, name: str) -> tuple[str, ...]:
    own = [one for one in load.answers if one.proxy == name]
    stayed = [one for one in own if not one.left]
    answered = [one for one in stayed if one.status == HTTPStatus.OK and one.whole]
    refused = sum("governor: " in one.said for one in stayed if one.status != HTTPStatus.OK)
    waits = [one.seconds * 1e3 for one in answered] or [0.0]
    first, last = (held[name] for _, held in (load.memory[0], load.memory[-1]))
    counts = (len(own), len(answered), refused, len(stayed) - len(answered) - refused, len(own) - len(stayed))
    p50, p99 = np.percentile(waits, [50, 99])
    return name, *(f"{number:,}" for number in counts), f"{p50:.0f}", f"{p99:.0f}", f"{first:.0f} to {last:.0f}"


def _befell(evidence: Evidence) -> Table:
    judge = Judge(evidence)
    faults = Counter(fault for one in evidence.served.values() for fault in one.faults)
    causes = Counter(cause for cause in map(judge.cause, judge.answers) if cause in ("budget", "redis"))
    states = Counter(one.state for one in evidence.reservations)
    rows = [(f"upstream: {fault}", faults[fault]) for fault in get_args(Fault)]
    rows += [("refused: a budget", causes["budget"]), ("refused: Redis was gone", causes["redis"])]
    rows += [(f"reservations {state}", number) for state, number in sorted(states.items())]
    return Table("What befell", ("what", "times"), tuple((what, f"{number:,}") for what, number in rows))


def _memory(samples: Sequence[Sample]) -> Iterator[Table]:
    if len(samples) < 4 * BLOCKS:
        return
    rows = [(name, grown(samples, name).told, grown(samples, name, BARE).told) for name in GOVERNED]
    rows.append((BARE, grown(samples, BARE).told, ""))
    note = f"Resident memory over the second half, 95 % intervals. Judged from {JUDGED_FROM / 60:g} minutes on."
    yield Table("Memory", ("proxy", "growth", "beyond the bare proxy's"), tuple(rows), note)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load (default 30, at least 0.5)")
    parser.add_argument("--seed", type=int, default=1, help="of requests, faults and arrivals (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.minutes < LEAST_MINUTES:
        parser.error(f"--minutes must be at least {LEAST_MINUTES:g}: {arguments.minutes:g}")
    if shutil.which("redis-server") is None:
        parser.error("needs redis-server: apt-get install redis-server")
    found = report(measured(arguments.minutes, arguments.seed), time.time())
    failed = found.failed()
    print(json.dumps(asdict(found) | {"passed": not failed}) if arguments.json else found.markdown)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
