"""The few connections of one process to a PostgreSQL server: shared by its threads, left alone by its forked children.

Every wait ends. The server ends statements and waits for locks (`statement_timeout`, `lock_timeout`), and transactions
whose client fell silent; the client ends a wait for a server that says nothing (`TimedConnection`), because a network
that was cut tells nobody.
"""

from __future__ import annotations

import os
import selectors
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from selectors import EVENT_READ
from threading import Semaphore
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[bytes, Any]
"""A text and its values."""

_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

MOST = 4
"""Connections of a process: operations on different scopes wait for the disk together."""

GRACE_SECONDS = 0.5
"""How much longer than for a lock a statement may take, and how much longer than the server the client waits."""


class TimedConnection(psycopg.Connection[Row]):
    """A connection that is given up when the server says nothing for `patience` seconds.

    `clean` says that no transaction is open on it, and no answer outstanding.
    """

    patience = 60.0
    clean = False
    _flow: psycopg.Pipeline

    def begin_flow(self) -> None:
        """From here on it is only asked by `ask`."""
        # As `pipeline()` does, but never left again: at its end the library sends one message more, on which the server
        # forgets to watch for a client that falls silent in mid-transaction.
        self._flow = self._pipeline = psycopg.Pipeline(self)
        self._flow.__enter__()
        self.clean = True

    def ask(self, statements: Iterable[Statement]) -> list[list[Row]]:
        """The rows of each statement, in one round trip for all; after an error it is not to be used again."""
        self.clean = False
        cursors = [self.execute(text, values) for text, values in statements]
        self._flow.sync()
        return [cursor.fetchall() if cursor.description else [] for cursor in cursors]

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """As the library's, which is how it waits for anything, but not for ever."""
        end = time.monotonic() + self.patience
        try:
            state = next(gen)
            while True:
                ready = _ready(self.fileno(), state, end - time.monotonic())
                if not ready:
                    self.close()
                    raise psycopg.OperationalError(f"the server did not answer for {self.patience:g} s")
                state = gen.send(ready)
        except StopIteration as done:
            answer: T = done.value
            return answer


class Connections:
    """At most `MOST` connections to the database of `conninfo`, each made ready by `prepare` when it is opened.

    A wait for a lock, for the server or for one of them lasts `timeout` seconds at most.
    """

    def __init__(
        self, conninfo: str, settings: dict[str, str], prepare: Callable[[TimedConnection], None], timeout: float
    ) -> None:
        self._conninfo = conninfo
        self._settings = settings
        self._prepare = prepare
        self._timeout = timeout
        self._closed = False
        self._renew()
        _ALL.add(self)

    @contextmanager
    def one(self) -> Generator[TimedConnection, None, None]:
        """A connection for this thread; one that it does not leave clean is closed."""
        free = self._free  # a forked child has another one
        if not free.acquire(timeout=self._timeout):
            raise psycopg.OperationalError(f"other threads used all {MOST} connections for {self._timeout:g} s")
        try:
            connection = self._idle_one() or self._open()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            free.release()

    def close(self) -> None:
        """Closes those that are idle now, and the others when they come back."""
        self._closed = True
        self._drop_idle()

    def leave(self) -> None:
        """In a forked child: lets go of what is the parent's, without a word to the server."""
        for connection in self._opened:
            with suppress(OSError, psycopg.Error):
                os.close(connection.pgconn.socket)
        _LEFT.extend(self._opened)
        self._renew()

    def _renew(self) -> None:
        self._free = Semaphore(MOST)
        self._idle: list[TimedConnection] = []
        self._opened: set[TimedConnection] = set()

    def _idle_one(self) -> TimedConnection | None:
        while self._idle:
            with suppress(IndexError):  # another thread was first
                connection = self._idle.pop()
                if not _ready(connection.fileno(), EVENT_READ, 0.0):  # else the server said goodbye meanwhile
                    return connection
                self._end(connection)
        return None

    def _open(self) -> TimedConnection:
        if self._closed:
            raise psycopg.OperationalError("it was closed")
        connection = TimedConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0, **self._more())
        self._opened.add(connection)
        try:
            connection.patience = self._timeout + 2 * GRACE_SECONDS
            connection.adapters.register_dumper(int, Int8Dumper)  # one type, so that a statement is prepared once
            connection.execute(_SETTINGS, self._settings | _limits(self._timeout))
            self._prepare(connection)
            connection.begin_flow()
        except BaseException:
            self._end(connection)
            raise
        return connection

    def _more(self) -> dict[str, Any]:
        seconds = max(1, round(self._timeout))
        wanted = {
            "connect_timeout": seconds,
            "tcp_user_timeout": seconds * 1000,
            "keepalives_idle": seconds,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "target_session_attrs": "read-write",
            "fallback_application_name": "governor",
        }
        given = conninfo_to_dict(self._conninfo)
        return {name: value for name, value in wanted.items() if name not in given} | {"client_encoding": "utf8"}

    def _give_back(self, connection: TimedConnection) -> None:
        if connection.closed:
            self._drop_idle()  # they lead to the same server
        if self._closed or not connection.clean:
            self._end(connection)
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):
                self._end(self._idle.pop())

    def _end(self, connection: TimedConnection) -> None:
        connection.close()
        self._opened.discard(connection)


_SETTINGS = b"""SELECT set_config('search_path', %(path)s, false), set_config('lock_timeout', %(lock)s, false),
set_config('statement_timeout', %(statement)s, false),
set_config('idle_in_transaction_session_timeout', %(idle)s, false)
"""


def _limits(timeout: float) -> dict[str, str]:
    return {
        "lock": f"{timeout * 1000:.0f}",
        "statement": f"{(timeout + GRACE_SECONDS) * 1000:.0f}",
        "idle": f"{(timeout + 2 * GRACE_SECONDS) * 1000:.0f}",
    }


def _ready(fileno: int, events: int, seconds: float) -> int:
    """Which of the events a socket is ready for; 0 if for none in time."""
    with _Selector() as selector:
        selector.register(fileno, events)
        found = selector.select(max(0.0, seconds))
    return found[0][1] if found else 0


_ALL: weakref.WeakSet[Connections] = weakref.WeakSet()
_LEFT: list[TimedConnection] = []


def _leave_all() -> None:
    for connections in list(_ALL):
        connections.leave()


if hasattr(os, "register_at_fork"):  # absent on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_all)
