# ruff: noqa: E501 - tables of odd inputs read best with one case a line
"""`governor budget`: what it shows, changes, proves and refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from governor import Governor
from governor.cli import main
from governor.cli.budget_table import usd
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.protocols import Auditable
from governor.records import Amount, Limit
from governor.telemetry.records import JsonlSink
from governor.testing import ScriptedBackend
from tests.processes import interruptible

POLICY = """\
version: 1
app: desk
ledger: sqlite:///b.db
ladder: [{id: low, model: m/s, answer_tokens: 100, price: {input: 1, output: 2}}]
budget: {step: {usd: 1}, session: {tokens: 5000}, app: {per: day, usd: 5}}
"""
STORE = "sqlite:///b.db"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy, an SQLite ledger that three steps were booked on, and their records."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    Path("policy.yaml").write_text(POLICY)
    sink = JsonlSink("r.jsonl", app="desk")
    with Governor(load_policy("policy.yaml"), backend=ScriptedBackend(["a b", "c", "d e f"]), sinks=[sink]) as governor:
        for number in range(3):
            governor.run("Hello there", session=f"s{number % 2}", id=f"step-{number}")
    return tmp_path


def budget(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["governor", "budget", *argv])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code if isinstance(end.value.code, int) else int(end.value.code is not None)


def scopes(text: str) -> dict[str, Any]:
    return {one["scope"]: one for one in json.loads(text)["scopes"]}


def ledger() -> Any:
    opened = open_ledger(STORE)
    assert isinstance(opened, Auditable)
    return opened


def today(text: str) -> str:
    (scope,) = [scope for scope in scopes(text) if scope.startswith("app:desk@")]
    return scope


@pytest.mark.usefixtures("folder")
def test_show_tells_spent_and_left_under_the_policy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget(monkeypatch, "show", "--policy", "policy.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "scope",
        "window",
        "of",
        "spent",
        "reserved",
        "left",
        "pace",
        "an",
        "hour",
        "runs",
        "out",
        "expired",
        "overshoot",
    ]
    assert len(lines) == 4, "single steps are left out"
    app, first, second = lines[1:]
    assert "  usd " in app
    assert "$0.000018     $0.00  $4.999982 of $5.00" in app
    assert " lasts " in app
    assert first.split()[:5] == ["session:desk/s0", "total", "tokens", "9", "0"]
    assert "4,991 of 5,000" in first
    assert second.split()[0] == "session:desk/s1"
    assert budget(monkeypatch, "show", STORE, "--scope", "step:") == 0
    assert capsys.readouterr().out.count("step:desk/") == 3


@pytest.mark.usefixtures("folder")
def test_limits_are_the_policy_s_or_those_that_something_is_held_under(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ledger()
    store.reserve("other", Amount(micros=250_000), [Limit("app:desk2", micros=1_000_000)])
    store.reserve("run", Amount(calls=1), [Limit("run:desk/7")])
    store.close()
    assert budget(monkeypatch, "show", STORE, "--json") == 0
    told = scopes(capsys.readouterr().out)
    assert told["app:desk2"]["left"] == {"micros": 750_000}
    assert told["session:desk/s0"]["left"] == {}
    assert budget(monkeypatch, "show", "--policy", "policy.yaml", "--json") == 0
    told = scopes(capsys.readouterr().out)
    assert "app:desk2" not in told, "another application's"
    assert told["run:desk/7"]["kind"] == "run"
    assert told["session:desk/s0"]["left"] == {"tokens": 4_991}


@pytest.mark.usefixtures("folder")
def test_json_holds_micro_units(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget(monkeypatch, "show", STORE, "--policy", "policy.yaml", "--json") == 0
    told = scopes(capsys.readouterr().out)
    assert sorted(one["kind"] for one in told.values()) == ["app", "session", "session"]
    app = next(one for one in told.values() if one["kind"] == "app")
    assert (app["spent"]["micros"], app["left"], app["limit"]) == (18, {"micros": 4_999_982}, {"micros": 5_000_000})
    assert (app["spent"]["input"], app["spent"]["answer"], app["spent"]["calls"]) == (6, 6, 3)


def test_what_was_overshot_is_red_on_a_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    from governor.cli.budget_table import budget_table
    from governor.ledger.standing import Standing
    from governor.protocols import Balance

    balance = Balance(scope="app:[bold]x", spent=Amount(tokens=7), overshoot=Amount(tokens=2), expired=1)
    found = Standing(balance=balance, ceilings=(6, *[None] * 6), begun=None, now=0.0)
    with (tmp_path / "out").open("w+") as file:
        Console(file=file, force_terminal=True, width=150, color_system="standard").print(budget_table([found]))
        file.seek(0)
        text = file.read()
    assert "\x1b[1;31m        2\x1b[0m" in text
    assert "app:[bold]x" in text
    assert "-1 of 6" in text
    assert " now " in text


@pytest.mark.parametrize(
    ("micros", "told"),
    [(0, "$0.00"), (50_000, "$0.05"), (1_200_000_001, "$1,200.000001"), (-3_000_000, "-$3.00"), (1, "$0.000001")],
)
def test_money_is_told_exactly(micros: int, told: str) -> None:
    assert usd(micros) == told


@pytest.mark.usefixtures("folder")
def test_watch_prints_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget(monkeypatch, "watch", STORE, "--times", "2", "--interval", "0.1", "--scope", "session:") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4, "money and tokens of two sessions, and none twice that did not change"
    assert all("session:desk/s" in line and "overshoot" in line for line in lines)
    assert budget(monkeypatch, "watch", STORE, "--times", "2", "--interval", "0.1", "--json") == 0
    assert len([json.loads(line)["scopes"] for line in capsys.readouterr().out.splitlines()]) == 2


@pytest.mark.usefixtures("folder")
def test_ctrl_c_ends_a_watch_cleanly() -> None:
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "governor", "budget", "watch", STORE, "--interval", "0.1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=paths, preexec_fn=interruptible) as running:
        assert running.stdout is not None
        assert "app:desk@" in running.stdout.readline()
        time.sleep(0.1)
        os.kill(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, "")


def test_watch_draws_a_live_table_on_a_terminal(folder: Path) -> None:
    import pty

    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "150"}
    main_end, other_end = pty.openpty()
    command = [sys.executable, "-m", "governor", "budget", "watch", STORE, "--interval", "0.1", "--times", "2"]
    with subprocess.Popen(command, stdout=other_end, stderr=subprocess.PIPE, env=paths, cwd=folder) as running:
        os.close(other_end)
        seen = b""
        while True:
            try:
                piece = os.read(main_end, 4096)
            except OSError:  # Linux says so at the end of a terminal
                break
            if not piece:
                break
            seen += piece
        _, errors = running.communicate(timeout=30)
    os.close(main_end)
    assert (running.returncode, errors) == (0, b"")
    assert b"session:desk/s0" in seen
    assert b"\x1b[?25h" in seen, "the cursor is there again"


@pytest.mark.usefixtures("folder")
def test_set_carries_a_balance_over_and_reset_clears_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budget(monkeypatch, "show", STORE, "--json")
    scope = today(capsys.readouterr().out)
    assert budget(monkeypatch, "set", scope, STORE, "--usd", "1.000001", "--calls", "9", "--yes") == 0
    assert capsys.readouterr().out == f"{scope}: usd $0.000018 -> $1.000001, calls 3 -> 9\n"
    store = ledger()
    assert store.balance(scope).spent.micros == 1_000_001
    assert store.balance(scope).spent.tokens == 12
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert budget(monkeypatch, "reset", scope, "--policy", "policy.yaml", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["before"]["spent"]["micros"], told["after"]["spent"]["micros"]) == (1_000_001, 0)
    assert store.balance(scope).spent == Amount()
    store.close()


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "yet\n"])
def test_without_a_yes_nothing_changes(
    folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    before = ledger().balance("session:desk/s0")
    assert budget(monkeypatch, "reset", "session:desk/s0", STORE) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("session:desk/s0: tokens 9 -> 0,")
    assert ("use --yes" in err) is (answer == "")
    assert ledger().balance("session:desk/s0") == before


@pytest.mark.usefixtures("folder")
def test_a_scope_is_begun_only_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget(monkeypatch, "set", "app:desk@2031-01", STORE, "--tokens", "5", "--yes", "--new") == 0
    assert capsys.readouterr().out == "app:desk@2031-01: tokens 0 -> 5\n"
    store = ledger()
    store.reserve("later", Amount(tokens=2), [Limit("app:desk@2031-01", tokens=7)])
    assert store.balance("app:desk@2031-01").reserved.tokens == 2
    store.close()


@pytest.mark.usefixtures("folder")
def test_an_audit_proves_the_ledger_and_finds_one_micro_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget(monkeypatch, "audit", "r.jsonl", "--policy", "policy.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["scope", "of", "outcomes", "records", "expired", "ledger", "difference"]
    assert lines[-2:] == ["3 more scopes agree", "agrees (outcomes 3, attempts 3, scopes 6)"]
    budget(monkeypatch, "show", STORE, "--json")
    told = capsys.readouterr().out
    scope, micros = today(told), scopes(told)[today(told)]["spent"]["micros"]
    budget(monkeypatch, "set", scope, STORE, "--usd", f"{(micros + 1) / 1e6:.6f}", "--yes")
    capsys.readouterr()
    assert budget(monkeypatch, "audit", "r.jsonl", "--ledger", STORE) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "+$0.000001" in line]
    assert out.endswith("does not agree: scopes that differ 1 (outcomes 3, attempts 3, scopes 6)\n")
    assert budget(monkeypatch, "audit", "r.jsonl", "--ledger", STORE, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] is False
    assert [row["difference"]["micros"] for row in found["rows"] if not row["agrees"]] == [1]
    assert budget(monkeypatch, "audit", "r.jsonl", "--ledger", STORE, "--scope", "session:") == 0


@pytest.mark.usefixtures("folder")
def test_an_audit_tells_of_lines_it_could_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Path("r.jsonl").read_text().splitlines(keepends=True)
    Path("torn.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    assert budget(monkeypatch, "audit", "torn.jsonl", "--ledger", STORE) == 1
    out, err = capsys.readouterr()
    assert err == "torn.jsonl:6: skipped: not a whole line of JSON\n"
    assert "without an outcome: step-2: settled with 8 micro-USD, 5 tokens: attempts, but no outcome" in out
    assert "does not agree: scopes that differ 3, reservations without an outcome 1" in out
    assert budget(monkeypatch, "audit", "torn.jsonl", "--ledger", STORE, "--cancelled") == 0
    assert budget(monkeypatch, "audit", "r.jsonl", "--ledger", STORE, "--since", "2020-01-01") == 0


@pytest.mark.usefixtures("folder")
def test_export_writes_three_forms(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget(monkeypatch, "export", STORE, "--scope", "session:") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["scope"], row["spent"]) for row in rows if row["dimension"] == "tokens"} == {
        ("session:desk/s0", "9"),
        ("session:desk/s1", "3"),
    }
    assert budget(monkeypatch, "export", STORE, "--format", "jsonl") == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 3
    assert budget(monkeypatch, "export", "--policy", "policy.yaml", "--format", "prometheus") == 0
    assert 'governor_scope_limit_usd{scope="app:desk@' in capsys.readouterr().out


class Wrong(NamedTuple):
    argv: tuple[str, ...]
    told: str
    code: int = 2


WRONG = [
    Wrong(("show",), "which budget? name its store (such as sqlite:///budget.db) or a policy (--policy)"),
    Wrong(("show", "b.db"), "ledger 'b.db' is not a URI: write memory:// or sqlite:///path/to/file.db"),
    Wrong(("show", "sqlit:///b.db"), "unknown ledger scheme 'sqlit://': did you mean sqlite://?"),
    Wrong(("show", "sqlite://b.db"), "did you mean sqlite:///b.db? (three slashes)"),
    Wrong(("show", "sqlite:///nosuch.db"), "there is no file nosuch.db (it is made when something is first spent)"),
    Wrong(("show", "sqlite:///b.db?timeot=1"), "unknown option 'timeot': did you mean timeout?"),
    Wrong(("show", "memory://"), "memory:// lives in one process and ends with it"),
    Wrong(("show", "sqlite:///r.jsonl"), "r.jsonl: the file is not an SQLite database"),
    Wrong(("show", "--policy", "none.yaml"), "none.yaml: no such file"),
    Wrong(("show", "--policy", "balancd"), "no file and no shipped policy is called 'balancd' (did you mean 'balanced'?)"),
    Wrong(("shwo", STORE), "No such command 'shwo'"),
    Wrong(("watch", STORE, "--interval", "0"), "Invalid value for '--interval'"),
    Wrong(("watch", STORE, "--times", "0"), "Invalid value for '--times'"),
    Wrong(("set", "session:desk/s0", STORE), "say what counts as spent, such as --usd 3.50"),
    Wrong(("set", "session:desk/s0", STORE, "--usd", "-1"), "Invalid value for '--usd'"),
    Wrong(("set", "session:desk/s0", STORE, "--usd", "nan"), "Invalid value for '--usd'"),
    Wrong(("set", "session:desk/s0", STORE, "--usd", "inf"), "figures must be finite"),
    Wrong(("set", "session:desk/s0", STORE, "--usd", "1e12"), "figures go up to 2**53"),
    Wrong(("set", "session:desk/s9", STORE, "--calls", "1"), "no scope 'session:desk/s9' (did you mean session:desk/s1?)"),
    Wrong(("set", "app:desk~day", STORE, "--calls", "1", "--new"), "'app:desk~day' slides: its window is known once something was spent on it"),
    Wrong(("reset", "qqq", STORE, "--yes"), "no scope 'qqq' (governor budget show lists all; --new begins one)"),
    Wrong(("reset",), "Missing argument 'scope'"),
    Wrong(("audit", "--ledger", STORE), "Missing argument 'records'"),
    Wrong(("audit", "none.jsonl", "--ledger", STORE), "none.jsonl: can't be read: No such file or directory"),
    Wrong(("audit", "policy.yaml", "--ledger", STORE), "policy.yaml: no outcome to add up"),
    Wrong(("audit", "newer.jsonl", "--ledger", STORE), "newer.jsonl:1: schema 9 is newer than 1: upgrade compute-governor"),
    Wrong(("audit", "r.jsonl"), "which budget?"),
    Wrong(("audit", "r.jsonl", "--ledger", STORE, "--since", "noon"), "'noon' is no moment (write 2026-11-21"),
    Wrong(("audit", "r.jsonl", "--ledger", STORE, "--since", "2199-01-01"), "r.jsonl: no outcome to add up"),
    Wrong(("export", STORE, "--format", "xml"), "Invalid value for '--format'"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case.argv))
def test_bad_input_is_one_line_and_changes_nothing(
    case: Wrong, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("newer.jsonl").write_text('{"schema": 9}\n')
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix not in (".db-wal", ".db-shm")}
    assert budget(monkeypatch, *case.argv) == case.code
    out, err = capsys.readouterr()
    about = [line for line in err.splitlines() if case.told in line]
    assert len(about) == 1, err
    assert all("skipped" in line for line in err.splitlines() if line not in about)
    assert out == ""
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix not in (".db-wal", ".db-shm")}
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} <= {"b.db"}


def test_an_empty_store_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    open_ledger(STORE).close()
    assert budget(monkeypatch, "show", STORE, "--scope", "app:") == 0
    assert capsys.readouterr().out == "sqlite:///b.db: nothing was spent yet on app:\n"
