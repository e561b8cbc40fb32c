"""The peer: `hardcap`, a gateway in front of models, in the setting that its README names as its default and best.

Reserves the rolling p95 of output lengths, extends by 64 tokens, truncates. Its own mock of a model, one token a piece,
counts what it wrote. As in its own benchmark, each gateway has served a hundred streams of an unlimited tenant before,
ten at a time.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import aiohttp

from benchmarks.ledger_contenders import MAX_TOKENS, STEP, TICK, Model, Served
from tests.ports import free_port
from tests.redis_servers import RedisServer

WARM_TENANT = "warm"
WARM_AT_ONCE = 10  # all at once would show it the short ones first
WINDOW_SECONDS = 10_000_000
TOKEN = "tok "  # what its counter takes for one token
START_SECONDS = 30.0


def installed() -> bool:
    """Whether it is there."""
    return find_spec("hardcap") is not None


class Hardcap:
    """The client of one gateway."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)
        )

    async def warm(self, lengths: Sequence[int]) -> None:
        free = asyncio.Semaphore(WARM_AT_ONCE)

        async def one(length: int) -> None:
            async with free:
                await self.serve(WARM_TENANT, length)

        await asyncio.gather(*(one(length) for length in lengths))

    async def serve(self, tenant: str, length: int) -> Served:
        headers = {"authorization": f"Bearer {tenant}"}
        async with self._session.post(self._url, json=_body(length), headers=headers) as reply:
            if reply.status == 429:
                return Served(refused=(await reply.json())["error"]["type"])
            reply.raise_for_status()
            tokens = 0
            async for line in reply.content:
                if line.startswith(b"data: {"):
                    tokens += sum(_tokens(choice) for choice in json.loads(line[6:]).get("choices", ()))
            return Served(tokens)

    async def close(self) -> None:
        await self._session.close()


def _body(length: int) -> dict[str, Any]:
    return {
        "model": "m",
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "Go on."}],
        "mock": {"output_tokens": length},
    }


def _tokens(choice: dict[str, Any]) -> int:
    return int(choice.get("delta", {}).get("content", "").count(TOKEN))


def _config(redis: RedisServer, model: int, tenants: Sequence[str], output: int) -> dict[str, Any]:
    budget = {"window_s": WINDOW_SECONDS, "output": output}
    return {
        "redis_url": redis.uri,
        "redis_max_connections": 512,
        "budget": {"accounting": "reserve", "estimator": "p95", "on_overrun": "truncate", "extend_chunk": STEP},
        "upstreams": {"mock": {"base_url": f"http://127.0.0.1:{model}", "read_timeout_s": 120}},
        "routes": {"m": {"targets": [{"upstream": "mock", "model": "mock-1"}]}},
        "tenants": {
            WARM_TENANT: {"api_keys": [WARM_TENANT]},
            **{tenant: {"api_keys": [tenant], "budget": budget} for tenant in tenants},
        },
    }


@contextmanager
def _process(port: int, log: Path, *arguments: str) -> Generator[None, None, None]:
    with log.open("wb") as lines:
        command = [sys.executable, "-m", "hardcap", *arguments, "--port", str(port), "--host", "127.0.0.1"]
        process = subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT)
    try:
        _wait_for(port, log)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            _asked(port, "healthz")
        except (URLError, OSError):
            if time.monotonic() > end:
                raise RuntimeError(f"hardcap did not start: {log.read_text()[-500:]}") from None
            time.sleep(0.05)
        else:
            return


def _asked(port: int, path: str, key: str = "") -> Any:
    request = Request(f"http://127.0.0.1:{port}/{path}", headers={"authorization": f"Bearer {key}"})
    with urlopen(request, timeout=10) as reply:
        return json.loads(reply.read())


@dataclass(frozen=True, slots=True)
class Gateways:
    """Those that run, by port, and the model behind them."""

    model: int
    ports: tuple[int, ...]

    def client(self, _model: Model, replica: int) -> Hardcap:
        """Of one replica."""
        return Hardcap(self.ports[replica])

    def booked(self, tenant: str) -> int:
        """Output tokens in its books."""
        return int(_asked(self.ports[0], "v1/hardcap/usage", tenant)["used"]["output"])

    def made(self, tenant: str) -> int:
        """Output tokens that its model wrote."""
        return int(_asked(self.model, "admin/stats")["tenants"].get(tenant, {}).get("completion_tokens", 0))


@contextmanager
def gateways(size: int, tenants: Sequence[str], budget: int) -> Generator[Gateways, None, None]:
    """So many replicas of it before one model, over a Redis of their own."""
    with TemporaryDirectory(prefix="governor-hardcap-") as name, ExitStack() as running:
        folder = Path(name)
        redis = RedisServer(folder)
        redis.start()
        running.callback(redis.kill)
        model, ports = free_port(), tuple(free_port() for _ in range(size))
        settings = folder / "config.yaml"
        settings.write_text(json.dumps(_config(redis, model, tenants, budget)))  # JSON is YAML
        pace = ("--ttft-ms", "0", "--tpot-ms", str(1000 * TICK), "--chunk-tokens", "1")
        running.enter_context(_process(model, folder / "model.log", "mock", *pace))
        for port in ports:
            running.enter_context(_process(port, folder / f"{port}.log", "serve", "-c", str(settings)))
        yield Gateways(model, ports)
