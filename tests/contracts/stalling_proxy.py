"""A network between a client and a server that can fall silent: what goes in never comes out, and nobody is told."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class StallingProxy:
    """Passes connections to a port of its own on to another port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._passes = threading.Event()
        self._passes.set()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = int(self._sockets[0].getsockname()[1])
        threading.Thread(target=self._accept, args=(self._sockets[0],), daemon=True).start()

    def __enter__(self) -> StallingProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
            one.close()

    def stall(self) -> None:
        """From now on nothing comes out."""
        self._passes.clear()

    def mend(self) -> None:
        """Connections made from now on work; those of before stay silent."""
        self._passes = threading.Event()
        self._passes.set()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_pass, args=(*ends, self._passes), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, passes: threading.Event) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            if passes.is_set():
                target.sendall(chunk)
