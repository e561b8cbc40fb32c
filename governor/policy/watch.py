"""Hot reload: the current policy of a file that may change, never a half-written or invalid one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from governor.errors import PolicyError
from governor.policy.finding import Check
from governor.policy.load import Inspection, inspect_policy
from governor.policy.schema import Policy

_Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class PolicyWatcher:
    """Serves a policy file's last good state and reloads it when the file, or one it extends, changes.

    `path` is what `load_policy` takes; the first load raises PolicyError. `interval` is the least number of
    seconds between two looks at the files, `clock` the monotonic seconds it is measured by. A change is
    loaded only once it has looked the same twice, half an `interval` apart, so that a file caught while it is
    being written is not read; a writer that pauses for longer should write to another file and rename it. What
    does not load is kept in `error`, told to `on_error` once, and the last good policy stays. Threads may
    share a watcher.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        interval: float = 1.0,
        checks: Iterable[Check] = (),
        on_error: Callable[[PolicyError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = path
        self._interval = interval
        self._checks = tuple(checks)
        self._on_error = on_error
        self._clock = clock
        self._lock = threading.Lock()
        first = inspect_policy(path, self._checks)
        if first.policy is None:
            raise PolicyError(first.problems)
        self._policy: Policy = first.policy
        self._files = first.files
        # Whether a file changed between being read and being looked at is not known: the next look reads again.
        self._loaded: _Signature | None = None
        self._seen = _signature(self._files)
        self._settled = True
        self._looked = clock()
        self._error: PolicyError | None = None

    @property
    def error(self) -> PolicyError | None:
        """Why the file as it is now can't be used; None when it is what `current` serves."""
        return self._error

    @property
    def settled(self) -> bool:
        """Whether the last look found the files as they were before it; if not, the next one comes sooner."""
        return self._settled

    def current(self) -> Policy:
        """The last good policy. Looks at the files at most every `interval`, and never waits for another thread."""
        if self._is_time() and self._lock.acquire(blocking=False):
            try:
                if self._is_time():  # another thread may have looked just now
                    self._look()
            finally:
                self._lock.release()
        return self._policy

    def _is_time(self) -> bool:
        return self._clock() - self._looked >= waiting(self._interval, settled=self._settled)

    def _look(self) -> None:
        now = _signature(self._files)
        self._looked = self._clock()  # after the look, so that two looks are never closer than the interval
        self._settled = now == self._seen
        self._seen = now
        if now == self._loaded or not self._settled:
            return
        found = inspect_policy(self._source, self._checks)
        if _signature(self._files) == now:  # else it changed while it was read: wait until it settles
            self._adopt(found, now)

    def _adopt(self, found: Inspection, signature: _Signature) -> None:
        """Take what was read. A broken file's bases may be incomplete, so the known ones stay watched."""
        files = found.files if found.policy else tuple(dict.fromkeys((*self._files, *found.files)))
        if files == self._files:
            self._loaded = signature
        else:  # how the new files looked when they were read is not known: read them once more
            self._files, self._loaded, self._seen = files, None, _signature(files)
        if found.policy is None:
            self._fail(PolicyError(found.problems))
        else:
            self._policy, self._error = found.policy, None

    def _fail(self, error: PolicyError) -> None:
        known = self._error is not None and self._error.problems == error.problems
        self._error = error
        if self._on_error is not None and not known:
            self._on_error(error)


def waiting(interval: float, *, settled: bool) -> float:
    """Seconds until the next look at files: half as long where the last one found them changed.

    Files that are rewritten once an interval would else never look the same twice.
    """
    return interval if settled else interval / 2


def _signature(files: Iterable[Path]) -> _Signature:
    return tuple(_stat(path) for path in files)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
