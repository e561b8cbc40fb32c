"""Where budgets live: reserve -> extend -> settle or refund, atomically over every limit of a reservation.

`open_ledger` opens any store by its URI; `governor.testing.LedgerContract` proves it; docs/ledger.md explains it.

The rules stand once, in `admission` (what each operation does to a reservation and its sums), `refusals` (why one is
refused) and `sums` (windows), without store or clock. A store has two ways to them:

- It gives transactions over rows, and `book.BookLedger` does the rest. What it must give is `book.Store` and
  `book.Books`: holds found by key, sums by scope, both kept as flat rows (`rows` has their columns); three orders over
  them (open holds by `moment`, other holds by `moment`, sums by `due`) of which the first few are asked for; listing
  by prefix; values by key with a version. A transaction is serialisable (one writer at a time, or locks on what it
  reads) and leaves all or nothing behind. Memory, SQLite and PostgreSQL are such stores.
- It runs each operation by itself where the data are (a script in a server). Then it mirrors `admission.opened`,
  `taken_up`, `extend`, `settle`, `refund` and `expire` on the same rows. Every one reads one hold and the sums of its
  scopes, checks, and only then writes these same rows: one script an operation, or one optimistic transaction. Redis
  is such a store (`redis_calls`, `lua/`); where its script refuses, `admission` says why.

Either way the clock is the caller's, read once an operation, and integers stay below 2**53.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import cast

from governor.errors import LedgerError, MissingExtraError
from governor.ledger.book import BookLedger
from governor.protocols import AwaitedLedger, Ledger

__all__ = ["open_awaited", "open_ledger"]

Clock = Callable[[], float]
KEEP = {"memory": 3_600.0}
KEEP_ELSEWHERE = 86_400.0
Opener = Callable[[str, Clock, float, float], Ledger]


def open_ledger(uri: str, *, clock: Clock = time.time, ttl: float = 900.0, keep: float | None = None) -> Ledger:
    """Open the budget store that `uri` names.

    `memory://` keeps sums in this process. `sqlite:///relative.db` and `sqlite:////absolute.db` (percent-encoded)
    keep them in one file that many processes may share; `?synchronous=full` waits for the disk at every commit,
    `?timeout=SECONDS` says how long to wait for another process (5). `redis://:password@host:6379/0`, `rediss://`
    (TLS) and `unix:///path/to.sock` keep them in a Redis server that many machines may share; `?tenant=NAME` tells
    ledgers in it apart, `?timeout=SECONDS` bounds an operation (1), `?cluster=yes` says that it is a cluster, and
    `?create=no` that it has been begun before. `postgresql://user@host/database` keeps them in tables of a server (the
    extra `postgres`), in the schema `governor` or `?schema=NAME`. Both are connected when they are first asked. Other
    schemes are looked up among the entry points `governor.ledgers`: a callable (uri, *, clock, ttl) -> Ledger.

    `clock` gives seconds since the epoch; a reservation untouched for `ttl` seconds counts as spent at its bound. A
    closed or expired one is remembered for `keep` seconds (in memory an hour, else a day): repetitions are recognised
    so long. An entry point is given `keep` only where it is not None.
    Raises LedgerError for a URI that can't be used, LedgerUnavailableError for a store that can't, MissingExtraError
    where the extra is not installed.
    """
    for name, seconds in (("ttl", ttl), ("keep", keep)):
        if seconds is not None and seconds <= 0:
            raise LedgerError(f"ledger: {name} must be positive, not {seconds}")  # a URI may hold a password
    scheme, separator, _ = uri.partition("://")
    if not separator:
        raise LedgerError(
            f"ledger '{uri}' is not a URI: write memory:// or sqlite:///path/to/file.db, or redis://host:6379/0"
        )
    builtin = _BUILTIN.get(scheme)
    if builtin is not None:
        return builtin(uri, clock, ttl, KEEP.get(scheme, KEEP_ELSEWHERE) if keep is None else keep)
    options = {} if keep is None else {"keep": keep}
    return cast("Ledger", _plugin(scheme).load()(uri, clock=clock, ttl=ttl, **options))


def open_awaited(uri: str, *, unique: bool = False) -> AwaitedLedger | None:
    """A second, awaited way to the store that `uri` names; None where it has none, or needs none: it answers at once.

    `uri` is one that `open_ledger` took; both keep the same books. What can't be closed because the store is down is
    closed later; `unique`: no key is ever reserved again (see `late.LateLedger`).
    """
    if _BUILTIN.get(uri.partition("://")[0]) is not _open_redis:
        return None
    from governor.ledger.late import LateLedger
    from governor.ledger.redis_store import AsyncRedisLedger

    return LateLedger(AsyncRedisLedger(uri), unique=unique)


def _plugin(scheme: str) -> EntryPoint:
    found = {point.name: point for point in entry_points(group="governor.ledgers")}
    if scheme in found:
        return found[scheme]
    known = sorted({*_BUILTIN, *found})
    close = difflib.get_close_matches(scheme, known, n=1)
    hint = f"did you mean {close[0]}://?" if close else f"known are {', '.join(known)}"
    raise LedgerError(f"unknown ledger scheme '{scheme}://': {hint}")


def _open_memory(uri: str, clock: Clock, ttl: float, keep: float) -> Ledger:
    from governor.ledger.memory import MemoryStore

    if uri != "memory://":
        raise LedgerError(f"ledger '{uri}': memory:// takes no path and no options")
    return BookLedger(MemoryStore(), clock, ttl, keep)


def _open_sqlite(uri: str, clock: Clock, ttl: float, keep: float) -> Ledger:
    from governor.ledger.sqlite import open_store

    return BookLedger(open_store(uri), clock, ttl, keep)


def _open_redis(uri: str, clock: Clock, ttl: float, keep: float) -> Ledger:
    if find_spec("redis") is None:
        raise MissingExtraError(f"a {uri.partition(':')[0]}:// ledger", "redis")
    from governor.ledger.redis_store import RedisLedger

    return RedisLedger(uri, clock, ttl, keep)


def _open_postgres(uri: str, clock: Clock, ttl: float, keep: float) -> Ledger:
    try:
        from governor.ledger.postgres import open_store
    except ImportError as absent:  # psycopg, or the client library that it needs
        raise MissingExtraError("a ledger on PostgreSQL", "postgres") from absent

    return BookLedger(open_store(uri), clock, ttl, keep)


_BUILTIN: dict[str, Opener] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
    "postgres": _open_postgres,
    "postgresql": _open_postgres,
}
