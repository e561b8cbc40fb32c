"""`governor run` on a real model: kill -9 in the middle loses nothing and pays nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from governor.ledger import open_ledger
from governor.telemetry.records import read_records
from tests.processes import interruptible

pytestmark = pytest.mark.model
COUNT = 8


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    sums = [{"id": f"sum-{n}", "session": "s", "prompt": f"What is {n} + 2?"} for n in range(COUNT)]
    path.write_text(
        "".join(json.dumps(task | {"verify": {"number": {"equals": 2 + i}}}) + "\n" for i, task in enumerate(sums))
    )
    return path


def command(policy: Path, tasks: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "governor", "run", str(policy), "--input", str(tasks), "--out", str(out)),
        *("--concurrency", "2", "--seed", "3", "--json", "--records", f"{out}.records"),
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_killed_run_goes_on_and_every_token_is_booked_once(policy: Path, tasks: Path, tmp_path: Path) -> None:
    policy.write_text(policy.read_text().replace("budget: {", "budget: {session: {tokens: 1000000}, "))
    out = tmp_path / "outcomes.jsonl"
    killed = 0
    for already in (1, 4):
        process = subprocess.Popen(command(policy, tasks, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(lines(out)) < already and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed, "no run was killed in the middle: the test shows nothing"
    done = subprocess.run(command(policy, tasks, out), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr

    outcomes = lines(out)
    assert sorted(row["id"] for row in outcomes) == [f"sum-{n}" for n in range(COUNT)]
    ledger = open_ledger(f"sqlite:///{out}.ledger.db")
    balance = ledger.balance("session:end-to-end/s")
    assert balance.reserved.tokens == 0
    assert balance.spent.micros == round(sum(row["cost"] for row in outcomes) * 1_000_000)
    assert not Path(f"{out}.journal").exists()
    recorded = [record for record in read_records(Path(f"{out}.records")) if record["kind"] == "outcome"]
    assert {record["step_id"] for record in recorded} == {row["id"] for row in outcomes}


def test_a_finished_run_is_not_run_again(policy: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "outcomes.jsonl"
    first = subprocess.run(command(policy, tasks, out), capture_output=True, text=True, timeout=100, check=True)
    before = out.read_bytes()
    again = subprocess.run(command(policy, tasks, out), capture_output=True, text=True, timeout=100, check=True)
    assert json.loads(first.stdout)["done_earlier"] == 0
    assert json.loads(again.stdout) == {"tasks": COUNT, "done_earlier": COUNT}
    assert out.read_bytes() == before


def test_ctrl_c_leaves_whole_lines_and_settled_reservations(policy: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "outcomes.jsonl"
    process = subprocess.Popen(
        command(policy, tasks, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    deadline = time.monotonic() + 60
    while not lines(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 or len(lines(out)) == COUNT
    assert "the same command goes on" in errors or len(lines(out)) == COUNT
    assert "Traceback" not in errors
    assert lines(out), "whole lines only, each of them JSON"
