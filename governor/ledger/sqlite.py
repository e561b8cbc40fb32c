"""sqlite:///path - one file, shared by threads and processes of one machine.

WAL with `synchronous=NORMAL`: a commit survives the death of any process at once, without waiting for the disk.
A power cut may undo the last commits since the latest checkpoint (never the file's integrity): reservations and
settlements of those seconds. `?synchronous=full` waits for the disk at every commit and closes that gap, at
the price of one fsync an operation. Source: sqlite.org/pragma.html#pragma_synchronous and sqlite.org/wal.html.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sqlite3
import time
import weakref
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger.admission import Hold
from governor.ledger.book import Page
from governor.ledger.sums import DIMENSIONS, Sums, booking, ceilings, figures
from governor.records import Amount, Limit, Window

APPLICATION = 0x476F764C  # "GovL", PRAGMA application_id: tells a ledger from any other database
VERSION = 2

_SUMS = [f"{part}_{dimension}" for part in ("spent", "reserved", "overshoot") for dimension in DIMENSIONS]
_MORE = {
    "expired": "INTEGER NOT NULL DEFAULT 0",
    "refs": "INTEGER NOT NULL DEFAULT 0",
    "touched": "REAL NOT NULL DEFAULT 0",
    "since": "REAL",
    "window": "TEXT NOT NULL DEFAULT ''",
    "grains": "TEXT",
    "due": "REAL",
}
_FIGURES = "INTEGER NOT NULL DEFAULT 0"
_SCHEMA = f"""
CREATE TABLE scopes (
    scope TEXT PRIMARY KEY, {", ".join(f"{name} {_FIGURES}" for name in _SUMS)},
    {", ".join(f"{name} {kind}" for name, kind in _MORE.items())}
) WITHOUT ROWID;
CREATE TABLE reservations (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, {", ".join(f"{name} {_FIGURES}" for name in DIMENSIONS)},
    limits TEXT NOT NULL, sent INTEGER NOT NULL DEFAULT 1, moment REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX open_leases ON reservations (moment) WHERE state = 'open';
CREATE INDEX closings ON reservations (moment) WHERE state <> 'open';
CREATE INDEX idle ON scopes (due) WHERE due IS NOT NULL;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
_NEW_SUMS = [name for name in _SUMS if name.partition("_")[2] in DIMENSIONS[4:]]
_FROM_1 = f"""
{" ".join(f"ALTER TABLE scopes ADD COLUMN {name} {_FIGURES};" for name in _NEW_SUMS)}
{" ".join(f"ALTER TABLE scopes ADD COLUMN {name} {kind};" for name, kind in _MORE.items())}
{" ".join(f"ALTER TABLE reservations ADD COLUMN {name} {_FIGURES};" for name in DIMENSIONS[4:])}
ALTER TABLE reservations ADD COLUMN sent INTEGER NOT NULL DEFAULT 1;
ALTER TABLE reservations RENAME COLUMN touched TO moment;
CREATE INDEX closings ON reservations (moment) WHERE state <> 'open';
CREATE INDEX idle ON scopes (due) WHERE due IS NOT NULL;
UPDATE scopes SET refs = (
    SELECT count(DISTINCT reservations.key) FROM reservations, json_each(limits) WHERE json_extract(value, '$[0]') = scope
);
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - constant column names
# The texts below join constant column names only; every value is bound.
_ROW = ["scope", *_SUMS, *_MORE]
_KEEP_SUMS = (
    f"INSERT INTO scopes ({', '.join(_ROW)}) VALUES ({', '.join('?' * len(_ROW))}) "  # noqa: S608 - constant column names
    f"ON CONFLICT (scope) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _ROW[1:])}"
)
_FIND_SUMS = f"SELECT {', '.join(_ROW)} FROM scopes WHERE scope = ?"  # noqa: S608 - as above
_ALL_SUMS = f"SELECT {', '.join(_ROW)} FROM scopes WHERE substr(scope, 1, ?) = ?"  # noqa: S608 - as above
_HOLD = ["key", "state", *DIMENSIONS, "limits", "sent", "moment"]
_COLUMNS = ", ".join(_HOLD)
_FIND = f"SELECT {_COLUMNS} FROM reservations WHERE key = ?"  # noqa: S608 - as above
_ALL = f"SELECT {_COLUMNS} FROM reservations WHERE substr(key, 1, ?) = ?"  # noqa: S608 - as above
_OVERDUE = (
    f"SELECT {_COLUMNS} FROM reservations WHERE state = 'open' AND moment <= ? "  # noqa: S608 - as above
    "ORDER BY moment LIMIT ?"
)
_CLOSED = (
    f"SELECT {_COLUMNS} FROM reservations WHERE state <> 'open' AND moment <= ? "  # noqa: S608 - as above
    "ORDER BY moment LIMIT ?"
)
_CHANGED = [name for name in _HOLD if name not in ("key", "limits")]
_KEEP = (
    f"INSERT INTO reservations ({_COLUMNS}) VALUES ({', '.join('?' * len(_HOLD))}) "  # noqa: S608 - as above
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _CHANGED)}"
)

# Beside the books, in the same file: values shared by replicas. The row without a key counts the versions given out, so
# that no version comes twice even where a value was dropped and made anew.
_SHELF = """CREATE TABLE IF NOT EXISTS shelf (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, digest INTEGER NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shelf_expiries ON shelf (expires) WHERE expires IS NOT NULL;
INSERT OR IGNORE INTO shelf VALUES ('', x'', 0, 0, NULL)"""
_PUT = (
    "INSERT INTO shelf VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "version = excluded.version, digest = excluded.digest, expires = excluded.expires"
)
_NEXT = "UPDATE shelf SET version = version + 1 WHERE key = '' RETURNING version"

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
        self._synchronous = synchronous
        self._timeout = timeout
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        _STORES.add(self)
        with self._lock, self._explained():
            self._connection = self._open()

    @contextmanager
    def transaction(self) -> Generator[_SqliteBooks, None, None]:
        with self._lock, self._explained():
            connection = self._connection or self._open()
            self._connection = connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteBooks(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

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
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise LedgerUnavailableError(f"ledger {self._path}: it was closed")
        connection = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one snapshot: another process may be creating the schema
        known = self._version(connection)
        connection.execute("COMMIT")
        self._use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        if not known:
            self._change(connection, 0, _SCHEMA)
        if known < VERSION:
            self._change(connection, 1, _FROM_1)
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'shelf'").fetchone() is None:
            connection.execute("BEGIN IMMEDIATE")  # a file of before there was a shelf has its books only
            for statement in _SHELF.split(";"):
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
                if not _name(cause).startswith("SQLITE_BUSY") or time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as cause:
            raise LedgerUnavailableError(f"ledger {self._path}: {_reason(cause)}") from cause


class _SqliteBooks:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def find(self, key: str) -> Hold | None:
        row = self._execute(_FIND, (key,)).fetchone()
        return _hold(row) if row else None

    def sums(self, scope: str) -> Sums | None:
        row = self._execute(_FIND_SUMS, (scope,)).fetchone()
        return _sums(row) if row else None

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        if hold is not None:
            limits = _limits_text(hold.limits)
            self._execute(_KEEP, (hold.key, hold.state, *figures(hold.amount), limits, hold.sent, hold.moment))
        for one in sums:
            self._execute(_KEEP_SUMS, _sums_row(one))

    def overdue(self, since: float, most: int | None) -> list[Hold]:
        return [_hold(row) for row in self._execute(_OVERDUE, (since, -1 if most is None else most)).fetchall()]

    def closed(self, since: float, most: int) -> list[Hold]:
        return [_hold(row) for row in self._execute(_CLOSED, (since, most)).fetchall()]

    def idle(self, now: float, most: int) -> list[str]:
        found = self._execute("SELECT scope FROM scopes WHERE due <= ? ORDER BY due LIMIT ?", (now, most))
        return [scope for (scope,) in found.fetchall()]

    def forget(self, keys: Iterable[str], scopes: Iterable[str]) -> None:
        for key in keys:
            self._execute("DELETE FROM reservations WHERE key = ?", (key,))
        for scope in scopes:
            self._execute("DELETE FROM scopes WHERE scope = ?", (scope,))

    def holds(self, prefix: str) -> list[Hold]:
        return [_hold(row) for row in self._execute(_ALL, (len(prefix), prefix)).fetchall()]

    def booked(self, prefix: str) -> list[Sums]:
        return [_sums(row) for row in self._execute(_ALL_SUMS, (len(prefix), prefix)).fetchall()]

    def page(self, key: str) -> Page | None:
        row = self._execute("SELECT value, version, digest, expires FROM shelf WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, version, digest, expires = row
        if not isinstance(value, bytes) or zlib.crc32(value) != digest:
            raise LedgerError(
                f"shelf value '{key}' is damaged: its checksum does not fit; delete its row to begin anew"
            )
        return Page(value, version, expires)

    def put(self, key: str, value: bytes, expires: float | None) -> None:
        (version,) = self._execute(_NEXT).fetchone()
        self._execute(_PUT, (key, value, version, zlib.crc32(value), expires))

    def sweep(self, since: float) -> None:
        self._execute("DELETE FROM shelf WHERE expires <= ?", (since,))


_SIZE = len(DIMENSIONS)


def _sums(row: tuple[Any, ...]) -> Sums:
    expired, references, touched, since, window, grains, _ = row[1 + 3 * _SIZE :]
    return Sums(
        row[0],
        _window(window),
        list(row[1 : 1 + _SIZE]),
        list(row[1 + _SIZE : 1 + 2 * _SIZE]),
        list(row[1 + 2 * _SIZE : 1 + 3 * _SIZE]),
        expired,
        references,
        touched,
        float("-inf") if since is None else since,
        None if grains is None else {int(grain): spent for grain, spent in json.loads(grains).items()},
    )


def _sums_row(sums: Sums) -> tuple[Any, ...]:
    return (
        sums.scope,
        *sums.spent,
        *sums.reserved,
        *sums.overshoot,
        sums.expired,
        sums.references,
        sums.touched,
        None if sums.since == float("-inf") else sums.since,
        _window_text(sums.window),
        None if sums.grains is None else json.dumps(sums.grains, separators=(",", ":")),
        None if sums.references else sums.due,
    )


def _hold(row: tuple[Any, ...]) -> Hold:
    limits, sent, moment = row[2 + _SIZE :]
    held = Amount(*row[2 : 2 + _SIZE])
    return Hold(row[0], held, _limits(limits), row[1], bool(sent), moment, booking(held))


# Whoever asks again asks under the same limits: their texts are made, and read, once.
@lru_cache(maxsize=256)
def _limits_text(limits: tuple[Limit, ...]) -> str:
    rows = [[limit.scope, *ceilings(limit), *astuple(limit.window)] for limit in limits]
    return json.dumps(rows, separators=(",", ":"))


@lru_cache(maxsize=256)
def _limits(text: str) -> tuple[Limit, ...]:
    """Rows of version 1 have four ceilings and no window."""
    end = 1 + _SIZE
    return tuple(Limit(*row[:end], window=Window(*row[end:])) for row in json.loads(text))


@lru_cache(maxsize=256)
def _window_text(window: Window) -> str:
    return "" if window == Window() else json.dumps(astuple(window))


@lru_cache(maxsize=256)
def _window(text: str) -> Window:
    return Window(*json.loads(text)) if text else Window()


def _name(cause: sqlite3.Error) -> str:
    return getattr(cause, "sqlite_errorname", None) or ""


def _reason(cause: sqlite3.Error) -> str:
    name = _name(cause)
    for prefix, reason in _REASONS:
        if name.startswith(prefix):
            return reason
    return str(cause)


# SQLite forbids a child to use, or even close, a connection of its parent, and its bookkeeping of file locks is
# per process but survives a fork (sqlite.org/howtocorrupt.html, 2.6). So no connection lives through one: all
# are closed before, under their locks, and each side opens its own on its next operation.
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
