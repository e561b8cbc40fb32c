"""The model server of benchmarks.proxy_load; it prints its port.

What it answers depends on the request alone, and so does how it fails: a seeded draw for each request's number, model
and try. Requests whose number begins with another letter than FAULTY are spared. `GET /tally` tells what it served.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, TypeAlias, get_args

from tests.governor_litellm.upstream import pieces, usage, whole

FAULTY = "r"
NUMBER = re.compile(rb"request ([a-z]\d+)")
ANSWER_SECONDS = 0.03
"""Before an answer, whole or its first piece."""
PIECE_SECONDS = 0.01
HANG_SECONDS = 12.0
"""Longer than the time limit of a call (see proxy_load_servers)."""
PIECES_BEFORE_CUT = 3

Fault: TypeAlias = Literal["429", "500", "hang", "cut"]
SHARES: Mapping[Fault, float] = {"429": 0.01, "500": 0.01, "hang": 0.004, "cut": 0.015}
"""Of calls; a cut is only one where the call is streamed."""
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Served:
    """What one request number came to: tokens that a provider would bill, calls, and faults."""

    tokens: int = 0
    calls: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Upstream:
    """Mutable, lives in one event loop."""

    seed: int
    served: defaultdict[str, Served] = field(default_factory=lambda: defaultdict(Served))
    _tries: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which is kept as long as nothing goes wrong on it."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                raw = await reader.readexactly(int(length[1]) if length else 0)
                if not await self._answer(head, raw, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the proxy hung up
        finally:
            writer.close()

    async def _answer(self, head: bytes, raw: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be kept."""
        path = head.split(b" ", 2)[1].decode()
        if path == "/tally":
            told = {number: [one.tokens, one.calls, one.faults] for number, one in self.served.items()}
            return await _send(writer, told)
        if not raw:  # LiteLLM asks which models there are
            return await _send(writer, {}, HTTPStatus.NOT_FOUND)
        found = NUMBER.search(raw)
        number = found[1].decode() if found else ""
        body: dict[str, Any] = json.loads(raw)
        served = self.served[number]
        served.calls += 1
        fault = self._fault(number, body)
        if fault is not None:
            served.faults.append(fault)
        if fault in ("429", "500"):
            return await _send(writer, {"error": {"message": "no", "type": "t", "code": fault}}, int(fault))
        given, made, _ = usage(body)
        if fault == "hang":
            served.tokens += given + made  # it may have worked all the while
            await asyncio.sleep(HANG_SECONDS)
            return False
        await asyncio.sleep(ANSWER_SECONDS)
        if body.get("stream"):
            return await self._stream(writer, path, body, served, cut=fault == "cut")
        served.tokens += given + made
        return await _send(writer, whole(path, body))

    async def _stream(
        self, writer: asyncio.StreamWriter, path: str, body: Mapping[str, Any], served: Served, *, cut: bool
    ) -> bool:
        given, made, _ = usage(body)
        writer.write(_HEAD % b"text/event-stream\r\ntransfer-encoding: chunked")
        served.tokens += given
        unsaid = made
        for number, piece in enumerate(pieces(path, body)):
            if cut and number == PIECES_BEFORE_CUT:
                return False
            served.tokens += min(1, unsaid)
            unsaid = max(0, unsaid - 1)
            data = piece.encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(PIECE_SECONDS)
        served.tokens += unsaid
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _fault(self, number: str, body: Mapping[str, Any]) -> Fault | None:
        model = str(body.get("model"))
        self._tries[number, model] += 1
        if not number.startswith(FAULTY):
            return None
        draw = random.Random(f"{self.seed}/{number}/{model}/{self._tries[number, model]}").random()
        for fault in get_args(Fault):
            draw -= SHARES[fault]
            if draw < 0:
                return fault if fault != "cut" or body.get("stream") else None
        return None


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n\r\n"


async def _send(writer: asyncio.StreamWriter, value: Mapping[str, Any], status: int = HTTPStatus.OK) -> bool:
    raw = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n%s" % (len(raw), raw))
    await writer.drain()
    return True


async def serve(seed: int) -> None:
    """Serves until killed, and says at which port."""
    server = await asyncio.start_server(Upstream(seed).serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
