"""A model server that always answers the same at once, whole or streamed; it prints its port.

It speaks just enough HTTP/1.1 to be no part of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping

WORDS = "It is 42, as far as anybody knows. " * 8
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 80, "total_tokens": 480},
    }
).encode()
_CHUNK: Mapping[str, object] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small"}


def _event(**more: object) -> bytes:
    return f"data: {json.dumps({**_CHUNK, **more})}\n\n".encode()


def _piece(delta: Mapping[str, str], finish: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


EVENTS = b"".join(
    [
        *(_piece({"content": f"{word} "}) for word in WORDS.split()),
        _piece({}, "stop"),
        _event(choices=[], usage={"prompt_tokens": 400, "completion_tokens": 80, "total_tokens": 480}),
        b"data: [DONE]\n\n",
    ]
)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)
_STREAMED = re.compile(rb'"stream": ?true')
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Answers every request that has become whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.rest = transport, b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := request_end(self.rest)) is not None:
            streamed = _STREAMED.search(self.rest, 0, end)
            self.rest = self.rest[end:]
            self.transport.write(STREAM if streamed else ANSWER)


def request_end(data: bytes) -> int | None:
    """Where the first request of `data` ends; None while it is not whole."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    length = _LENGTH.search(data, 0, head)
    end = head + 4 + (int(length[1]) if length else 0)
    return end if len(data) >= end else None


async def serve() -> None:
    """Serves until killed, and says at which port."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
