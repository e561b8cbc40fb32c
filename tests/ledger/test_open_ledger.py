from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import governor.ledger
from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.protocols import Ledger
from governor.records import Amount, Limit


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ledger.db", "is not a URI: write memory:// or sqlite:///"),
        ("sqlte:///x.db", "unknown ledger scheme 'sqlte://': did you mean sqlite://?"),
        ("carrier-pigeon://x", "known are memory, postgres, postgresql, redis, rediss, sqlite, unix"),
        ("memory://x", "memory:// takes no path"),
        ("sqlite://x.db", "did you mean sqlite:///x.db? (three slashes)"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "use memory://"),
        ("sqlite:///a#b.db", "write # as %23"),
        ("sqlite:///a.db?synchronus=full", "did you mean synchronous?"),
        ("sqlite:///a.db?colour=red", "known are synchronous, timeout"),
        ("sqlite:///a.db?synchronous=off", "synchronous is normal or full, not 'off'"),
        ("sqlite:///a.db?timeout=soon", "timeout must be seconds, not 'soon'"),
    ],
)
def test_a_wrong_uri_is_one_clear_line(uri: str, message: str) -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lease_must_last() -> None:
    with pytest.raises(LedgerError, match="ttl must be positive, not 0"):
        open_ledger("memory://", ttl=0)


def test_relative_absolute_and_encoded_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri, name in (
        ("sqlite:///plain.db", "plain.db"),
        (f"sqlite:///{tmp_path}/absolute.db", "absolute.db"),
        ("sqlite:///with%20space%23%3F.db?synchronous=FULL&timeout=0.5", "with space#?.db"),
    ):
        open_ledger(uri).close()
        assert (tmp_path / name).is_file()


def test_a_relative_path_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = open_ledger("sqlite:///x.db")
    monkeypatch.chdir("/")
    ledger._store._drop()  # type: ignore[attr-defined]  # the next operation opens the file anew
    ledger.reserve("k", Amount(tokens=1), (Limit("app"),))
    assert ledger.balance("app").reserved == Amount(tokens=1)
    ledger.close()


def _newer(path: Path) -> None:
    open_ledger(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE guests (name TEXT)")
    connection.close()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("not a database, " * 100), "not an SQLite database: choose another path"),
        (lambda path: path.mkdir(), "can't be opened: its folder must exist"),
        (_newer, "newer version (schema 3, known is 2): upgrade"),
        (_foreign, "belongs to another program"),
    ],
)
def test_an_unusable_file_is_one_clear_line(tmp_path: Path, prepare: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.db"
    prepare(path)
    with pytest.raises(LedgerUnavailableError) as caught:
        open_ledger(f"sqlite:///{path}")
    assert str(caught.value).startswith(f"ledger {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/proc/ledger.db", "/no/such/folder/ledger.db"])
def test_a_folder_that_can_not_be_written_is_one_clear_line(path: str) -> None:
    with pytest.raises(LedgerUnavailableError, match="its folder must exist and be writable"):
        open_ledger(f"sqlite:///{path}")


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/x.db")
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="it was closed"):
        ledger.balance("app")


def test_synchronous_is_what_the_uri_says(tmp_path: Path) -> None:
    for option, expected in (("", 1), ("?synchronous=full", 2)):
        ledger = open_ledger(f"sqlite:///{tmp_path}/x.db{option}")
        with ledger._store.transaction() as books:  # type: ignore[attr-defined]
            assert books._execute("PRAGMA synchronous").fetchone() == (expected,)
            assert books._execute("PRAGMA journal_mode").fetchone() == ("wal",)
        ledger.close()


def make_elsewhere(uri: str, *, clock: Callable[[], float], ttl: float) -> Ledger:
    assert uri == "elsewhere://host"
    return open_ledger("memory://", clock=clock, ttl=ttl + 1)


def test_other_schemes_come_from_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", f"{__name__}:make_elsewhere", "governor.ledgers")
    monkeypatch.setattr(governor.ledger, "entry_points", lambda group: [point] if group == point.group else [])
    ledger = open_ledger("elsewhere://host", ttl=4)
    assert ledger._ttl == 5  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="did you mean elsewhere://"):
        open_ledger("elswhere://host")


def test_opening_a_memory_ledger_imports_no_database() -> None:
    code = (
        "import sys; from governor.ledger import open_ledger; open_ledger('memory://');"
        "assert not {'sqlite3', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_file_of_version_1_keeps_its_books(tmp_path: Path) -> None:
    """As the first release wrote it: one settled, one open, one scope."""
    path = tmp_path / "old.db"
    old = ("spent", "reserved", "overshoot")
    sums = [f"{part}_{name}" for part in old for name in ("tokens", "micros", "millis", "calls")]
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"CREATE TABLE scopes (scope TEXT PRIMARY KEY, {', '.join(f'{name} INTEGER NOT NULL' for name in sums)}) "
            "WITHOUT ROWID; CREATE TABLE reservations (key TEXT PRIMARY KEY, state TEXT NOT NULL, "
            "tokens INTEGER NOT NULL, micros INTEGER NOT NULL, millis INTEGER NOT NULL, calls INTEGER NOT NULL, "
            "limits TEXT NOT NULL, touched REAL NOT NULL) WITHOUT ROWID;"
            "CREATE INDEX open_leases ON reservations (touched) WHERE state = 'open';"
            "INSERT INTO scopes VALUES ('app', 7, 0, 0, 1, 20, 5, 0, 2, 0, 0, 0, 0);"
            "INSERT INTO reservations VALUES ('a', 'settled', 7, 0, 0, 1, '[[\"app\", 100, null, null, null]]', 1000);"
            "INSERT INTO reservations VALUES ('b', 'open', 20, 5, 0, 2, '[[\"app\", 100, null, null, null]]', 1000);"
            "PRAGMA application_id = 1198487116; PRAGMA user_version = 1;"
        )
    connection.close()
    ledger = open_ledger(f"sqlite:///{path}", clock=lambda: 1001.0)
    balance = ledger.balance("app")
    assert (balance.spent, balance.reserved) == (Amount(tokens=7, calls=1), Amount(tokens=20, micros=5, calls=2))
    assert ledger.settle("b", Amount(tokens=10, thinking=3)).limits == (Limit("app", tokens=100),)
    assert ledger.settle("a", Amount(tokens=7, calls=1)).state == "settled"
    assert ledger.balance("app").spent == Amount(tokens=17, calls=1, thinking=3)
    ledger.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT refs FROM scopes").fetchall() == [(2,)]
    connection.close()
