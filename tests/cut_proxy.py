"""A TCP proxy that can lose the server's answers, fall silent, or be gone."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Thread


class CutProxy:
    """Forwards to a port of this machine.

    `lose` answers are swallowed and their connection is cut: what was asked has happened, and nobody was told.
    While `silent`, nothing is forwarded either way.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.lose = 0
        self.lost = 0
        self.silent = False
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nobody is let in any more."""
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.silent:
                    continue
                if answers and self.lose:
                    self.lose -= 1
                    self.lost += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
