"""Operations a second and the waiting of a reserve, beside the closest operation of the `limits` library.

An operation is one reserve, extend, settle or refund. Of eight steps each reserves, two extend, seven settle and one is
refunded. All book on one scope that all processes share, under a limit that never refuses. `limits` counts one hit of a
fixed window: check and add in one, its cheapest operation that is safe between processes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce

from limits import RateLimitItemPerDay
from limits.aio.storage import RedisStorage as AwaitedRedis
from limits.aio.strategies import FixedWindowRateLimiter as AwaitedWindow
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from benchmarks.ledger_crew import ready, together
from benchmarks.ledger_report import Claim, Report, Table
from benchmarks.ledger_stores import EVERY_SECOND, redis, sqlite
from governor.ledger import open_ledger
from governor.ledger.redis_store import AsyncRedisLedger
from governor.records import Amount, Limit

PROCESSES = 4
TASKS = 13
EIGHT = ("settle", "extend", "settle", "settle", "settle", "extend", "settle", "refund")
"""What follows the reserve of each of eight steps; those that extend settle, too."""

LIMITS = (Limit("tenant:bench/acme", micros=2**50, tokens=2**50),)
HELD = Amount(tokens=600, micros=3_000)
MORE = Amount(tokens=64, micros=320)
SPENT = Amount(tokens=450, micros=2_250)
PLENTY = RateLimitItemPerDay(2**50)


@dataclass(slots=True)
class Work:
    """What was done from `began` to `ended` (monotonic seconds, those of all processes), and each reserve's wait."""

    began: float = math.inf
    ended: float = -math.inf
    operations: int = 0
    waits: list[float] = field(default_factory=list)

    def beside(self, other: Work) -> Work:
        """Both, at the same time."""
        began, ended = min(self.began, other.began), max(self.ended, other.ended)
        return Work(began, ended, self.operations + other.operations, self.waits + other.waits)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / (self.ended - self.began)

    def wait(self, share: float) -> float:
        """The quantile of the waits, in milliseconds."""
        ordered = sorted(self.waits)
        return 1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def operations(steps: int) -> int:
    """How many operations so many steps are, the first of which is number 1."""
    return 2 * steps + sum(EIGHT[number % 8] == "extend" for number in range(1, steps % 8 + 1)) + 2 * (steps // 8)


def book(place: int, uri: str, seconds: float) -> Work:
    """One process, one operation after the other, inline."""
    ledger = open_ledger(uri)
    ledger.balance(LIMITS[0].scope)
    ready()
    done, clock = Work(began := time.monotonic()), time.monotonic
    start, number = began, 0
    while start < began + seconds:
        key, number = f"step:bench/{place}-{number}", number + 1
        ledger.reserve(key, HELD, LIMITS)
        done.waits.append(clock() - start)
        then = EIGHT[number % 8]
        if then == "extend":
            ledger.extend(key, MORE)
        if then == "refund":
            ledger.refund(key)
        else:
            ledger.settle(key, SPENT)
        start = clock()
    done.ended, done.operations = start, operations(number)
    ledger.close()
    return done


def book_awaited(place: int, uri: str, seconds: float) -> Work:
    """One process, TASKS tasks that each await one operation after the other."""

    async def one(ledger: AsyncRedisLedger, task: int) -> Work:
        done, clock = Work(began := time.monotonic()), time.monotonic
        start, number = began, 0
        while start < began + seconds:
            key, number = f"step:bench/{place}-{task}-{number}", number + 1
            await ledger.reserve(key, HELD, LIMITS)
            done.waits.append(clock() - start)
            then = EIGHT[number % 8]
            if then == "extend":
                await ledger.extend(key, MORE)
            await (ledger.refund(key) if then == "refund" else ledger.settle(key, SPENT))
            start = clock()
        done.ended, done.operations = start, operations(number)
        return done

    async def all_tasks() -> Work:
        ledger = AsyncRedisLedger(uri)
        await ledger.balance(LIMITS[0].scope)
        ready()
        try:
            return await _gathered(one(ledger, task) for task in range(TASKS))
        finally:
            await ledger.close()

    return asyncio.run(all_tasks())


def hit(_place: int, seconds: float) -> Work:
    """`limits` in memory."""
    window = FixedWindowRateLimiter(MemoryStorage())
    ready()
    done, clock = Work(began := time.monotonic()), time.monotonic
    start = began
    while start < began + seconds:
        window.hit(PLENTY, "acme")
        end = clock()
        done.waits.append(end - start)
        start = end
    done.ended, done.operations = start, len(done.waits)
    return done


def hit_awaited(_place: int, uri: str, seconds: float) -> Work:
    """`limits` in Redis, with its own choice of client for asyncio."""

    async def one(window: AwaitedWindow) -> Work:
        done, clock = Work(began := time.monotonic()), time.monotonic
        start = began
        while start < began + seconds:
            await window.hit(PLENTY, "acme")
            end = clock()
            done.waits.append(end - start)
            start = end
        done.ended, done.operations = start, len(done.waits)
        return done

    async def all_tasks() -> Work:
        window = AwaitedWindow(AwaitedRedis(f"async+{uri.partition('?')[0]}", implementation="redispy"))
        await window.hit(PLENTY, "acme")
        ready()
        return await _gathered(one(window) for _ in range(TASKS))

    return asyncio.run(all_tasks())


async def _gathered(tasks: Iterable[Awaitable[Work]]) -> Work:
    return reduce(Work.beside, await asyncio.gather(*tasks))


def worked(size: int, work: Callable[..., Work], *arguments: object) -> Work:
    """The work of so many processes at once."""
    return reduce(Work.beside, together(size, work, *arguments))


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached: operations a second, and milliseconds of the 99th percentile of a reserve."""

    rate: int
    wait: float | None = None


TARGETS = {"memory": Target(300_000), "SQLite": Target(20_000, 1.0), "Redis": Target(10_000, 15.0)}
ALONE, LIMITS_ALONE = "memory, 1 process", "limits, in memory, 1 process"
IN_MEMORY, IN_REDIS = "limits, in memory", "limits, in Redis"
PEERS = {"memory": IN_MEMORY, ALONE: LIMITS_ALONE, "SQLite": IN_MEMORY, "Redis": IN_REDIS}
"""`limits` keeps nothing in files: SQLite stands beside its sums in memory, which no other process sees."""

LAYOUTS = {
    "memory": f"{PROCESSES} processes, each with sums of its own",
    ALONE: "1 process",
    "SQLite": f"{PROCESSES} processes, inline",
    "Redis": f"{PROCESSES} processes x {TASKS} tasks, awaited",
    "Redis, AOF every second": f"{PROCESSES} processes x {TASKS} tasks, awaited",
    IN_MEMORY: f"{PROCESSES} processes, each with sums of its own",
    LIMITS_ALONE: "1 process",
    IN_REDIS: f"{PROCESSES} processes x {TASKS} tasks, awaited",
}


def measure(seconds: float) -> Report:
    """Every store for so many seconds, one after the other."""
    found = {
        ALONE: worked(1, book, "memory://", seconds),
        LIMITS_ALONE: worked(1, hit, seconds),
        "memory": worked(PROCESSES, book, "memory://", seconds),
        IN_MEMORY: worked(PROCESSES, hit, seconds),
    }
    with sqlite() as fresh:
        found["SQLite"] = worked(PROCESSES, book, fresh(), seconds)
    with redis() as fresh:
        found["Redis"] = worked(PROCESSES, book_awaited, fresh(), seconds)
        found[IN_REDIS] = worked(PROCESSES, hit_awaited, fresh(), seconds)
    with redis(EVERY_SECOND) as fresh:
        found["Redis, AOF every second"] = worked(PROCESSES, book_awaited, fresh(), seconds)
    rows = tuple(_row(name, found) for name in LAYOUTS)
    note = (
        f"Each for {seconds:g} s, on one scope that all share; of 18 operations 8 are reserve, 2 extend, 7 settle, 1 "
        "refund. `limits`: one hit of a fixed window. Waits are those of a reserve (a hit)."
    )
    head = ("store", "layout", "operations/s", "p50 ms", "p99 ms", "longest ms", "operations per hit of `limits`")
    return Report((Table("Throughput", head, rows, note),), tuple(_claims(found)))


def _row(name: str, found: dict[str, Work]) -> tuple[str, ...]:
    work, peer = found[name], PEERS.get(name) or PEERS.get(name.partition(",")[0])
    ratio = f"{work.rate / found[peer].rate:.2f} ({peer})" if peer else ""
    waits = (f"{work.wait(share):.3f}" for share in (0.5, 0.99, 1.0))
    return name, LAYOUTS[name], f"{work.rate:,.0f}", *waits, ratio


def _claims(found: dict[str, Work]) -> Iterable[Claim]:
    for name, target in TARGETS.items():
        rate, wait = found[name].rate, found[name].wait(0.99)
        yield Claim(
            text=f"{name}: operations/s",
            measured=f"{rate:,.0f}",
            target=f">= {target.rate:,}",
            met=rate >= target.rate,
            machine=True,
        )
        if target.wait is not None:
            yield Claim(
                text=f"{name}: p99 of a reserve",
                measured=f"{wait:.2f} ms",
                target=f"<= {target.wait:g} ms",
                met=wait <= target.wait,
                machine=True,
            )
