"""`governor demo`, whole: on SmolLM2 everywhere, on the two Qwen sizes where GOVERNOR_MODELS has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from governor_local.registry import list_models
from tests.processes import interruptible

pytestmark = [pytest.mark.slow, pytest.mark.model]
DEMO = [sys.executable, "-m", "governor", "demo"]
ARM = {"accuracy", "cost", "output_tokens", "verifier_tokens", "seconds"}


@pytest.fixture
def small_only(smollm2: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which SmolLM2 is the only model, as on a machine with nothing but the package index."""
    folder = tmp_path / "compute-governor" / "models"
    folder.mkdir(parents=True)
    shutil.copy(smollm2, folder)
    kept = {name: value for name, value in os.environ.items() if name != "GOVERNOR_MODELS"}
    return kept | {"XDG_CACHE_HOME": str(tmp_path)}


def test_with_the_index_alone_it_shows_the_mechanism_and_mends_an_answer(small_only: dict[str, str]) -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, env=small_only, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "this shows the mechanism" in text
    assert "Backtracking turned a rejected answer into a right one on:" in text
    assert "Price is a weight per token" in text
    assert re.search(r"governed .* \d+/23", text)


def test_json_is_one_object_even_after_ctrl_c(small_only: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*DEMO, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=small_only,
        preexec_fn=interruptible,
    )
    time.sleep(20)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    found = json.loads(out)
    assert out.count("\n") == 1
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 0 < found["steps"] < 23
    assert found["accepted"] + found["unverified"] <= found["steps"] <= found["attempts"]
    assert set(found) == {"steps", "accepted", "unverified", "attempts", "governed", "always_bottom", "always_top"}
    assert all(set(found[arm]) == ARM for arm in ("governed", "always_bottom", "always_top"))
    assert found["always_top"]["accuracy"] is None, "an arm that did not run has no accuracy"


@pytest.mark.qwen
def test_on_two_sizes_it_costs_less_than_always_top() -> None:
    present = {model.name for model in list_models() if model.state == "present"}
    if not {"qwen-0.5b", "qwen-1.5b"} <= present:
        pytest.skip("the two Qwen sizes are not in GOVERNOR_MODELS")
    done = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, timeout=900, check=True)
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert found["steps"] == 23
    assert found["attempts"] > found["steps"], "nothing was rejected: the demo would show no backtracking"
    assert found["governed"]["accuracy"] > found["always_bottom"]["accuracy"]
    assert found["governed"]["cost"] < found["always_top"]["cost"]
