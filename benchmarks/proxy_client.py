"""The client of benchmarks.proxy: kept-alive HTTP/1.1 over bare sockets, so that it takes little of the processor."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat

from benchmarks.proxy_servers import KEY

MESSAGES = [
    {"role": "system", "content": "You answer questions about the works of an English author. " * 12},
    {"role": "user", "content": "Who asks the question, and who is to give the answer? " * 6},
    {"role": "assistant", "content": "A race of beings asks, and a computer is to answer. " * 6},
    {"role": "user", "content": "What is the answer, and what was the question? " * 6},
]


class RefusedError(Exception):
    """A proxy answered with anything but a 200."""


class Connection:
    """One kept-alive connection to a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Open one."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self) -> float:
        """Seconds from the request's first byte to the answer's last. Raises RefusedError."""
        began = time.perf_counter()
        self._writer.write(REQUEST)
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(length_of(head))
        took = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RefusedError(body.decode(errors="replace")[:500])
        return took

    async def first(self) -> float:
        """Seconds from a streamed request's first byte to its first event. Raises RefusedError."""
        began = time.perf_counter()
        self._writer.write(STREAMED)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RefusedError(head.decode(errors="replace"))
        await self._reader.readuntil(b"\n\n")
        took = time.perf_counter() - began
        rest = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        if b"data: [DONE]" not in rest:
            raise RefusedError(rest.decode(errors="replace")[:500])
        return took

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def length_of(head: bytes) -> int:
    """The body's length, which every proxy states."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RefusedError(f"no content-length in {head!r}")


def _request(**more: object) -> bytes:
    body = json.dumps({"model": "small", "messages": MESSAGES, "max_tokens": 800, **more}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


REQUEST = _request()
STREAMED = _request(stream=True, stream_options={"include_usage": True})
STINT = 20
"""Requests in a row to one proxy."""

Ask = Callable[[Connection], Awaitable[float]]


async def taking_turns(
    ports: Sequence[int], requests: int, ask: Ask = Connection.ask, stint: int = STINT
) -> list[list[float]]:
    """Seconds of so many requests to each proxy, one at a time: a stint at each in turn, another one first each round.

    A stint's first request finds the processor's caches full of the other proxies, as no proxy at work does.
    """
    seconds: list[list[float]] = [[] for _ in ports]
    for number, begun in enumerate(range(0, requests, stint)):
        for offset in range(len(ports)):
            at = (number + offset) % len(ports)
            connection = await Connection.to(ports[at])  # one that waited for the others' stints may be closed by now
            seconds[at] += [await ask(connection) for _ in range(min(stint, requests - begun))]
            connection.close()
    return seconds


async def at_once(port: int, requests: int, concurrency: int) -> float:
    """Requests a second of one proxy with so many on their way."""
    connections = [await Connection.to(port) for _ in range(concurrency)]
    todo = repeat(None, requests)

    async def work(connection: Connection) -> None:
        for _ in todo:
            await connection.ask()

    began = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return requests / took
