"""The clients of benchmarks.proxy_load: three request formats, streamed or not, some of which go away too early."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CLIENT_SECONDS = 60.0
"""How long a client waits for the end of an answer: longer than any time limit of proxy and policy."""
ABORTED = 0.04
"""Share of clients that go away: half before the answer, half in the middle of it."""
STEPS_A_SESSION = 12
WIRES = ("chat", "responses", "messages")
APPS: Mapping[str, float] = {"checked": 0.5, "open": 0.4, "poor": 0.1}
"""Applications (see proxy_load_servers) by their share of requests; each has a key of its own."""
_PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
_ENDS = {"chat": b"data: [DONE]", "responses": b"response.completed", "messages": b"message_stop"}
_CODE = re.compile(rb'"code": ?"?(\d{3})\b')
_TYPE = re.compile(rb'"type": ?"(\w+)"')

Leaving = Literal["", "before", "amid"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `number` stands in its prompt and in its records."""

    number: str
    app: str
    wire: str
    stream: bool
    leaving: Leaving

    @property
    def raw(self) -> bytes:
        """As HTTP/1.1 of a connection that ends with the answer."""
        said = f"This is request {self.number}. What is it?"
        body: dict[str, Any] = {"model": "small", "stream": self.stream}
        if self.wire == "responses":
            body["input"] = said
        else:
            body |= {"messages": [{"role": "user", "content": said}], "max_tokens": 400}
        data = json.dumps(body).encode()
        head = (
            f"POST {_PATHS[self.wire]} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"connection: close\r\nauthorization: Bearer sk-{self.app}\r\nx-governor-run: {self.number}\r\n"
            f"x-governor-session: s{int(self.number[1:]) // STEPS_A_SESSION}\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw. `status` is 0 where no answer came; an error in mid-stream counts with its code.

    `began` is in seconds since the epoch; `kind` is the error's type; `whole`: the answer came to its proper end.
    """

    ask: Ask
    proxy: str
    began: float
    seconds: float
    status: int = 0
    kind: str = ""
    whole: bool = False
    said: str = ""

    @property
    def left(self) -> bool:
        """Whether the client went away."""
        return bool(self.ask.leaving)


def asks(letter: str, seed: int, *, aborts: bool) -> Iterator[Ask]:
    """Requests without end, the same for the same seed."""
    draw = random.Random(f"{seed}/{letter}")
    number = 0
    while True:
        number += 1
        (app,) = draw.choices([*APPS], [*APPS.values()])
        wire, stream = draw.choice(WIRES), draw.random() < 0.5
        leaves = aborts and draw.random() < ABORTED
        leaving: Leaving = "" if not leaves else "amid" if stream and draw.random() < 0.6 else "before"
        yield Ask(f"{letter}{number}", app, wire, stream, leaving)


async def asked(ask: Ask, proxy: str, port: int) -> Answer:
    """One request to one proxy, to its end or until the client leaves."""
    began, clock = time.time(), time.monotonic()
    status, body, said = 0, b"", ""
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            status, body = await _exchanged(ask, port)
    except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        said = f"{type(error).__name__}: {error}"
    told = _told(ask, status, body)
    seconds = time.monotonic() - clock
    return Answer(ask, proxy, began, seconds, *told, said or (body[-300:].decode(errors="replace")))


async def _exchanged(ask: Ask, port: int) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(ask.raw)
        if ask.leaving == "before":
            await asyncio.sleep(random.Random(ask.number).uniform(0.0, 0.15))
            return 0, b""
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if ask.leaving == "amid":
            return status, await reader.read(200)
        return status, await reader.read()
    finally:
        writer.close()


def _told(ask: Ask, status: int, body: bytes) -> tuple[int, str, bool]:
    """Status, the error's type, and whether the answer is whole."""
    if ask.leaving or not status:
        return status, "", False
    if status == 200 and ask.stream and b'"error"' in body and (code := _CODE.search(body, body.rfind(b'"error"'))):
        status = int(code[1])
    if status != 200:
        kinds = _TYPE.findall(body)
        return status, kinds[-1].decode() if kinds else "", False
    return status, "", _ENDS[ask.wire] in body if ask.stream else b"is it" in body


async def closed_loop(ports: Mapping[str, int], seconds: float, at_once: int, seed: int) -> list[Answer]:
    """So many clients, each of which asks again as soon as it is answered."""
    todo = asks("c", seed, aborts=False)
    ends = time.monotonic() + seconds
    answers: list[Answer] = []
    names = [*ports]

    async def work(place: int) -> None:
        while time.monotonic() < ends:
            place += 1
            name = names[place % len(names)]
            answers.append(await asked(next(todo), name, ports[name]))

    await asyncio.gather(*map(work, range(at_once)))
    return answers


async def open_loop(ports: Mapping[str, int], seconds: float, rate: float, seed: int) -> list[Answer]:
    """Poisson arrivals at `rate` a second, each at a proxy by lot, whatever became of those before."""
    todo = asks("r", seed, aborts=True)
    draw = random.Random(seed)
    tasks: list[asyncio.Task[Answer]] = []
    names: Sequence[str] = [*ports]
    due = began = time.monotonic()
    while due - began < seconds:
        due += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        name = draw.choice(names)
        tasks.append(asyncio.create_task(asked(next(todo), name, ports[name])))
    return list(await asyncio.gather(*tasks))
