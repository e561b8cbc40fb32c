"""Who writes next, where several processes of one machine share a file that one of them can write at a time.

SQLite's own waiting (sleeps that grow to 0.1 s) lets whoever does not sleep win again and again. Taking turns after
every operation would be fair and slow: each change of writer makes the next one read its pages anew. So a process that
had a long turn steps back for a while, and all others insist: of any `TURN` operations at most one waits long.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

NAP_SECONDS = 0.0001
"""Between two attempts to get the lock, which its holder keeps for some 0.05 ms at a time."""

TURN = 200
"""Operations after which a process that meets others steps back."""

TURN_SECONDS = 0.1
"""A process whose operations of a turn are spread over more than this leaves the others room anyway."""

BACK_SECONDS = 0.03
"""How long it steps back: about a turn of each of three others."""


class Turns:
    """The waiting of one process for the write lock, at most `timeout` seconds each time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._done = 0
        self._began = 0.0

    def take(self, attempt: Callable[[], None]) -> None:
        """Runs `attempt` until it gets the lock; its sqlite3.OperationalError if it does not in time."""
        self._done += 1
        try:
            attempt()
        except sqlite3.OperationalError as cause:
            if not busy(cause):
                raise
        else:
            return
        self._insist(attempt)

    def _insist(self, attempt: Callable[[], None]) -> None:
        began = time.monotonic()
        nap = self._step_back(began)
        while True:
            time.sleep(nap)
            try:
                attempt()
            except sqlite3.OperationalError as cause:
                if not busy(cause) or time.monotonic() - began >= self._timeout:
                    raise
                nap = NAP_SECONDS
            else:
                return

    def _step_back(self, now: float) -> float:
        """How long to sleep first."""
        long = self._done >= TURN
        quick = now - self._began <= TURN_SECONDS
        if long:
            self._done, self._began = 0, now
        return min(BACK_SECONDS, self._timeout) if long and quick else NAP_SECONDS


def busy(cause: sqlite3.Error) -> bool:
    """Whether another connection has the lock."""
    return name_of(cause).startswith("SQLITE_BUSY")


def name_of(cause: sqlite3.Error) -> str:
    """SQLite's name of the error; empty where Python made it."""
    return getattr(cause, "sqlite_errorname", None) or ""
