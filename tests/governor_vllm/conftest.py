from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from governor_vllm.backend import VllmBackend
from tests.governor_vllm.dialect import DialectServer
from tests.governor_vllm.engine_calls import MODEL, tell
from tests.governor_vllm.engine_models import LONG
from tests.governor_vllm.engines import PARSED, Engine, served


@pytest.fixture
def server() -> Iterator[DialectServer]:
    with DialectServer() as running:
        yield running


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GOVERNOR_ENGINE_MODELS names a folder where they were made before."""
    if kept := os.environ.get("GOVERNOR_ENGINE_MODELS"):
        return Path(kept)
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "tests.governor_vllm.engine_models", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    tell(f"\nengine model: {made.stdout.strip()}")
    return folder


@pytest.fixture(scope="session")
def engine(models: Path) -> Iterator[Engine]:
    """One-token marks, a reasoning parser, and a template that says ten tokens behind its `<think>`."""
    with served(models, "thinking", LONG, PARSED) as running:
        yield running


@pytest.fixture(scope="session")
def backend(engine: Engine) -> Iterator[VllmBackend]:
    with closing(VllmBackend({MODEL: {"api_base": engine.url, "engine": {"priority": 1}}})) as made:
        yield made
