"""What a postgresql:// URI may say, where no server is needed to know."""

from __future__ import annotations

import sys

import pytest

from governor.errors import LedgerError, LedgerUnavailableError, MissingExtraError
from governor.ledger import open_ledger
from tests.ports import refused_port


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://h/db?shema=x", "unknown option 'shema': did you mean schema?"),
        ("postgres://h/db?sslmod=require", "unknown option 'sslmod': did you mean sslmode?"),
        ("postgresql://h/db?colour=red", "known are schema, timeout and those of libpq"),
        ("postgresql://h/db?schema=Bad%20Name", "schema must be lower-case letters, digits and '_', not 'Bad Name'"),
        ("postgresql://h/db?schema=pg_mine", "schema must be"),
        ("postgresql://h/db?schema=", "schema must be"),
        ("postgresql://h/db?timeout=soon", "timeout must be seconds, not 'soon'"),
        ("postgresql://h/db?timeout=0", "timeout must be seconds, not '0'"),
        ("postgresql://[h/db", "end of string"),
        ("postgresqll://h/db", "did you mean postgresql://?"),
    ],
)
def test_a_wrong_uri_is_one_clear_line(uri: str, message: str) -> None:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    with pytest.raises(LedgerError) as caught:
        open_ledger(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    with refused_port() as port, pytest.raises(LedgerUnavailableError) as caught:
        open_ledger(f"postgresql://me:s3cret@127.0.0.1:{port}/books?password=s3cret&schema=mine").balance("app")
    assert str(caught.value).startswith(f"ledger postgresql://127.0.0.1:{port}/books, schema mine: connection failed")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("governor.ledger.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compute-governor\[postgres\]'"):
        open_ledger("postgresql://h/db")
