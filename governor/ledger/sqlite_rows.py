"""The tables of an SQLite ledger, and how its rows are read and written."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from typing import Any

from governor.errors import LedgerError
from governor.ledger.admission import Hold
from governor.ledger.book import Page
from governor.ledger.rows import HOLD_COLUMNS, SUMMED, SUMS_COLUMNS, hold_of, limits_text, sums_of, sums_row
from governor.ledger.sums import DIMENSIONS, Sums, figures

APPLICATION = 0x476F764C  # "GovL", PRAGMA application_id: tells a ledger from any other database
VERSION = 2

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
SCHEMA = f"""
CREATE TABLE scopes (
    scope TEXT PRIMARY KEY, {", ".join(f"{name} {_FIGURES}" for name in SUMMED)},
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
_NEW_SUMS = [name for name in SUMMED if name.partition("_")[2] in DIMENSIONS[4:]]
FROM_1 = f"""
{" ".join(f"ALTER TABLE scopes ADD COLUMN {name} {_FIGURES};" for name in _NEW_SUMS)}
{" ".join(f"ALTER TABLE scopes ADD COLUMN {name} {kind};" for name, kind in _MORE.items())}
{" ".join(f"ALTER TABLE reservations ADD COLUMN {name} {_FIGURES};" for name in DIMENSIONS[4:])}
ALTER TABLE reservations ADD COLUMN sent INTEGER NOT NULL DEFAULT 1;
ALTER TABLE reservations RENAME COLUMN touched TO moment;
CREATE INDEX closings ON reservations (moment) WHERE state <> 'open';
CREATE INDEX idle ON scopes (due) WHERE due IS NOT NULL;
UPDATE scopes SET refs = (
    SELECT count(DISTINCT reservations.key) FROM reservations, json_each(limits)
    WHERE json_extract(value, '$[0]') = scope
);
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - constant column names
# The texts below join constant column names only; every value is bound.
_ROW = ", ".join(SUMS_COLUMNS)
_NEW_SUMS_ROW = f"INSERT INTO scopes ({_ROW}) VALUES ({', '.join('?' * len(SUMS_COLUMNS))})"  # noqa: S608 - constant
_SET = ", ".join(f"{name} = ?" for name in SUMS_COLUMNS[1:])
_SAME_SUMS = f"UPDATE scopes SET {_SET} WHERE scope = ?"  # noqa: S608 - as above
_FIND_SUMS = f"SELECT {_ROW} FROM scopes WHERE scope = ?"  # noqa: S608 - as above
_ALL_SUMS = f"SELECT {_ROW} FROM scopes WHERE substr(scope, 1, ?) = ?"  # noqa: S608 - as above
_COLUMNS = ", ".join(HOLD_COLUMNS)
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
_CHANGED = ["state", *DIMENSIONS, "sent", "moment"]
_MARKS = ", ".join("?" * len(HOLD_COLUMNS))
_NEW_HOLD = f"INSERT INTO reservations ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 - as above
_SAME_HOLD = f"UPDATE reservations SET {', '.join(f'{name} = ?' for name in _CHANGED)} WHERE key = ?"  # noqa: S608 - same

# Beside the books, in the same file: values shared by replicas. The row without a key counts the versions given out, so
# that no version comes twice even where a value was dropped and made anew.
SHELF = """CREATE TABLE IF NOT EXISTS shelf (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, digest INTEGER NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shelf_expiries ON shelf (expires) WHERE expires IS NOT NULL;
INSERT OR IGNORE INTO shelf VALUES ('', x'', 0, 0, NULL)"""
_PUT = (
    "INSERT INTO shelf VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "version = excluded.version, digest = excluded.digest, expires = excluded.expires"
)
_NEXT = "UPDATE shelf SET version = version + 1 WHERE key = '' RETURNING version"

CACHED = 1024
"""Most rows of either kind that a process keeps in memory, so long as no other process writes."""


FOLD_MILLIS = 100
"""How long an emptying of the log waits for whoever writes; another one is tried soon."""


class SqliteBooks:
    """Implements Books over one connection.

    Rows that this connection read or wrote stay valid until another one commits, which `PRAGMA data_version` tells
    inside a transaction (sqlite.org/pragma.html#pragma_data_version): till then they are not read again. `begin` and
    `forget_cached` keep that true.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.cursor().execute  # one cursor for all: its making costs as much as a small statement
        self._holds: dict[str, Hold] = {}
        self._sums: dict[str, Sums] = {}
        self._seen = -1

    def begin(self) -> None:
        """Takes the write lock, or sqlite3.OperationalError at once."""
        self._execute("BEGIN IMMEDIATE")
        (seen,) = self._execute("PRAGMA data_version").fetchone()
        if seen != self._seen or len(self._holds) > CACHED or len(self._sums) > CACHED:
            self.forget_cached()
            self._seen = seen

    def commit(self) -> None:
        """Makes it all last."""
        self._execute("COMMIT")

    def roll_back(self) -> None:
        """Undoes it all, and forgets rows that were changed in memory alone."""
        self.forget_cached()
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def fold(self) -> None:
        """Writes the log back into the file, and empties it.

        Most of it while others go on writing, the rest while they wait: SQLite's own way never ends where writers
        follow each other closely, and waits for the disk at each commit.
        """
        _, pages, written = self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if written < pages / 2:
            return  # somebody still reads an old state: waiting would not help
        self._execute(f"PRAGMA busy_timeout = {FOLD_MILLIS}")
        try:
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._execute("PRAGMA busy_timeout = 0")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def forget_cached(self) -> None:
        """Every row is read anew."""
        self._holds.clear()
        self._sums.clear()

    def find(self, key: str) -> Hold | None:
        found = self._holds.get(key)
        if found is None:
            row = self._execute(_FIND, (key,)).fetchone()
            if row is not None:
                found = self._hold(row)
        return found

    def sums(self, scope: str) -> Sums | None:
        found = self._sums.get(scope)
        if found is None:
            row = self._execute(_FIND_SUMS, (scope,)).fetchone()
            if row is not None:
                found = self._sums[scope] = sums_of(row)
        return found

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        if hold is not None:
            self._keep_hold(hold)
        for one in sums:
            scope = one.scope
            if scope in self._sums:
                self._execute(_SAME_SUMS, (*sums_row(one), scope))
            else:
                self._execute(_NEW_SUMS_ROW, (scope, *sums_row(one)))
                self._sums[scope] = one

    def _keep_hold(self, hold: Hold) -> None:
        key, amount = hold.key, figures(hold.amount)
        if key in self._holds:
            self._execute(_SAME_HOLD, (hold.state, *amount, hold.sent, hold.moment, key))
        else:
            self._execute(_NEW_HOLD, (key, hold.state, *amount, limits_text(hold.limits), hold.sent, hold.moment))
            self._holds[key] = hold

    def _hold(self, row: tuple[Any, ...]) -> Hold:
        hold = self._holds[row[0]] = hold_of(row)
        return hold

    def overdue(self, since: float, most: int | None) -> list[Hold]:
        return [self._hold(row) for row in self._execute(_OVERDUE, (since, -1 if most is None else most)).fetchall()]

    def closed(self, since: float, most: int) -> list[Hold]:
        return [self._hold(row) for row in self._execute(_CLOSED, (since, most)).fetchall()]

    def idle(self, now: float, most: int) -> list[str]:
        found = self._execute("SELECT scope FROM scopes WHERE due <= ? ORDER BY due LIMIT ?", (now, most))
        return [scope for (scope,) in found.fetchall()]

    def forget(self, keys: Iterable[str], scopes: Iterable[str]) -> None:
        for key in keys:
            self._execute("DELETE FROM reservations WHERE key = ?", (key,))
            self._holds.pop(key, None)
        for scope in scopes:
            self._execute("DELETE FROM scopes WHERE scope = ?", (scope,))
            self._sums.pop(scope, None)

    def holds(self, prefix: str) -> list[Hold]:
        return [hold_of(row) for row in self._execute(_ALL, (len(prefix), prefix)).fetchall()]

    def booked(self, prefix: str) -> list[Sums]:
        return [sums_of(row) for row in self._execute(_ALL_SUMS, (len(prefix), prefix)).fetchall()]

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
