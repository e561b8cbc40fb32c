"""`governor budget rebuild`: a Redis that lost its books gets new ones from the records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from governor import Governor
from governor.cli import main
from governor.errors import LedgerLostError
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.protocols import Auditable
from governor.records import Amount, Window
from governor.telemetry.records import JsonlSink
from governor.testing import ScriptedBackend
from tests.redis_servers import RedisServer

POLICY = """\
version: 1
app: desk
ledger: {uri}
ladder: [{{id: low, model: m/s, answer_tokens: 100, price: {{input: 1, output: 2}}}}]
budget: {{session: {{tokens: 5000}}, app: [{{per: day, usd: 5}}, {{per: hour, sliding: true, tokens: 9000}}]}}
"""


def budget(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["governor", "budget", *argv])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code if isinstance(end.value.code, int) else int(end.value.code is not None)


def run_steps(folder: Path, uri: str, numbers: range) -> None:
    (folder / "policy.yaml").write_text(POLICY.format(uri=uri))
    sink = JsonlSink(folder / "r.jsonl", app="desk")
    policy = load_policy(folder / "policy.yaml")
    with Governor(policy, backend=ScriptedBackend(["a b"] * len(numbers)), sinks=[sink]) as governor:
        for number in numbers:
            outcome = governor.run("Hello there", session=f"s{number % 2}", id=f"step-{number}")
            assert outcome.status == "unverified"


def test_what_was_lost_is_rebuilt_from_the_records_and_spending_goes_on(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(tmp_path, own_redis.uri, range(5))
    before = _books(own_redis.uri)
    running = open_ledger(own_redis.uri)
    running.balance("app:desk")
    with own_redis.client as client:
        client.flushall()
    with pytest.raises(LedgerLostError):
        running.balance("app:desk")
    records, policy = str(tmp_path / "r.jsonl"), str(tmp_path / "policy.yaml")
    assert budget(monkeypatch, "show", "--policy", policy) == 1
    assert "its books were lost" in capsys.readouterr().err
    assert budget(monkeypatch, "rebuild", records, "--policy", policy, "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcomes"], told["scopes"], told["unplaced"]) == (5, 4, {})
    assert _books(own_redis.uri) == before
    assert {one.scope for one in running.balances()} == set(before)  # type: ignore[attr-defined]  # a Redis ledger lists
    running.close()
    run_steps(tmp_path, own_redis.uri, range(5, 8))
    assert budget(monkeypatch, "audit", records, "--policy", policy) == 0


def test_steps_without_an_outcome_stop_it_until_told_otherwise(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(tmp_path, own_redis.uri, range(2))
    records = tmp_path / "r.jsonl"
    lines = [line for line in records.read_text().splitlines() if '"outcome"' not in line or "step-1" not in line]
    records.write_text("\n".join(lines) + "\n")
    argv = ("rebuild", str(records), "--ledger", own_redis.uri, "--yes")
    assert budget(monkeypatch, *argv) == 1
    assert "not placed: step-1: no outcome: its attempts used" in capsys.readouterr().err
    assert budget(monkeypatch, *argv, "--incomplete") == 0
    assert "rebuilt 3 scopes from 1 outcomes" in capsys.readouterr().out


def test_only_a_ledger_that_may_lose_its_books_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path / 'b.db'}"
    run_steps(tmp_path, uri, range(1))
    assert budget(monkeypatch, "rebuild", str(tmp_path / "r.jsonl"), "--ledger", uri, "--yes") == 2
    assert "no store that marks its books as lost" in capsys.readouterr().err


def _books(uri: str) -> dict[str, tuple[Amount, Window]]:
    ledger = open_ledger(uri)
    assert isinstance(ledger, Auditable)
    found = {one.scope: (one.spent, one.window) for one in ledger.balances() if not one.scope.startswith("step:")}
    ledger.close()
    return found
