from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest
from redis.asyncio.connection import Connection

from governor.errors import LedgerError, LedgerUnavailableError, MissingExtraError
from governor.ledger import open_ledger
from governor.ledger.redis_calls import keys_of
from governor.ledger.redis_link import _Packed, address
from tests.ports import refused_port


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("redis://h/0?tennant=a", "ledger 'redis://h/0': unknown option 'tennant': did you mean tenant?"),
        ("redis://h/0?shade=red", "known are tenant, timeout, cluster, create, db, ssl_ca_certs"),
        ("redis://h/0?tenant={a}", "a tenant is a name without braces, not '{a}'"),
        ("redis://h/0?tenant=", "a tenant is a name without braces, not ''"),
        ("redis://h/0?timeout=soon", "timeout must be seconds, not 'soon'"),
        ("redis://h/0?timeout=0", "timeout must be seconds, not '0'"),
        ("redis://h/0?cluster=maybe", "cluster is yes or no, not 'maybe'"),
        ("redis://user:secret@h/0?create=never", "ledger 'redis://h/0': create is yes or no, not 'never'"),
        ("redis://h:port/0", "ledger 'redis://h:port/0': Port could not be cast to integer"),
        ("redis://h/x", "ledger 'redis://h/x': the database is a number, not 'x'"),
        ("redis://h/1?cluster=yes", "a cluster has database 0 only, not '1'"),
        ("unix://", "ledger 'unix://' names no socket: write unix:///path/to/redis.sock"),
        ("redis:///0", "ledger 'redis:///0' names no host: write redis://host:6379/0"),
    ],
)
def test_a_wrong_uri_is_one_clear_line_without_its_password(uri: str, message: str) -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "url", "where"),
    [
        ("redis://h", "redis://h", "redis://h"),
        ("redis://u:p@h:1/2?tenant=a&timeout=3", "redis://u:p@h:1/2", "redis://h:1/2"),
        ("rediss://h/0?ssl_ca_certs=/c.pem&create=no", "rediss://h/0?ssl_ca_certs=%2Fc.pem", "rediss://h/0"),
        ("unix:///run/r.sock?db=3", "unix:///run/r.sock?db=3", "unix:///run/r.sock"),
    ],
)
def test_options_of_the_ledger_are_not_the_client_s(uri: str, url: str, where: str) -> None:
    found = address(uri)
    assert (found.url, found.where) == (url, where)


def test_all_keys_of_a_tenant_have_one_hash_tag() -> None:
    assert keys_of("acme")[:2] == ("governor:{acme}:epoch", "governor:{acme}:holds")
    assert {key.partition("{")[2].partition("}")[0] for key in keys_of("acme")} == {"acme"}


def test_opening_asks_nothing_of_the_server_and_a_server_that_is_down_is_one_clear_line() -> None:
    with (
        refused_port() as port,
        closing(open_ledger(f"redis://:secret@127.0.0.1:{port}/0")) as ledger,
        pytest.raises(LedgerUnavailableError) as down,
    ):
        ledger.balance("app")
    assert str(down.value) == (
        f"ledger redis://127.0.0.1:{port}/0: the server can't be reached, or the connection broke"
    )


def test_without_its_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governor.ledger.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compute-governor\[redis\]'"):
        open_ledger("rediss://host")


def test_other_ledgers_import_no_client() -> None:
    code = (
        "import sys; from governor.ledger import open_ledger; open_ledger('memory://'); print('redis' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_an_awaited_connection_packs_the_same_bytes_in_c() -> None:
    class InC(_Packed, Connection): ...

    command = ("EVALSHA", "a" * 40, 1, "governor:{acme}:epoch", 900.0, "1700000000.25", "é", b"\x00\r\n", "")
    assert b"".join(InC().pack_command(*command)) == b"".join(Connection().pack_command(*command))
    assert InC().pack_command("CLIENT SETINFO", "LIB-NAME") == [
        b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nLIB-NAME\r\n"
    ]
