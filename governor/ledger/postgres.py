"""postgresql://host/database - tables of one schema in a server, shared by processes of any number of machines.

An operation is confirmed when its transaction is committed, and so survives whatever the server's own settings make it
survive: with `synchronous_commit` as it comes, the death of any process and a power cut. One that was cut has left all
or nothing; each may be repeated (an extension: with `whole`).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger.postgres_connections import Connections, TimedConnection
from governor.ledger.postgres_rows import APPLICATION, LOCK, TABLES, VERSION, PostgresBooks
from governor.records import Limit

OPTIONS = ("schema", "timeout")
"""Those of this store; all others are the library's (postgresql.org/docs/current/libpq-connect.html)."""

OLDEST = 120_000
"""Server versions before 12 are no longer kept by anybody."""

_REASONS = {
    "40P01": "two operations waited for each other: repeat this one",
    "42501": "the user may not read or write there: grant it the schema",
    "53100": "the server's disk is full: free some space",
    "55P03": "another process kept it locked",
    "57014": "the server took too long",
}


def open_store(uri: str) -> PostgresStore:
    """The store that `postgresql://user@host/database?schema=governor&timeout=2` names; LedgerError if none."""
    base, _, query = uri.partition("?")
    given = [pair for pair in query.split("&") if pair]
    named = [(unquote(pair.partition("=")[0]), unquote(pair.partition("=")[2])) for pair in given]
    _refuse_unknown([name for name, _ in named])
    rest = "&".join(pair for pair, (name, _) in zip(given, named, strict=True) if name not in OPTIONS)
    own = dict(named)
    schema, timeout = own.get("schema", "governor"), own.get("timeout", "5")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema) or schema.startswith("pg_"):
        raise LedgerError(f"ledger postgresql: schema must be lower-case letters, digits and '_', not '{schema}'")
    if not re.fullmatch(r"\d+(\.\d+)?", timeout) or float(timeout) <= 0:
        raise LedgerError(f"ledger postgresql: timeout must be seconds, not '{timeout}'")
    try:
        return PostgresStore(f"{base}?{rest}" if rest else base, schema=schema, timeout=float(timeout))
    except psycopg.ProgrammingError as cause:
        raise LedgerError(f"ledger postgresql: {_line(cause)}") from cause


def _refuse_unknown(names: Sequence[str]) -> None:
    known = [*OPTIONS, "ssl", *(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(OPTIONS)} and those of libpq"
            raise LedgerError(f"ledger postgresql: unknown option '{name}': {hint}")


class PostgresStore:
    """Implements Store over a few connections a process, made when they are first needed.

    So a server that is down while a process starts is told by the operations, and whatever stands in for it can.
    """

    remote = True

    def __init__(self, conninfo: str, *, schema: str = "governor", timeout: float = 5.0) -> None:
        self._schema = schema
        self._name = f"ledger {_shown(conninfo)}, schema {schema}"
        # Which of the database's advisory locks are this ledger's. The lowest two bits tell kinds apart.
        self._number = int.from_bytes(hashlib.sha256(f"{APPLICATION} {schema}".encode()).digest()[:8], signed=True) & ~3
        self._connections = Connections(conninfo, {"path": f'"{schema}"'}, self._prepare, timeout)

    @contextmanager
    def transaction(self, limits: Sequence[Limit] = (), /) -> Generator[PostgresBooks, None, None]:
        with self._explained(), self._connections.one() as connection:
            books = PostgresBooks(connection, self._number, limits)
            try:
                yield books
                books.commit()
            except BaseException:
                books.roll_back()
                raise

    def close(self) -> None:
        self._connections.close()

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except psycopg.DataError as cause:
            raise LedgerError(f"{self._name}: {_line(cause)}") from cause
        except psycopg.Error as cause:
            raise LedgerUnavailableError(
                f"{self._name}: {_REASONS.get(cause.sqlstate or '') or _line(cause)}"
            ) from cause

    def _prepare(self, connection: TimedConnection) -> None:
        """Sees that the tables are there, and are ours."""
        if connection.info.server_version < OLDEST:
            raise LedgerUnavailableError(f"{self._name}: the server is too old: version 12 or newer is needed")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise LedgerUnavailableError(f"{self._name}: the database's encoding must be UTF8")
        if self._version(connection) == 0:
            with connection.transaction():
                connection.execute(LOCK, (self._number,))
                if self._version(connection) == 0:  # another process may have been first
                    if connection.execute(b"SELECT to_regnamespace(%s)", (self._schema,)).fetchone() == (None,):
                        connection.execute(f'CREATE SCHEMA "{self._schema}"'.encode())
                    for statement in TABLES:
                        connection.execute(statement)

    def _version(self, connection: TimedConnection) -> int:
        """The version of the tables, 0 where there are none; LedgerUnavailableError for any but ours."""
        rows = connection.execute(_TABLES_OF, (self._schema,)).fetchall()
        if not rows:
            return 0
        if not {"ledger", "scopes", "reservations", "shelf"} <= {name for (name,) in rows}:
            raise self._foreign()
        try:
            row = connection.execute(b"SELECT application, version FROM ledger").fetchone()
        except psycopg.errors.UndefinedColumn:
            row = None
        if row is None or row[0] != APPLICATION:
            raise self._foreign()
        if row[1] > VERSION:
            raise LedgerUnavailableError(
                f"{self._name}: written by a newer version (schema {row[1]}, known is {VERSION}): "
                "upgrade compute-governor"
            )
        return int(row[1])

    def _foreign(self) -> LedgerUnavailableError:
        return LedgerUnavailableError(
            f"{self._name}: the schema belongs to another program, choose another one with ?schema=NAME"
        )


_TABLES_OF = b"""SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f')"""


def _shown(conninfo: str) -> str:
    """Where it leads, without a password."""
    given = conninfo_to_dict(conninfo)
    port = f":{given['port']}" if given.get("port") else ""
    return f"postgresql://{given.get('host') or ''}{port}/{given.get('dbname') or ''}"


def _line(cause: psycopg.Error) -> str:
    return " ".join(str(cause).split())
