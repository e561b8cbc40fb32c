"""Tests of what runs inside the engine need vLLM; the others don't."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = (
    []
    if find_spec("vllm") and find_spec("torch")
    else ["test_vllm_lists.py", "test_vllm_device.py", "test_vllm_logits.py"]
)
