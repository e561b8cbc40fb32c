"""A PostgreSQL server for the suites that need one; where it can't be had they are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from governor.ledger import open_ledger
from governor.protocols import Ledger
from tests.postgres_servers import PostgresServer, server_folder


@pytest.fixture(scope="session")
def started_postgres() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    programs = server_folder()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    server = PostgresServer(programs)
    yield server
    server.stop()


@pytest.fixture
def postgres(started_postgres: PostgresServer) -> PostgresServer:
    """A server that runs, shared by the session: each ledger has a schema of its own."""
    if not started_postgres.running:  # a test that killed it failed
        started_postgres.start()
    return started_postgres


@pytest.fixture
def schema(postgres: PostgresServer) -> str:
    return postgres.new_schema()


@pytest.fixture
def postgres_uri(postgres: PostgresServer, schema: str) -> str:
    """An empty ledger there."""
    return postgres.uri(schema)


@pytest.fixture
def two(postgres_uri: str) -> Iterator[tuple[Ledger, Ledger]]:
    """The same ledger twice, as two processes have it."""
    ledgers = open_ledger(postgres_uri), open_ledger(postgres_uri)
    yield ledgers
    for ledger in ledgers:
        ledger.close()
