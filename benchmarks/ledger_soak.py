"""An hour of traffic on a turned clock: what is kept must not grow.

Sessions of three steps book on windows of every kind; some steps die and run into their lease, some settle after that,
some are refunded. Values with a time to live come and go on the shelf. All durations are shares of the hour, so that by
its second quarter whatever will be forgotten was forgotten for the first time: flat is what is at most 5 % higher in
the last quarter's mean than in the second's, or higher by no more than a floor (`FLOORS`). Memory is Python's own count
of its blocks since the store was opened, and the process's resident pages.
"""

from __future__ import annotations

import gc
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias, cast

from redis import Redis

from benchmarks.ledger_crew import ready, together
from benchmarks.ledger_report import Claim, Report, Table
from benchmarks.ledger_stores import every_store
from governor.ledger import open_ledger
from governor.ledger.sqlite import LOG_BYTES
from governor.protocols import Auditable, Ledger, Shelf
from governor.records import Amount, Limit, Window
from governor.testing import FrozenClock

GROWTH = 1.05
SAMPLES = 60
STEPS_A_SESSION = 3
PLENTY = 2**50

Gauges: TypeAlias = dict[str, float]
Look: TypeAlias = Callable[[], Gauges]

FLOORS = {"blocks of Python since": 2_000.0, "resident, MiB": 2.0, "file, KiB": 64.0, "server memory, KiB": 256.0}
"""Growth that is not told from noise; of counts, `ROWS`."""
ROWS = 20.0
BOUNDED = "file and log on disk, MiB"
UNCLAIMED = frozenset({BOUNDED})


@dataclass(frozen=True, slots=True)
class Hour:
    """`seconds` of the turned clock, with `rate` steps in each."""

    seconds: int
    rate: int

    @property
    def ttl(self) -> float:
        """Of a lease."""
        return self.seconds / 60

    @property
    def keep(self) -> float:
        """How long closed reservations are remembered."""
        return self.seconds / 12

    def limits(self, now: float, session: int) -> tuple[Limit, ...]:
        """A step's: its session, a minute's window, a sliding one, and a total."""
        minute = self.seconds / 60
        number = now // minute
        return (
            Limit(f"session:soak/{session}", micros=PLENTY, window=Window(idle=self.keep)),
            Limit(f"tenant:soak/a@{number:.0f}", tokens=PLENTY, window=Window(until=(number + 1) * minute)),
            Limit("app:soak~slides", tokens=PLENTY, window=Window(sliding=self.seconds / 6)),
            Limit("app:soak", micros=PLENTY),
        )


def soak(_place: int, uri: str, hour: Hour) -> list[Gauges]:
    """One store, in a process of its own: gauges SAMPLES times in the hour."""
    clock = FrozenClock()
    ledger = open_ledger(uri, clock=clock, ttl=hour.ttl, keep=hour.keep)
    look, traffic = _look(uri, ledger), _traffic(ledger, clock, hour)
    ready()
    found: list[Gauges] = []
    for _ in range(SAMPLES):
        for _ in islice(traffic, hour.seconds // SAMPLES):
            pass
        found.append(look())
    ledger.close()
    return found


def _traffic(ledger: Ledger, clock: FrozenClock, hour: Hour) -> Iterator[None]:
    """Yields after every second."""
    rng, late, number = random.Random(4), list[tuple[float, str]](), 0
    shelf = cast("Shelf", ledger)
    while True:
        for _ in range(hour.rate):
            number += 1
            key = f"step:soak/{number}"
            ledger.reserve(key, Amount(tokens=600, micros=3_000), hour.limits(clock(), number // STEPS_A_SESSION))
            _end(ledger, key, rng.random(), late, clock() + 2 * hour.ttl)
        while late and late[0][0] <= clock():
            ledger.settle(late.pop(0)[1], Amount(tokens=450, micros=2_250))
        _learn(shelf, number, 2 * hour.ttl)
        yield
        clock.advance(1.0)


def _end(ledger: Ledger, key: str, draw: float, late: list[tuple[float, str]], settles: float) -> None:
    """Of 20 steps one dies, one settles when its lease has run out, one is refunded; a fourth of the rest extend."""
    if draw < 0.05:
        return
    if draw < 0.1:
        late.append((settles, key))
    elif draw < 0.15:
        ledger.refund(key)
    else:
        if draw < 0.35:
            ledger.extend(key, Amount(tokens=64, micros=320))
        ledger.settle(key, Amount(tokens=450, micros=2_250))


def _learn(shelf: Shelf, number: int, ttl: float) -> None:
    """A value that is changed for ever, and one that nobody asks for again."""
    known = shelf.load("learned")
    shelf.save("learned", str(number).encode(), known[1] if known else 0)
    shelf.save(f"note/{number}", b"x" * 100, 0, ttl=ttl)


def _look(uri: str, ledger: Ledger) -> Look:
    audited = cast("Auditable", ledger)
    at_first = _blocks()
    beside = _LOOKS.get(uri.partition("://")[0], _nothing)

    def look() -> Gauges:
        return {
            "reservations": len(audited.reservations()),
            "scopes": len(audited.balances()),
            **beside(uri, ledger),
            "blocks of Python since": _blocks() - at_first,
            "resident, MiB": _resident(),
        }

    return look


def _blocks() -> float:
    gc.collect()
    return sys.getallocatedblocks()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _nothing(_uri: str, _ledger: Ledger) -> Gauges:
    return {}


def _in_memory(_uri: str, ledger: Ledger) -> Gauges:
    store = cast("Any", ledger)._store
    return {"entries in all": sum(len(part) for part in vars(store).values() if hasattr(part, "__len__"))}


def _in_file(uri: str, _ledger: Ledger) -> Gauges:
    path = Path(uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as beside:
        (rows,) = beside.execute("SELECT count(*) FROM shelf").fetchone()
        (pages,) = beside.execute("PRAGMA page_count").fetchone()
        (size,) = beside.execute("PRAGMA page_size").fetchone()
    disk = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
    return {"shelf": rows, "file, KiB": pages * size / 1024, BOUNDED: disk / 2**20}


def _in_redis(uri: str, _ledger: Ledger) -> Gauges:
    with Redis.from_url(uri.partition("?")[0]) as client:
        fields = sum(_size(client, key) for key in cast("list[bytes]", client.keys()))
        used = cast("dict[str, int]", client.info("memory"))["used_memory"]
        return {"keys": client.dbsize(), "fields": fields, "server memory, KiB": used / 1024}


def _size(client: Redis, key: bytes) -> int:
    kind = cast("bytes", client.type(key))
    sizes = {b"hash": client.hlen, b"zset": client.zcard}
    return sizes[kind](key) if kind in sizes else 1


_LOOKS: dict[str, Callable[[str, Ledger], Gauges]] = {"memory": _in_memory, "sqlite": _in_file, "redis": _in_redis}


def quarter(found: list[Gauges], name: str, number: int) -> float:
    """The mean of a gauge in one quarter of the hour, 0 to 3."""
    size = len(found) // 4
    return fmean(one[name] for one in found[number * size : (number + 1) * size])


def flat(found: list[Gauges], name: str) -> bool:
    """Whether the last quarter's mean is not above the second's."""
    before, after = quarter(found, name, 1), quarter(found, name, 3)
    return after <= max(before * GROWTH, before + FLOORS.get(name, ROWS))


def measure(hours: dict[str, Hour]) -> Report:
    """The stores that are there, one after the other."""
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    with every_store() as stores:
        for name, hour in hours.items():
            fresh = stores[name]
            if fresh is None:
                continue
            (found,) = together(1, soak, fresh(), hour)
            rows += [_row(name, hour, found, gauge) for gauge in found[0]]
            claims += _claims(name, found)
    first = next(iter(hours.values()))
    note = (
        f"{first.seconds:,} s of a turned clock; leases of {first.ttl:g} s, closed reservations remembered for "
        f"{first.keep:g} s; {SAMPLES} samples, means of quarters."
    )
    head = ("store", "steps", "gauge", "first", "second", "third", "last")
    return Report((Table("Soak", head, tuple(rows), note),), tuple(claims))


def _row(name: str, hour: Hour, found: list[Gauges], gauge: str) -> tuple[str, ...]:
    means = (f"{quarter(found, gauge, number):,.1f}" for number in range(4))
    return name, f"{hour.seconds * hour.rate:,}", gauge, *means


def _claims(name: str, found: list[Gauges]) -> Iterator[Claim]:
    grown = [gauge for gauge in found[0] if gauge not in UNCLAIMED and not flat(found, gauge)]
    yield Claim(
        text=f"flat over an hour, {name}",
        measured=f"growing: {', '.join(grown)}" if grown else "all gauges",
        target="all gauges",
        met=not grown,
    )
    if BOUNDED in found[0]:
        most, bound = max(one[BOUNDED] for one in found), LOG_BYTES / 2**20
        least = max(one["file, KiB"] for one in found) / 1024
        yield Claim(
            text=f"largest log, {name}",
            measured=f"{most - least:.0f} MiB",
            target=f"<= {1.25 * bound:.0f} MiB",
            met=most - least <= 1.25 * bound,
        )
