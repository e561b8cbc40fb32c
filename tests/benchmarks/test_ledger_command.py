"""`python -m benchmarks.ledger --short`, on real servers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_the_short_form_holds_its_claims() -> None:
    command = [sys.executable, "-m", "benchmarks.ledger", "--short", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert {table["title"] for table in found["tables"]} == {"Caps", "Throughput", "Streams", "Soak"}
    assert {claim["text"] for claim in found["claims"]} >= {"calls sent of 50, Redis", "flat over an hour, SQLite"}
