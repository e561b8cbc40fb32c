"""Every store at once, empty and real: files in a folder, and servers of one's own on free ports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from tests.postgres_servers import PostgresServer, server_folder
from tests.redis_servers import RedisServer

Fresh: TypeAlias = Callable[[], str]
"""The URI of a ledger that nobody has used."""

UNSAVED = ("--appendonly", "no", "--save", "")
EVERY_SECOND = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


@contextmanager
def sqlite() -> Generator[Fresh, None, None]:
    """Files in a folder that is gone afterwards."""
    numbers = count()
    with TemporaryDirectory(prefix="governor-ledger-") as folder:
        yield lambda: f"sqlite:///{folder}/{next(numbers)}.db"


@contextmanager
def redis(options: tuple[str, ...] = UNSAVED) -> Generator[Fresh, None, None]:
    """Tenants of a server that is gone afterwards; SystemExit where none is installed."""
    if shutil.which("redis-server") is None:
        raise SystemExit("benchmarks.ledger needs redis-server: apt-get install redis-server")
    numbers = count()
    with TemporaryDirectory(prefix="governor-redis-") as folder:
        server = RedisServer(Path(folder), options)
        server.start()
        try:
            yield lambda: f"{server.uri}?tenant=t{next(numbers)}&timeout=5"
        finally:
            server.kill()


@contextmanager
def postgres() -> Generator[Fresh | None, None, None]:
    """Schemas of a server that is gone afterwards; None where none is installed."""
    programs = server_folder()
    if programs is None:
        yield None
        return
    server = PostgresServer(programs)
    try:
        yield lambda: server.uri(server.new_schema())
    finally:
        server.stop()


@contextmanager
def every_store() -> Generator[dict[str, Fresh | None], None, None]:
    """All of them by name; PostgreSQL is None where no server is installed."""
    with ExitStack() as opened:
        yield {
            "memory": lambda: "memory://",
            "SQLite": opened.enter_context(sqlite()),
            "Redis": opened.enter_context(redis()),
            "PostgreSQL": opened.enter_context(postgres()),
        }
