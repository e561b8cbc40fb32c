"""The servers of one run of benchmarks.proxy: one upstream, and the proxies in front of it, each a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.ports import free_port

KEY = "sk-" + "ab12" * 12
CONFIG = """\
model_list:
  - {{model_name: small, litellm_params: {{model: openai/small, api_base: "http://127.0.0.1:{port}/v1", api_key: k}}}}
  - {{model_name: large, litellm_params: {{model: openai/large, api_base: "http://127.0.0.1:{port}/v1", api_key: k}}}}
litellm_settings: {{num_retries: 0}}
router_settings: {{num_retries: 0}}
"""
POLICY = """\
version: 1
app: default
ledger: {ledger}
ladder:
  - {{id: small, model: small, answer_tokens: 500, price: {{input: 0.1, output: 0.4}}}}
  - {{id: large, model: large, answer_tokens: 1000, price: {{input: 1, output: 4}}}}
budget: {{app: {{per: month, usd: 10000}}, tenant: {{per: day, usd: 1000}}}}
{verify}"""
VERIFY = "verify: {regex: '42'}\n"
BARE, MEMORY, SQLITE, VERIFIED = "bare", "memory", "SQLite", "SQLite, verified"
PROXIES = (BARE, MEMORY, SQLITE, VERIFIED)
START_SECONDS = 180.0
QUIET = ("-W", "ignore")
"""LiteLLM warns at every request; all proxies of a run are started alike."""
_UPSTREAM = "import asyncio; from benchmarks.proxy_upstream import serve; asyncio.run(serve())"


@contextmanager
def proxies(folder: Path) -> Generator[Mapping[str, int], None, None]:
    """Ports of the proxies by name, all of them warm in memory and idle."""
    with ExitStack() as servers:
        upstream = servers.enter_context(process([sys.executable, "-c", _UPSTREAM], {}, None))
        assert upstream.stdout is not None
        config = folder / "litellm.yaml"
        config.write_text(CONFIG.format(port=int(upstream.stdout.readline())))
        ports: dict[str, int] = {}
        for name in PROXIES:
            ports[name] = free_port()
            command, environ = _proxy(name, ports[name], config, folder)
            servers.enter_context(process(command, environ, folder / f"{name}.log"))
        for name, port in ports.items():
            await_proxy(port, folder / f"{name}.log")
        yield ports


def _proxy(name: str, port: int, config: Path, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """Command and environment."""
    environ = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    if name == BARE:
        return bare_command(port), environ | {"CONFIG_FILE_PATH": str(config)}
    policies = folder / name
    policies.mkdir()
    ledger = "memory://" if name == MEMORY else f"sqlite:///{folder / name}.db"
    text = POLICY.format(ledger=f"'{ledger}'", verify=VERIFY if name == VERIFIED else "")
    (policies / "default.yaml").write_text(text)
    own = [sys.executable, *QUIET, "-m", "governor", "proxy", "--policies", str(policies), "--config", str(config)]
    return [*own, "--port", str(port)], environ


def bare_command(port: int) -> list[str]:
    """What `governor proxy` starts, without the hook."""
    at = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [sys.executable, *QUIET, "-m", "uvicorn", "litellm.proxy.proxy_server:app", *at]


@contextmanager
def process(
    command: list[str], environ: Mapping[str, str], log: Path | None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """A process until the end of the block; its output goes to `log`, else to a pipe."""
    with ExitStack() as closing:
        out = subprocess.PIPE if log is None else closing.enter_context(log.open("wb"))
        errors = None if log is None else subprocess.STDOUT
        with subprocess.Popen(command, env=os.environ | environ, stdout=out, stderr=errors) as process:
            try:
                yield process
            finally:
                process.kill()


def await_proxy(port: int, log: Path) -> None:
    """Wait until a proxy answers. Raises RuntimeError with its log where it does not."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"a proxy did not start:\n{log.read_text(errors='replace')[-2000:]}")
