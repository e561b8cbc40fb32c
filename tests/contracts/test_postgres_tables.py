"""Whose tables a ledger in PostgreSQL uses, and what they can hold."""

from __future__ import annotations

from typing import cast

import pytest

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.protocols import Auditable, Shelf
from governor.records import Amount, Limit
from tests.postgres_servers import PostgresServer


def test_a_schema_of_another_program_is_refused(postgres: PostgresServer, schema: str, postgres_uri: str) -> None:
    with postgres.connect(schema) as other:
        other.execute(f'CREATE SCHEMA "{schema}"'.encode())
        other.execute(b"CREATE TABLE guests (name text)")
    with pytest.raises(
        LedgerUnavailableError, match=r"belongs to another program, choose another one with \?schema=NAME"
    ):
        open_ledger(postgres_uri).balance("app")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"UPDATE ledger SET version = 2", r"newer version \(schema 2, known is 1\): upgrade compute-governor"),
        (b"UPDATE ledger SET application = 'accounts'", "belongs to another program"),
        (b"ALTER TABLE ledger DROP COLUMN version", "belongs to another program"),
        (b"DELETE FROM ledger", "belongs to another program"),
    ],
)
def test_tables_that_are_not_this_version_s_are_refused(
    postgres: PostgresServer, schema: str, postgres_uri: str, change: bytes, message: str
) -> None:
    ledger = open_ledger(postgres_uri)
    ledger.balance("app")
    ledger.close()
    with postgres.connect(schema) as other:
        other.execute(change)
    with pytest.raises(LedgerUnavailableError, match=message):
        open_ledger(postgres_uri).balance("app")


def test_a_user_without_the_right_to_create_uses_a_schema_that_is_there(postgres: PostgresServer, schema: str) -> None:
    with postgres.connect("public") as other:
        other.execute(f'CREATE ROLE "{schema}" LOGIN'.encode())
    postgres_uri = postgres.uri(schema).replace("governor@", f"{schema}@")
    with pytest.raises(LedgerUnavailableError, match="the user may not read or write there"):
        open_ledger(postgres_uri).balance("app")
    with postgres.connect("public") as other:
        other.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{schema}"'.encode())
    ledger = open_ledger(postgres_uri)
    assert ledger.reserve("k", Amount(tokens=1), ()).state == "open"
    ledger.close()


def test_a_database_that_is_not_there_is_one_clear_line(postgres_uri: str) -> None:
    with pytest.raises(LedgerUnavailableError, match='database "nowhere" does not exist'):
        open_ledger(postgres_uri.replace("/postgres?", "/nowhere?")).balance("app")


def test_what_the_uri_says_beside_is_the_client_library_s(postgres: PostgresServer, schema: str) -> None:
    ledger = open_ledger(postgres.uri(schema, options="-c%20synchronous_commit%3Doff", application_name="a%26b"))
    with ledger._store._connections.one() as connection:  # type: ignore[attr-defined]
        question = b"SELECT current_setting('synchronous_commit'), current_setting('application_name')"
        assert connection.ask([(question, ())]) == [[("off", "a&b")]]
    ledger.close()


def test_a_text_that_the_server_can_not_hold_is_refused_and_nothing_kept(postgres_uri: str) -> None:
    ledger = open_ledger(postgres_uri)
    assert isinstance(ledger, Auditable)
    with pytest.raises(LedgerError, match="NUL"):
        ledger.reserve("k\0", Amount(tokens=1), (Limit("app"),))
    with pytest.raises(LedgerError, match="NUL"):
        ledger.reserve("k", Amount(tokens=1), (Limit("app\0"),))
    ledger.reserve('k \u00e9\U0001f600"\\', Amount(tokens=1), (Limit('app \u00e9\U0001f600"\\'),))
    assert ledger.extend('k \u00e9\U0001f600"\\', Amount(tokens=1)).amount == Amount(tokens=2)
    assert [(one.scope, one.reserved.tokens) for one in ledger.balances()] == [('app \u00e9\U0001f600"\\', 2)]
    ledger.close()


def test_a_damaged_value_of_the_shelf_is_one_clear_line(
    postgres: PostgresServer, schema: str, postgres_uri: str
) -> None:
    ledger = open_ledger(postgres_uri)
    shelf = cast("Shelf", ledger)
    shelf.save("k", b"groats", 0)
    shelf.save("l", b"sound", 0)
    with postgres.connect(schema) as other:
        other.execute(b"UPDATE shelf SET value = 'gratis' WHERE key = 'k'")
    with pytest.raises(LedgerError, match="shelf value 'k' is damaged: its checksum does not fit"):
        shelf.load("k")
    assert (shelf.load("l") or (b"",))[0] == b"sound"
    ledger.close()
