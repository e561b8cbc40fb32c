"""`governor proxy` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would set the proxy up."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM", "GOVERNOR"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    return {**kept, "PYTHONPATH": path, "LITELLM_LOG": "ERROR", **more}


def command(folder: Path, *more: str) -> list[str]:
    """`folder` holds litellm.yaml and the folder `policies`."""
    base = [sys.executable, "-m", "governor", "proxy"]
    return [*base, "--policies", str(folder / "policies"), "--config", str(folder / "litellm.yaml"), *more]


@contextmanager
def proxy_process(folder: Path, log: Path, **environ: str) -> Generator[str, None, None]:
    """The URL of a proxy that is starting; see `ready`. What it says goes to `log`."""
    port = free_port()
    with log.open("wb") as said:
        process = subprocess.Popen(
            command(folder, "--port", str(port)), env=environment(**environ), stdout=said, stderr=said
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def ready(url: str, log: Path) -> None:
    """Wait until it answers; AssertionError with what it said if it does not."""
    ends = time.monotonic() + 90
    while time.monotonic() < ends:
        try:
            if httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())
