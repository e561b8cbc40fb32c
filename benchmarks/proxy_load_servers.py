"""The processes of benchmarks.proxy_load: upstream, Redis, two governed proxies and a bare one; what befalls them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proxy_servers import await_proxy, bare_command, process
from tests.governor_litellm.proxy_app import AUTH
from tests.governor_litellm.proxy_process import environment
from tests.ports import free_port
from tests.redis_servers import RedisServer

MASTER = "sk-" + "ab12" * 12
BARE = "bare"
GOVERNED = ("governed 1", "governed 2")
TTL = 900.0
"""Seconds after which a ledger's reservation that was left open counts at its bound: what `open_ledger` has."""
INVALID_EVERY = 7
"""Rewritings of the policies of which one leaves an invalid file for a second."""
DOWN_SECONDS = 1.5
LAST_WORDS = 8000
"""Characters of a dead proxy's log that are told."""
PERSISTENT = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
_UPSTREAM = "import asyncio; from benchmarks.proxy_load_upstream import serve; asyncio.run(serve({seed}))"
CONFIG = """\
model_list:
  - {{model_name: small, litellm_params: {{model: openai/small, api_base: "http://127.0.0.1:{port}/v1", api_key: k}}}}
  - {{model_name: large, litellm_params: {{model: openai/large, api_base: "http://127.0.0.1:{port}/v1", api_key: k}}}}
litellm_settings: {{num_retries: 0, request_timeout: 20}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{custom_auth: keys_of_tests.check}}
"""
POLICY = """\
version: 1
app: {app}
ledger: {ledger}
fail: closed
deadline: {deadline}
ladder:
  - {{id: small, model: small, answer_tokens: 100, timeout: 8, price: {{input: 1, output: 2}}}}
  - {{id: large, model: large, answer_tokens: 200, timeout: 8, price: {{input: 5, output: 10}}}}
{more}"""
MORE: Mapping[str, str] = {
    "checked": """\
verify: {regex: '42'}
stream: buffer
budget: {session: {usd: 0.006}, tenant: {per: day, usd: 1000}, app: {per: month, usd: 10000}}
""",
    "open": "budget: {session: {usd: 0.006}, tenant: {per: day, usd: 1000}, app: {per: month, usd: 10000}}\n",
    "poor": "verify: {regex: '42'}\nstream: buffer\nbudget: {app: {per: minute, usd: 0.03}}\n",
}
"""`checked` climbs from the small model, which is wrong, to the large one; `open` passes streams; `poor` runs out."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Everything that runs. `ports` and `proxies` are of the proxies by name."""

    folder: Path
    ports: Mapping[str, int]
    proxies: Mapping[str, subprocess.Popen[bytes]]
    upstream: int
    redis: RedisServer

    def records(self) -> list[Path]:
        return sorted(self.folder.glob("records of */*.jsonl"))

    def logs(self) -> dict[str, str]:
        return {name: (self.folder / f"{name}.log").read_text(errors="replace") for name in GOVERNED}

    def last_words(self, name: str) -> str:
        """The end of a proxy's log. Where a signal ended it, Python's own account of that stands there."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-LAST_WORDS:]

    def memory(self) -> dict[str, float]:
        """Resident MiB of the proxies."""
        return {name: _resident(proxy.pid) for name, proxy in self.proxies.items()}

    def died(self) -> dict[str, int]:
        """Exit statuses of the proxies that run no more; -11 is a segmentation fault."""
        return {name: code for name, proxy in self.proxies.items() if (code := proxy.poll()) is not None}


@dataclass(slots=True)
class Policies:
    """The folder's files, rewritten again and again."""

    folder: Path
    ledger: str
    written: int = 0
    invalid: int = 0

    def write(self) -> None:
        """Each file by another one's renaming: a deadline that differs, or now and then what can't be used."""
        self.written += 1
        broken = self.written % INVALID_EVERY == 0
        self.invalid += broken
        for app, more in MORE.items():
            deadline = 30 + self.written / 1000
            text = POLICY.format(app=app, ledger=f"'{self.ledger}'", deadline=deadline, more=more)
            fresh = self.folder / f"{app}.new"
            fresh.write_text("ladder: [" if broken and app == "checked" else text)
            fresh.rename(self.folder / f"{app}.yaml")


@contextmanager
def servers(folder: Path, seed: int) -> Generator[tuple[Servers, Policies], None, None]:
    """All of them, ready; they end with the block."""
    with ExitStack() as running:
        redis = RedisServer(folder, PERSISTENT)
        redis.start()
        running.callback(redis.kill)
        command = [sys.executable, "-c", _UPSTREAM.format(seed=seed)]
        upstream = running.enter_context(process(command, environment(), None))
        assert upstream.stdout is not None
        port = int(upstream.stdout.readline())
        policies = Policies(folder / "policies", f"{redis.uri}?timeout=1")
        _lay_out(folder, port, policies)
        ports, started = dict[str, int](), dict[str, subprocess.Popen[bytes]]()
        for name in (*GOVERNED, BARE):
            ports[name] = free_port()
            started[name] = running.enter_context(_proxy(name, ports[name], folder))
        for name, port_of in ports.items():
            await_proxy(port_of, folder / f"{name}.log")
        yield Servers(folder, ports, started, port, redis), policies


def _lay_out(folder: Path, port: int, policies: Policies) -> None:
    policies.folder.mkdir()
    policies.write()
    (folder / "litellm.yaml").write_text(CONFIG.format(port=port))
    keys = {f"sk-{app}": {"metadata": {"app": app}} for app in MORE}
    (folder / "keys_of_tests.py").write_text(AUTH.format(master=MASTER, keys=keys))


@contextmanager
def _proxy(name: str, port: int, folder: Path) -> Generator[subprocess.Popen[bytes], None, None]:
    config = folder / "litellm.yaml"
    environ = environment(LITELLM_MASTER_KEY=MASTER, LITELLM_LOCAL_MODEL_COST_MAP="True", PYTHONFAULTHANDLER="1")
    if name == BARE:
        command: Sequence[str] = kept(bare_command(port))
        environ |= {"CONFIG_FILE_PATH": str(config)}
    else:
        at = ["--policies", str(folder / "policies"), "--config", str(config), "--port", str(port)]
        command = [sys.executable, "-m", "governor", "proxy", *at]
        environ |= {"GOVERNOR_RECORDS": str(folder / f"records of {name}"), "GOVERNOR_INTERVAL": "0.25"}
    with process([*command], environ, folder / f"{name}.log") as started:
        yield started


def kept(bare: Sequence[str]) -> list[str]:
    """The bare proxy, kept alive as governed ones are: it would die of the same fault of Python 3.11."""
    at = bare.index("-m")
    program = "from governor_litellm.garbage import keep_contexts; keep_contexts(); import uvicorn; uvicorn.main()"
    return [*bare[:at], "-c", program, *bare[at + 2 :]]


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def reload(policies: Policies) -> None:
    """A rewriting every second, without end."""
    while True:
        await asyncio.sleep(1.0)
        policies.write()


async def restart(redis: RedisServer, seconds: float, times: int) -> list[tuple[float, float]]:
    """So many outages, evenly over `seconds`, every third one by SIGKILL; when they were (seconds since the epoch)."""
    outages: list[tuple[float, float]] = []
    for number in range(times):
        await asyncio.sleep(max(0.0, seconds / (times + 1) - DOWN_SECONDS))
        began = time.time()
        await asyncio.to_thread(redis.kill if number % 3 == 1 else redis.stop)
        await asyncio.sleep(DOWN_SECONDS)
        await asyncio.to_thread(redis.start)
        outages.append((began, time.time()))
    return outages
