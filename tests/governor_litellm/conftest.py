from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governor_litellm.backend import sdk
from tests.governor_litellm.stub import StubServer


@pytest.fixture(scope="session", autouse=True)
def _loop() -> Iterator[None]:
    """A loop for LiteLLM's service logger, which would otherwise make one for the thread and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture(scope="session", autouse=True)
def litellm() -> Any:
    """LiteLLM, imported once: it takes seconds, and its own imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sdk()


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


THEIRS = (
    "ignore:Item .* on TypedDict class:UserWarning",
    "ignore:Accessing the 'model_(computed_)?fields':DeprecationWarning",
)
"""Warnings of LiteLLM's own lazily imported modules."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            for theirs in THEIRS:
                item.add_marker(pytest.mark.filterwarnings(theirs))
