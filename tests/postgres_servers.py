"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port, gone with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ports import free_port

if TYPE_CHECKING:
    import psycopg


def server_folder() -> Path | None:
    """Where the server's programs are; None where there are none."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "postgres").exists()), None)


class PostgresServer:
    """Started when made; `stop` it in the end. It does not run as root, and does not wait for the disk."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._names = count()
        self.folder = Path(tempfile.mkdtemp(prefix="governor-postgres-"))
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self.port = free_port()
        made = self._run("initdb", "-D", self._data, "-U", "governor", "-A", "trust", "-E", "UTF8", "--no-sync", "-N")
        if made.wait():
            raise RuntimeError(f"initdb failed: {(self.folder / 'log').read_text()[-500:]}")
        self.start()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.poll() is None

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def new_schema(self) -> str:
        """A name that no ledger here has had."""
        return f"ledger_{next(self._names)}"

    def uri(self, schema: str, *, port: int | None = None, **options: object) -> str:
        """A ledger in a schema of its own, on this server or behind another port."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://governor@127.0.0.1:{port or self.port}/postgres?schema={schema}{more}"

    def connect(self, schema: str) -> psycopg.Connection[tuple[object, ...]]:
        """A connection beside the ledger's, to look at its tables."""
        import psycopg  # here, so that a test can say that it is absent

        there = f"postgresql://governor@127.0.0.1:{self.port}/postgres"
        return psycopg.connect(there, autocommit=True, options=f"-c search_path={schema}")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        import psycopg

        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "port": self.port}
        command = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = self._run("postgres", "-D", self._data, *command, "-c", "shared_buffers=16MB")
        end = time.monotonic() + 30
        while True:
            try:
                self.connect("public").close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Ends it as the death of its machine would, but for what the disk has: no process gets to say anything."""
        self._process.send_signal(signal.SIGSTOP)  # it starts nobody who would be missed in the list
        _awaited(lambda: _state(self._process.pid) == "T")
        processes = [int(line) for line in _children(self._process.pid)]
        for one in (self._process.pid, *processes):
            os.kill(one, signal.SIGKILL)
        self._process.wait()
        _gone(processes)

    def stop(self) -> None:
        """Ends it, and takes its folder away."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _gone(processes: list[int]) -> None:
    """Waits until they left, and with them their hold on the server's memory."""
    _awaited(lambda: all(_state(one) in ("", "Z") for one in processes))


def _awaited(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)


def _state(process: int) -> str:
    """The letter of /proc, such as Z for one that is dead but still listed; empty for one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""
