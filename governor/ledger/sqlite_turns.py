"""Who writes next, where several processes of one machine share a file that one of them can write at a time.

SQLite's own waiting (sleeps that grow to 0.1 s) lets whoever does not sleep win again and again. Taking turns after
every operation would be fair and slow: each change of writer makes the next one read its pages anew. So a process that
had a long turn steps back for a while, and comes back without haste: in the first half of its next turn it gives way to
whoever is further on, who would otherwise be back at once and make both wait. All others insist. Of a turn's operations
few wait long, and those about `BACK_SECONDS` and `PATIENCE_SECONDS` at most, unless who has the lock is slow itself.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

NAP_SECONDS = 0.0001
"""Between two attempts to get the lock, which its holder keeps for some 0.05 ms at a time."""

TURN = 400
"""Operations after which a process that meets others steps back."""

TURN_SECONDS = 0.4
"""A process whose operations of a turn are spread over more than this leaves the others room anyway."""

BACK_SECONDS = 0.03
"""How long it steps back: more than a turn of another one."""

WAY_SECONDS = 0.01
"""How long it gives way at a time: half a turn of another one."""

PATIENCE_SECONDS = 0.05
"""How long it does so for one operation, before it insists."""


class Turns:
    """The waiting of one process for the write lock, at most `timeout` seconds each time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._done = 0
        self._began = 0.0
        self._returns = False

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
                now = time.monotonic()
                if not busy(cause) or now - began >= self._timeout:
                    raise
                nap = self._nap(now, now - began)
            else:
                return

    def _step_back(self, now: float) -> float:
        """How long to sleep first."""
        if self._done < TURN:
            return self._nap(now, 0.0)
        self._returns = now - self._began <= TURN_SECONDS
        self._done, self._began = 0, now
        return min(BACK_SECONDS, self._timeout) if self._returns else NAP_SECONDS

    def _nap(self, now: float, waited: float) -> float:
        early = self._done < TURN // 2 and now - self._began <= TURN_SECONDS
        if self._returns and early and waited < PATIENCE_SECONDS:
            return min(WAY_SECONDS, self._timeout - waited)
        return NAP_SECONDS


def busy(cause: sqlite3.Error) -> bool:
    """Whether another connection has the lock."""
    return name_of(cause).startswith("SQLITE_BUSY")


def name_of(cause: sqlite3.Error) -> str:
    """SQLite's name of the error; empty where Python made it."""
    return getattr(cause, "sqlite_errorname", None) or ""
