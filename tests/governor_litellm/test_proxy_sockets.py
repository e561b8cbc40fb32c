"""Responses over a WebSocket, on which a client asks what it likes, as often as it likes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.governor_litellm.proxy_app import ProxyUnderTest

pytestmark = pytest.mark.asyncio(loop_scope="session")
COUNTED = "budget: {app: {per: total, calls: 50}}\n"
ASKED = {"type": "response.create", "response": {"model": "small", "input": "What is it?"}}


async def opened(path: str, query: str = "", **headers: str) -> list[MutableMapping[str, Any]]:
    """All that the proxy does on a socket on which one response is asked for."""
    from litellm.proxy.proxy_server import app

    known = {"authorization": "Bearer sk-none", "host": "proxy", **headers}
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in known.items()],
        "subprotocols": [],
        "server": ("proxy", 80),
        "client": ("127.0.0.1", 1),
    }
    asking = [{"type": "websocket.receive", "text": json.dumps(ASKED)}, {"type": "websocket.connect"}]
    done: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return asking.pop() if asking else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: MutableMapping[str, Any]) -> None:
        done.append(message)

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return done


@pytest.fixture
def socket_route(proxy: ProxyUnderTest) -> str:
    from litellm.proxy.response_api_endpoints import endpoints

    if not hasattr(endpoints, "responses_websocket_endpoint"):
        pytest.skip("this LiteLLM has no such socket")
    return "/v1/responses"


@pytest.mark.parametrize("query", ["model=small", ""])
async def test_a_socket_goes_past_no_budget(
    proxy: ProxyUnderTest, socket_route: str, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.default(proxy.policy(COUNTED))
    with caplog.at_level(logging.WARNING, "governor"):
        done = await opened(socket_route, query)
    assert [one["type"] for one in done] == ["websocket.accept", "websocket.send", "websocket.close"]
    told = json.loads(done[1]["text"])["error"]
    assert told["type"] == "invalid_request_error"
    assert "nor over a WebSocket" in told["message"]
    assert done[2]["code"] == 1008
    assert proxy.upstream.seen == []
    assert not [one for one in caplog.records if one.name.startswith("governor")], "nothing of ours broke"


async def test_a_socket_of_another_application_is_refused(proxy: ProxyUnderTest, socket_route: str) -> None:
    proxy.default(proxy.policy(COUNTED))
    done = await opened(socket_route, "model=small", **{"x-governor-app": "foreign"})
    assert "may not use the application" in json.loads(done[1]["text"])["error"]["message"]


@pytest.mark.parametrize("policy", ["mode: shadow\n" + COUNTED, "budget: {step: {calls: 3}}\n"])
async def test_where_no_budget_outlives_it_a_socket_is_left_alone(proxy: ProxyUnderTest, policy: str) -> None:
    proxy.default(proxy.policy(policy))
    data = {"model": "small", "websocket": object(), "first_message": json.dumps(ASKED)}
    assert await proxy.governor.async_pre_call_hook(None, None, data, "_aresponses_websocket") is data
    assert data["model"] == "small"
    assert proxy.governor.desk.flights == {}
