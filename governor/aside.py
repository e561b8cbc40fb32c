"""Threads for work that waits for a server, so that an event loop need not wait with it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("governor")


def asks_a_server(store: object) -> bool:
    """Whether an operation of a store may last as long as a network lets it: those that may say `remote = True`."""
    return bool(getattr(store, "remote", False))


class Threads:
    """At most so many, made when they are needed; a forked child makes its own. Safe for many threads."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._lock = threading.Lock()
        self._owner = 0
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Begin it, in the caller's context. Raises RuntimeError where no thread can be had, as at the end."""
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
            return self._pool.submit(copy_context().run, work)

    def end(self) -> None:
        """Let go of the threads; what is under way comes to its end, and what comes later gets new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._owner == os.getpid():
            pool.shutdown(wait=False)


_ASIDE = Threads(4, "governor-aside")


class Aside:
    """Runs what a step need not wait for and what will be due again: looks at a store, and what is shared through it.

        Aside(ledger)(refresh)

    At once, but where an event loop runs and the store is a server: then in a thread, one piece at a time, and what
    comes meanwhile is left out. Safe for many threads.
    """

    def __init__(self, store: object) -> None:
        self._remote = asks_a_server(store)
        self._busy = threading.Lock()

    def __call__(self, work: Callable[[], None]) -> None:
        if not self._remote or not _in_event_loop():
            work()
        elif self._busy.acquire(blocking=False):
            try:
                _ASIDE.submit(lambda: self._run(work))
            except RuntimeError as fault:
                self._busy.release()
                log.warning("left out, for want of a thread: %s", fault)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # nobody waits for the thread who could be told
            log.exception("work beside a step broke down")
        finally:
            self._busy.release()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
