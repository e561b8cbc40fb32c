"""sqlite:///path - one file, shared by threads and processes of one machine.

WAL with `synchronous=NORMAL`: what an operation has confirmed is in the operating system's hands, so that the death of
any process, by `kill -9` too, loses none of it. A power cut, or the death of the whole machine, may undo the last
operations, at most those since the log was last folded into the file (every `LOG_BYTES`; a system left to itself
writes them within half a minute or so). What is left is then the state of some earlier moment, whole and consistent.
`?synchronous=full` waits for the disk at every commit and closes that gap, at the price of one fsync an operation.
Source: sqlite.org/pragma.html#pragma_synchronous and sqlite.org/wal.html.
"""

from __future__ import annotations

import difflib
import os
import re
import sqlite3
import time
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qsl, unquote, urlsplit

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger.sqlite_rows import APPLICATION, FROM_1, SCHEMA, SHELF, VERSION, SqliteBooks
from governor.ledger.sqlite_turns import Turns, busy, name_of
from governor.records import Limit

PAGE_BYTES = 1024
"""Each operation writes some four pages to the log: small ones, because the disk is what limits."""

LOG_BYTES = 64 << 20
"""Size of the write-ahead log at which it is folded into the file: tens of thousands of operations."""

LOOK_EVERY = 64
"""Commits after which a process looks how long the log is."""

_REASONS = (
    ("SQLITE_BUSY", "another process kept it locked"),
    ("SQLITE_FULL", "the disk is full: free some space"),
    ("SQLITE_NOTADB", "the file is not an SQLite database: choose another path"),
    ("SQLITE_CORRUPT", "the file is damaged: restore it from a backup, or start a new one"),
    ("SQLITE_READONLY", "the file or its folder is not writable: mend its permissions"),
    ("SQLITE_CANTOPEN", "the file can't be opened: its folder must exist and be writable"),
    ("SQLITE_IOERR", "the disk can't be read or written (full, or a file size limit)"),
)


def open_store(uri: str) -> SqliteStore:
    """The store that a URI like `sqlite:///folder/file.db?synchronous=full&timeout=2` names; LedgerError if none."""
    parts = urlsplit(uri)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc:
        raise LedgerError(f"ledger '{uri}': did you mean sqlite:///{parts.netloc}{parts.path}? (three slashes)")
    if parts.fragment or path in ("", ":memory:"):
        hint = "write # as %23" if parts.fragment else "for sums in memory use memory://"
        raise LedgerError(f"ledger '{uri}' names no file: write sqlite:///path/to/file.db ({hint})")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal").lower()
    timeout = options.pop("timeout", "5")
    for option in options:
        close = difflib.get_close_matches(option, ("synchronous", "timeout"), n=1)
        hint = f"did you mean {close[0]}?" if close else "known are synchronous, timeout"
        raise LedgerError(f"ledger '{uri}': unknown option '{option}': {hint}")
    if synchronous not in ("normal", "full"):
        raise LedgerError(f"ledger '{uri}': synchronous is normal or full, not '{synchronous}'")
    if not re.fullmatch(r"\d+(\.\d+)?", timeout):
        raise LedgerError(f"ledger '{uri}': timeout must be seconds, not '{timeout}'")
    return SqliteStore(Path(path), synchronous=synchronous, timeout=float(timeout))


class SqliteStore:
    """Implements Store and its Books over one connection a process, taken by one thread at a time."""

    def __init__(self, path: Path, *, synchronous: str = "normal", timeout: float = 5.0) -> None:
        self._path = path.absolute()
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._synchronous = synchronous
        self._timeout = timeout
        self._turns = Turns(timeout)
        self._lock = Lock()
        self._books: SqliteBooks | None = None
        self._closed = False
        self._commits = 0
        with _FORKING:  # a store that a fork under way does not know opens nothing until it is over
            _STORES.add(self)
        with self._lock:
            try:
                self._books = self._open()
            except sqlite3.Error as cause:
                raise self._explained(cause) from cause

    @contextmanager
    def transaction(self, limits: Sequence[Limit] = (), /) -> Generator[SqliteBooks, None, None]:
        # A generator, because a signal that comes in between leaves it to be closed, and with it the lock.
        try:
            with self._lock:
                books = self._books = self._books or self._open()
                try:
                    self._turns.take(books.begin)
                    yield books
                    books.commit()
                except BaseException:
                    self._undo(books)
                    raise
                self._commits += 1
                if self._commits % LOOK_EVERY == 0:
                    self._fold(books)
        except sqlite3.Error as cause:
            raise self._explained(cause) from cause

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop()

    def rest(self) -> None:
        """Lets go of the connection and keeps everyone out until `wake`."""
        self._lock.acquire()
        self._drop()

    def wake(self) -> None:
        """Lets operations in again; the next one opens a connection."""
        self._lock.release()

    def _drop(self) -> None:
        books, self._books = self._books, None
        if books is not None:
            books.close()

    def _fold(self, books: SqliteBooks) -> None:
        """Folds a long log into the file; where that fails (no space, others write) the log just grows meanwhile."""
        with suppress(sqlite3.Error, FileNotFoundError):
            if self._log.stat().st_size >= LOG_BYTES:
                books.fold()

    def _undo(self, books: SqliteBooks) -> None:
        """Leaves no transaction behind, at the price of the connection if need be."""
        try:
            books.roll_back()
        except sqlite3.Error:
            self._drop()

    def _open(self) -> SqliteBooks:
        if self._closed:
            raise LedgerUnavailableError(f"ledger {self._path}: it was closed")
        connection = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
            connection.execute("PRAGMA busy_timeout = 0")  # from here on `Turns` waits
        except BaseException:
            connection.close()
            raise
        return SqliteBooks(connection)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one snapshot: another process may be creating the schema
        known = self._version(connection)
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that is yet to be made
        self._use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # `_fold` does it
        if not known:
            self._change(connection, 0, SCHEMA)
        if known < VERSION:
            self._change(connection, 1, FROM_1)
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'shelf'").fetchone() is None:
            connection.execute("BEGIN IMMEDIATE")  # a file of before there was a shelf has its books only
            for statement in SHELF.split(";"):
                connection.execute(statement)
            connection.execute("COMMIT")

    def _change(self, connection: sqlite3.Connection, version: int, script: str) -> None:
        """Runs the script unless another process was first."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._version(connection) == version:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        empty = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        if application != APPLICATION and not empty:
            raise LedgerUnavailableError(
                f"ledger {self._path}: the database belongs to another program, choose another path"
            )
        if version > VERSION:
            raise LedgerUnavailableError(
                f"ledger {self._path}: written by a newer version (schema {version}, known is {VERSION}): "
                "upgrade compute-governor"
            )
        return version

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switches to WAL; SQLite does not wait for this lock by itself."""
        end = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as cause:
                if not busy(cause) or time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return

    def _explained(self, cause: sqlite3.Error) -> LedgerUnavailableError:
        return LedgerUnavailableError(f"ledger {self._path}: {_reason(cause)}")


def _reason(cause: sqlite3.Error) -> str:
    name = name_of(cause)
    for prefix, reason in _REASONS:
        if name.startswith(prefix):
            return reason
    return str(cause)


# SQLite forbids a child to use, or even close, a connection of its parent, and its bookkeeping of file locks is
# per process but survives a fork (sqlite.org/howtocorrupt.html, 2.6). So no connection lives through one: all
# are closed before, under their locks, and each side opens its own on its next operation. Whoever wants `_FORKING` and
# a store's lock takes `_FORKING` first.
_STORES: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_FORKING = Lock()
_HELD: list[SqliteStore] = []


def _before_fork() -> None:
    _FORKING.acquire()
    for store in list(_STORES):
        store.rest()
        _HELD.append(store)


def _after_fork() -> None:
    while _HELD:
        _HELD.pop().wake()
    _FORKING.release()


if hasattr(os, "register_at_fork"):  # absent on Windows, which has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
