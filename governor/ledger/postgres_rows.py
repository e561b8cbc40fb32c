"""The tables of a PostgreSQL ledger, and how its rows are locked, read and written.

One operation is two round trips: the first locks and reads, the second writes and commits. Locks are advisory ones of
the transaction, always in this order, so that no two operations ever wait for each other:

1. the ledger: shared by operations, alone for whoever books overdue leases and forgets rows (many keys and scopes);
2. the key of the reservation, so that its row, and with it its limits, stays as it is read;
3. its scopes, by their hashes in order.

One lock for the whole ledger would be simpler, and every commit would wait for the disk alone: four processes on scopes
of their own did 1.6 to 2.7 times as many operations this way, and as many where all shared a scope.

Every statement sees what was committed when it began (READ COMMITTED): what is read after a lock is as the last holder
left it. Source: postgresql.org/docs/current/explicit-locking.html, 13.3.5, and transaction-iso.html, 13.2.1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from psycopg import Error

from governor.errors import LedgerError
from governor.ledger.admission import Hold
from governor.ledger.book import Page
from governor.ledger.postgres_connections import Row, Statement, TimedConnection
from governor.ledger.rows import HOLD_COLUMNS, SUMMED, SUMS_COLUMNS, hold_of, limits_text, sums_of, sums_row
from governor.ledger.sums import DIMENSIONS, Sums, figures
from governor.records import Limit

APPLICATION = "compute-governor"
VERSION = 1


def _sql(text: str) -> bytes:
    """A statement of constants only: every value is bound."""
    return text.encode()


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]  # "window" is a word of SQL


_FIGURES = "bigint NOT NULL DEFAULT 0"
_MORE = {
    "expired": _FIGURES,
    "refs": _FIGURES,
    "touched": "double precision NOT NULL DEFAULT 0",
    "since": "double precision",
    "window": "text NOT NULL DEFAULT ''",
    "grains": "text",
    "due": "double precision",
}
# Collation "C": any text is equal to itself alone. Room in the pages lets a row be written beside its old version, so
# that indexes stay as they are (postgresql.org/docs/current/storage-hot.html).
TABLES = tuple(
    _sql(text)
    for text in (
        f"""CREATE TABLE scopes (scope text COLLATE "C" PRIMARY KEY,
        {", ".join(f"{name} {_FIGURES}" for name in SUMMED)},
        {", ".join(f'"{name}" {kind}' for name, kind in _MORE.items())}) WITH (fillfactor = 50)""",
        f"""CREATE TABLE reservations (key text COLLATE "C" PRIMARY KEY, state text NOT NULL,
        {", ".join(f"{name} {_FIGURES}" for name in DIMENSIONS)},
        limits text NOT NULL, sent boolean NOT NULL, moment double precision NOT NULL)""",
        "CREATE INDEX open_leases ON reservations (moment) WHERE state = 'open'",
        "CREATE INDEX closings ON reservations (moment) WHERE state <> 'open'",
        "CREATE INDEX idle ON scopes (due) WHERE due IS NOT NULL",
        """CREATE TABLE shelf (key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL, version bigint NOT NULL,
        digest bigint NOT NULL, expires double precision)""",
        "CREATE INDEX shelf_expiries ON shelf (expires) WHERE expires IS NOT NULL",
        "CREATE SEQUENCE shelf_versions",  # what it has given out it never gives again
        "CREATE TABLE ledger (application text NOT NULL, version integer NOT NULL)",
        f"INSERT INTO ledger VALUES ('{APPLICATION}', {VERSION})",  # noqa: S608 - constants
    )
)

_BEGIN = (_sql("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"), ())
_COMMIT = (_sql("COMMIT"), ())

LOCK = _sql("SELECT pg_advisory_xact_lock(%s)")
_SHARE = _sql("SELECT pg_advisory_xact_lock_shared(%s)")
_LOCK_KEY = _sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))")

# The scopes that are named, and those of the reservation: its limits are rows that begin with one (`limits_text`).
_SCOPES = """SELECT unnest(%(scopes)s::text[]) UNION
    SELECT one ->> 0 FROM reservations, json_array_elements(limits::json) AS one WHERE key = %(key)s"""
_LOCK_SCOPES = _sql(f"""SELECT pg_advisory_xact_lock(lock) FROM (
    SELECT DISTINCT hashtextextended(scope, %(seed)s) AS lock FROM ({_SCOPES}) AS named (scope) ORDER BY lock
) AS locks""")  # noqa: S608 - constants

_SUMS = ", ".join(_quoted(SUMS_COLUMNS))
_SUMS_OF = _sql(f"SELECT {_SUMS} FROM scopes WHERE scope IN ({_SCOPES})")  # noqa: S608 - constants
_ALL_SUMS = _sql(f"SELECT {_SUMS} FROM scopes WHERE starts_with(scope, %s)")  # noqa: S608 - constants
_HOLDS = f"SELECT {', '.join(_quoted(HOLD_COLUMNS))} FROM reservations WHERE"  # noqa: S608 - constants
_HOLD_OF = _sql(f"{_HOLDS} key = %(key)s")
_ALL_HOLDS = _sql(f"{_HOLDS} starts_with(key, %s)")
_OVERDUE = _sql(f"{_HOLDS} state = 'open' AND moment <= %s ORDER BY moment LIMIT %s")
_CLOSED = _sql(f"{_HOLDS} state <> 'open' AND moment <= %s ORDER BY moment LIMIT %s")
_IDLE = _sql("SELECT scope FROM scopes WHERE due <= %s ORDER BY due LIMIT %s")


def _keeping(table: str, columns: Sequence[str], changed: Sequence[str]) -> bytes:
    """Writes a row, whether there was one under its key (the first column) or not."""
    names, marks = ", ".join(_quoted(columns)), ", ".join(["%s"] * len(columns))
    sets = ", ".join(f"{name} = excluded.{name}" for name in _quoted(changed))
    new = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - constants
    return _sql(f'{new} ON CONFLICT ("{columns[0]}") DO UPDATE SET {sets}')


_KEEP_SUMS = _keeping("scopes", SUMS_COLUMNS, SUMS_COLUMNS[1:])
_KEEP_HOLD = _keeping("reservations", HOLD_COLUMNS, ("state", *DIMENSIONS, "sent", "moment"))
_FORGET_SUMS = _sql("DELETE FROM scopes WHERE scope = %s")
_FORGET_HOLD = _sql("DELETE FROM reservations WHERE key = %s")

_PAGE = _sql("SELECT value, version, digest, expires FROM shelf WHERE key = %s")
_PUT = _sql("""INSERT INTO shelf VALUES (%s, %s, nextval('shelf_versions'), %s, %s) ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, version = excluded.version, digest = excluded.digest, expires = excluded.expires""")
_SWEEP = _sql("DELETE FROM shelf WHERE expires <= %s")


class PostgresBooks:
    """Implements Books: one transaction over a connection, begun with the first question.

    `ledger` is the number of the ledger's own lock, and seeds the hashes that are the numbers of the others. `limits`
    are those of a reservation that may be opened: their scopes are locked and read together with the key.
    """

    def __init__(self, connection: TimedConnection, ledger: int, limits: Sequence[Limit]) -> None:
        self._connection = connection
        self._ledger = ledger
        self._scopes = [limit.scope for limit in limits]
        self._begun = False
        self._wrote = False
        self._alone = False
        self._holds: dict[str, Hold] = {}
        self._sums: dict[str, Sums | None] = {}
        self._writes: dict[tuple[bytes, str], Statement] = {}

    def commit(self) -> None:
        """Makes it all last."""
        if self._begun or self._writes:
            self._ask(_COMMIT)
            self._connection.clean = True

    def roll_back(self) -> None:
        """Undoes it all.

        As a rule there is nothing to undo, and the end of the transaction lets its locks go (a ROLLBACK would, and make
        the client library forget its prepared statements). Otherwise the connection is closed, as it is not clean.
        """
        if self._begun and not self._wrote:
            with suppress(Error):
                self._connection.ask([_COMMIT])
                self._connection.clean = True

    def find(self, key: str) -> Hold | None:
        if key not in self._holds:
            named = {"key": key, "scopes": self._scopes, "seed": self._ledger}
            locks = [(_SHARE, (self._ledger,)), (_LOCK_KEY, (key, self._ledger ^ 1)), (_LOCK_SCOPES, named)]
            holds, sums = self._ask(*(() if self._alone else locks), (_HOLD_OF, named), (_SUMS_OF, named))[-2:]
            self._sums = dict.fromkeys(self._scopes) | self._sums
            self._keep_read(holds, sums)
        return self._holds.get(key)

    def sums(self, scope: str) -> Sums | None:
        if scope not in self._sums:
            named = {"key": None, "scopes": [scope], "seed": self._ledger}
            locks = [(_SHARE, (self._ledger,)), (_LOCK_SCOPES, named)]
            self._sums[scope] = None
            self._keep_read([], self._ask(*(() if self._alone else locks), (_SUMS_OF, named))[-1])
        return self._sums[scope]

    def keep(self, hold: Hold | None, sums: Iterable[Sums]) -> None:
        if hold is not None:
            limits = limits_text(hold.limits)
            row = (hold.key, hold.state, *figures(hold.amount), limits, hold.sent, hold.moment)
            self._holds[hold.key] = hold
            self._writes[_KEEP_HOLD, hold.key] = (_KEEP_HOLD, row)
        for one in sums:
            self._sums[one.scope] = one
            self._writes[_KEEP_SUMS, one.scope] = (_KEEP_SUMS, (one.scope, *sums_row(one)))

    def overdue(self, since: float, most: int | None) -> list[Hold]:
        return self._whole(self._ask_alone((_OVERDUE, (since, most))))

    def closed(self, since: float, most: int) -> list[Hold]:
        return self._whole(self._ask_alone((_CLOSED, (since, most))))

    def idle(self, now: float, most: int) -> list[str]:
        return [scope for (scope,) in self._ask_alone((_IDLE, (now, most)))]

    def forget(self, keys: Iterable[str], scopes: Iterable[str]) -> None:
        for key in keys:
            self._holds.pop(key, None)
            self._writes[_KEEP_HOLD, key] = (_FORGET_HOLD, (key,))
        for scope in scopes:
            self._sums[scope] = None
            self._writes[_KEEP_SUMS, scope] = (_FORGET_SUMS, (scope,))

    def holds(self, prefix: str) -> list[Hold]:
        return [hold_of(row) for row in self._ask((_ALL_HOLDS, (prefix,)))[-1]]

    def booked(self, prefix: str) -> list[Sums]:
        return [sums_of(row) for row in self._ask((_ALL_SUMS, (prefix,)))[-1]]

    def page(self, key: str) -> Page | None:
        for value, version, digest, expires in self._ask((_PAGE, (key,)))[-1]:
            if zlib.crc32(value) != digest:
                raise LedgerError(
                    f"shelf value '{key}' is damaged: its checksum does not fit; delete its row to begin anew"
                )
            return Page(value, version, expires)
        return None

    def put(self, key: str, value: bytes, expires: float | None) -> None:
        self._ask((_PUT, (key, value, zlib.crc32(value), expires)))
        self._wrote = True

    def sweep(self, since: float) -> None:
        """Comes first of a writer of the shelf, and keeps other ones out."""
        self._ask((LOCK, (self._ledger ^ 2,)), (_SWEEP, (since,)))
        self._wrote = True

    def _whole(self, rows: list[Row]) -> list[Hold]:
        """Reservations of rows, their sums read at once: whoever asks goes on to book on them."""
        holds = [self._holds.get(row[0]) or hold_of(row) for row in rows]
        wanted = {limit.scope for hold in holds for limit in hold.limits} - self._sums.keys()
        if wanted:
            self._sums.update(dict.fromkeys(wanted))
            named = {"key": None, "scopes": sorted(wanted)}
            self._keep_read([], self._ask((_SUMS_OF, named))[-1])
        self._holds.update((hold.key, hold) for hold in holds)
        return holds

    def _keep_read(self, holds: list[Row], sums: list[Row]) -> None:
        """Remembers rows for this transaction; what it has changed itself stays the object that it is."""
        for row in holds:
            self._holds.setdefault(row[0], hold_of(row))
        for row in sums:
            if self._sums.get(row[0]) is None:
                self._sums[row[0]] = sums_of(row)

    def _ask_alone(self, question: Statement) -> list[Row]:
        """The answer, and where there is one, as it is once nobody else is in the ledger.

        Only before any other lock: two that held a shared one would wait for each other.
        """
        rows = self._ask(question)[-1]
        if rows and not self._alone:
            rows = self._ask((LOCK, (self._ledger,)), question)[-1]
            self._alone = True
        return rows

    def _ask(self, *questions: Statement) -> list[list[Row]]:
        """The rows of each answer, in one round trip with all that waits to be written before."""
        statements = [*([] if self._begun else [_BEGIN]), *self._writes.values(), *questions]
        wrote = self._wrote or bool(self._writes)
        self._begun = self._wrote = True  # what an error leaves behind is not known
        answers = self._connection.ask(statements)
        self._wrote = wrote
        self._writes.clear()
        return answers[-len(questions) :]
