from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from governor_litellm.backend import sdk
from tests.governor_litellm.proxy_app import ProxyUnderTest, proxy_under_test
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


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def proxy_of_session(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ProxyUnderTest, None]:
    """One proxy for all tests: it takes seconds to start, and is one to a process."""
    pytest.importorskip("litellm_enterprise", reason="the proxy needs the extra 'proxy'")
    async with proxy_under_test(tmp_path_factory.mktemp("proxy")) as served:
        yield served


@pytest.fixture(scope="module")
def cleared() -> Iterator[None]:
    """LiteLLM leaves connections open for the collector, which must not meet them in a test that is strict."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(proxy_of_session: ProxyUnderTest, cleared: None) -> AsyncGenerator[ProxyUnderTest, None]:
    """It again, with nothing seen so far; no test may leave a flight open, or find that LiteLLM skips a hook."""
    proxy_of_session.upstream.reset()
    yield proxy_of_session
    await proxy_of_session.idle()
    assert not proxy_of_session.governor.watch.missed
    proxy_of_session.default("default")


THEIRS = (
    "ignore:Item .* on TypedDict class:UserWarning",
    "ignore:Accessing the 'model_(computed_)?fields':DeprecationWarning",
)
"""Warnings of LiteLLM's own lazily imported modules."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            if "proxy" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(300))  # the first of them starts it
            for theirs in ("ignore",) if "proxy" in getattr(item, "fixturenames", ()) else THEIRS:
                item.add_marker(pytest.mark.filterwarnings(theirs))  # the whole proxy warns: 400,000 lines of others
