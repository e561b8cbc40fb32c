"""Ports of this machine for servers of tests."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refused_port() -> Generator[int, None, None]:
    """One that refuses connections: bound, so that no other process takes it meanwhile, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
