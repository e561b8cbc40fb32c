"""Real vLLM servers for the tests marked `engine`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest

from governor.errors import BackendError
from governor_vllm.link import Link
from tests.governor_vllm.engine_models import template
from tests.ports import free_port

READY_SECONDS = 300.0
SETTINGS: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{max(0, (os.cpu_count() or 1) - 1)}",
}
SMALL = ("--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", "16", "--enforce-eager")
JSON_ENDS = '{"backend": "xgrammar", "disable_any_whitespace": true}'  # else small models write blanks for ever
PARSED = (
    "--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    "--structured-outputs-config", JSON_ENDS,
)  # fmt: skip
CONFIG = '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}'
MARKED = ("--reasoning-config", CONFIG)


@dataclass
class Engine:
    """`governor serve` on a model (bare `vllm serve` where not `governed`), until the block is left."""

    model: Path
    log: Path
    options: Sequence[str] = ()
    governed: bool = True
    name: str = "q"
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside SETTINGS, and before them."""

    def __enter__(self) -> Engine:
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}/v1"
        program = [sys.executable, "-m", "governor"] if self.governed else [str(Path(sys.executable).parent / "vllm")]
        command = [*program, "serve", str(self.model), "--served-model-name", self.name]
        command += ["--host", "127.0.0.1", "--port", port, *SMALL, *self.options]
        with self.log.open("wb") as out:
            environment = {**os.environ, **SETTINGS, **self.environment}
            self._process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def pause(self) -> None:
        """Make all its processes stand still, until `resume`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def _wait(self) -> None:
        link, begun = Link(self.url), time.monotonic()
        while time.monotonic() - begun < READY_SECONDS:
            if self._process.poll() is not None:
                break
            try:
                link.get("/health", 2.0)
            except BackendError:
                time.sleep(1.0)
            else:
                link.close()
                return
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
        pytest.fail(f"vLLM did not start ({self._process.poll()}):\n{tail}")

    def _stop(self) -> None:
        """The server and its engine process, which outlives a server that is killed."""
        for how in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, how)
                self._process.wait(timeout=30)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


def served(
    models: Path,
    name: str,
    opening: str,
    options: tuple[str, ...],
    *,
    governed: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Engine:
    """A model of the folder `models` whose chat template begins each thought with `opening`."""
    path = models / f"{name}-{len(opening)}{'' if governed else '-bare'}.jinja"
    path.write_text(template(opening), encoding="utf-8")
    whole = ("--chat-template", str(path), *options)
    return Engine(models / name, path.with_suffix(".log"), whole, governed, environment=environment or {})
