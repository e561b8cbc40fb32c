"""A scripted server for everyday tests. Tests of what runs inside the engine need vLLM; the others don't."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.governor_vllm.dialect import DialectServer

collect_ignore = [] if find_spec("vllm") and find_spec("torch") else ["test_vllm_lists.py", "test_vllm_device.py"]


@pytest.fixture
def server() -> Iterator[DialectServer]:
    with DialectServer() as running:
        yield running
