"""A policy on a real local model: SmolLM2-135M."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.fixture
def policy(smollm2: Path, tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path
