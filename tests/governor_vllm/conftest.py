from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.governor_vllm.dialect import DialectServer


@pytest.fixture
def server() -> Iterator[DialectServer]:
    with DialectServer() as running:
        yield running
