"""A client of the proxy app that sees when each piece of a stream reaches it: httpx's own transport waits for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from tests.governor_litellm.proxy_app import ProxyUnderTest


@dataclass(slots=True)
class Arrivals:
    """What came, and how many streams the upstream had finished when it came."""

    pieces: list[tuple[str, int]] = field(default_factory=list)
    status_code: int = 0

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    @property
    def early(self) -> str:
        """What came before the upstream had finished anything."""
        return "".join(text for text, finished in self.pieces if not finished)


async def streamed(
    proxy: ProxyUnderTest,
    path: str,
    body: Mapping[str, Any],
    leave: Callable[[str], bool] = lambda _: False,
    key: str = "sk-none",
) -> Arrivals:
    """Post a request and read its stream; the client goes away once `leave` says so of what it has seen."""
    from litellm.proxy.proxy_server import app

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "host": "proxy"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "server": ("proxy", 80),
        "client": ("127.0.0.1", 1),
    }
    sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    gone, came = asyncio.Event(), Arrivals()

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            came.status_code = message["status"]
        if message["type"] == "http.response.body" and message.get("body"):
            came.pieces.append((message["body"].decode(), proxy.upstream.finished))
            if leave(came.text):
                gone.set()

    await app(scope, receive, send)
    return came
