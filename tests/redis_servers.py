"""A Redis server of one's own for tests: a free port, a fresh folder, gone at the end."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.ports import free_port


@dataclass
class RedisServer:
    """Started with these lines of configuration; may be killed and started again in the same folder."""

    folder: Path
    options: tuple[str, ...] = ("--appendonly", "no", "--save", "")
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Redis:
        return Redis(port=self.port)

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "needs redis-server"
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        log = ["--logfile", str(self.folder / "redis.log")]
        self.process = subprocess.Popen([program, *place, *log, *self.options])
        end = time.monotonic() + 10
        while True:
            try:
                with self.client as client:
                    client.ping()
            except RedisError:
                assert time.monotonic() < end, (self.folder / "redis.log").read_text()
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """SIGTERM: it writes down what it holds."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
