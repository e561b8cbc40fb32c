"""The policies of a folder, one file per application, and the governors that carry them out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from governor.errors import GovernorError, PolicyError
from governor.facade import Governor
from governor.policy import Check, Policy, PolicyWatcher
from governor.policy.watch import waiting

log = logging.getLogger("governor.proxy")


class UnservedError(GovernorError):
    """An application has no policy of its own, and a file that never could be used may be meant for it."""

    def __init__(self, app: str) -> None:
        self.app = app
        super().__init__(f"the application {app[:64]!r} has no policy, and there is a file that can't be used")


@dataclass(slots=True)
class Served:
    """A governor that serves an application under one state of its policy. `using` counts the flights in it."""

    path: Path
    governor: Governor
    using: int = 0

    @property
    def policy(self) -> Policy:
        return self.governor.policy


@dataclass(slots=True)
class _File:
    watcher: PolicyWatcher | None = None
    error: str = ""
    missing: bool = False
    """Whether the last look did not find it: what is missing twice is removed."""
    app: str = ""
    """Whose policy it is; empty where it never could be read."""
    served: bool = False
    """Whether it ever served."""


@dataclass(slots=True)
class PolicyFolder:
    """Every `*.yaml` of a folder, looked at again and again. New files count from the next look, others once two agree.

    What can't be used is told in `errors` and logged once, and the last good policy of that file stays; so do all where
    the folder itself is gone. Two files for one application are a mistake: the one that serves it holds, else the first
    by name. `make` opens a governor. Threads may share it.
    """

    folder: Path
    make: Callable[[Policy], Governor]
    checks: Callable[[], tuple[Check, ...]]
    interval: float = 1.0
    clock: Callable[[], float] = time.monotonic
    loaded: int = 0
    """How often a policy began to serve."""
    failed: int = 0
    """How often something was found that can't be used; as long as it stays the same it counts once."""
    _itself: _File = field(default_factory=_File)
    _here: tuple[int, int] | None = None
    """Which folder it is, whatever its name."""
    _files: dict[Path, _File] = field(default_factory=dict)
    _unserved: bool = False
    """Whether a file serves nothing, because it never could be used."""
    _served: Mapping[str, Served] = field(default_factory=lambda: MappingProxyType({}))
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """One look at a time."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while flights are counted, which requests wait for: nothing is read, opened or closed under it."""
    _replaced: list[Served] = field(default_factory=list)
    """Governors to close once their last flight is over."""
    _closed: bool = False
    _looked: float | None = None
    _finished: bool = False

    @property
    def served(self) -> Mapping[str, Served]:
        """What serves now, by application; a mapping that is replaced as a whole, never changed."""
        return self._served

    @property
    def errors(self) -> Mapping[str, str]:
        """Why files can't be used as they are, by the file's name; by its path why the folder can't."""
        told = {path.name: one.error for path, one in tuple(self._files.items())}
        return {name: error for name, error in {**told, str(self.folder): self._itself.error}.items() if error}

    @property
    def looked(self) -> bool:
        """Whether a look was ever finished."""
        return self._finished

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        if not self._finished or self._looked is None:
            return True
        held = tuple(self._files.values())
        settled = all(not one.missing and (one.watcher is None or one.watcher.settled) for one in held)
        return self.clock() - self._looked >= waiting(self.interval, settled=settled)

    def look(self) -> None:
        """Take in what the files hold now. Reads and parses: not for an event loop."""
        with self._turn:
            if self._closed:
                return
            self._close_idle()
            self._looked = self.clock()
            try:
                self._list()
            except OSError as lost:
                self._told(self.folder, self._itself, f"{self.folder}: {lost.strerror or lost}")
                return
            self._told(self.folder, self._itself, "")
            policies, errors = self._read()
            errors |= self._serve(policies)
            for path, error in errors.items():
                self._told(path, self._files[path], error)
            self._finished = True

    def enter(self, app: str, default: str | None = None) -> Served | None:
        """What serves an application now, held until `leave`: its own policy, else the default's; None without either.

        UnservedError where it has none of its own, and a file may be it that never could be used.
        """
        with self._lock:
            served = self._served.get(app)
            if served is None and self._unserved:
                raise UnservedError(app)
            if served is None and default is not None:
                served = self._served.get(default)
            if served is not None:
                served.using += 1
            return served

    def leave(self, served: Served) -> None:
        """A flight is over: the look after its last one closes a governor that was replaced."""
        with self._lock:
            served.using -= 1

    def close(self) -> None:
        """Close every governor, used or not, for good. Waits for stores: not for an event loop."""
        with self._turn:
            self._closed = True
            with self._lock:
                every = [*self._served.values(), *self._replaced]
                self._served = MappingProxyType({})
                self._replaced.clear()
            for served in every:
                served.governor.close()

    def _list(self) -> None:
        """Note which files came and went. OSError where the folder can't be read, or an empty one took its place."""
        found = self.folder.stat()
        present = sorted(filter(is_policy, self.folder.iterdir()))
        here = found.st_dev, found.st_ino
        if self._served and not present and here != self._here:  # such as the one below a file system that is unmounted
            raise FileNotFoundError("another folder has taken its place, without a policy in it")
        self._here = here
        for path in self._files.keys() - set(present):
            if self._files[path].missing:
                del self._files[path]
            else:
                self._files[path].missing = True
        for path in present:
            self._files.setdefault(path, _File()).missing = False

    def _read(self) -> tuple[dict[str, tuple[Path, Policy]], dict[Path, str]]:
        """What is to serve, by application, and why files are not what they hold now."""
        serving = {one.path: one.policy for one in self._served.values()}
        wanted, errors = list[tuple[Path, Policy]](), dict[Path, str]()
        for path in sorted(path for path, known in self._files.items() if not known.missing):
            policy, errors[path] = self._current(path, self._files[path])
            if policy is not None:
                self._files[path].app = policy.app
                wanted.append((path, policy))
        wanted.sort(key=lambda one: one[0] not in serving or serving[one[0]].app != one[1].app)  # who serves it holds
        policies = dict[str, tuple[Path, Policy]]()
        for path, policy in wanted:
            first, _ = policies.setdefault(policy.app, (path, policy))
            if first != path and not errors[path]:
                errors[path] = f"{path.name}: app: '{policy.app}' has a policy already, in {first.name}"
        taken = {path for path, _ in policies.values()}
        for path, policy in serving.items():
            if path in self._files and path not in taken:
                policies.setdefault(policy.app, (path, policy))
        return policies, errors

    def _current(self, path: Path, known: _File) -> tuple[Policy | None, str]:
        """The file's last good policy (None where there never was one), and why it is not what the file holds now."""
        try:
            if known.watcher is None:
                known.watcher = PolicyWatcher(path, interval=0.0, checks=self.checks(), clock=self.clock)
            return known.watcher.current(), str(known.watcher.error or "")
        except PolicyError as error:
            return None, str(error)

    def _told(self, path: Path, known: _File, error: str) -> None:
        if error and error != known.error:
            self.failed += 1
            log.error("%s can't be used as it is (where a good one was read before, it stays): %s", path, error)
        known.error = error

    def _serve(self, policies: Mapping[str, tuple[Path, Policy]]) -> dict[Path, str]:
        """Let these policies serve; why some can't."""
        before, now, errors = self._served, dict[str, Served](), dict[Path, str]()
        own = {one.path: one for one in before.values()}
        for app, (path, policy) in policies.items():
            old = before.get(app)
            if old is not None and old.policy.digest == policy.digest:
                old.path = path
                now[app] = old
                continue
            try:
                now[app] = Served(path, self.make(policy))
                self.loaded += 1
                log.info("policy %s serves %s (%s)", path.name, app, policy.digest[:12])
            except (GovernorError, OSError) as error:  # its store, or the file for its records, can't be opened
                errors[path] = str(error)
                kept = old or own.get(path)
                if kept is not None:
                    kept.path = path
                    now.setdefault(kept.policy.app, kept)
        used = {one.path for one in now.values()}
        with self._lock:
            self._served = MappingProxyType(now)
            for path in used & self._files.keys():
                self._files[path].served = True
            self._unserved = any(not one.served and one.app not in now for one in self._files.values())
            self._replaced += [old for app, old in before.items() if now.get(app) is not old]
        self._close_idle()
        return errors

    def _close_idle(self) -> None:
        with self._lock:
            idle = [one for one in self._replaced if one.using <= 0]
            self._replaced = [one for one in self._replaced if one.using > 0]
        for one in idle:
            one.governor.close()


def is_policy(path: Path) -> bool:
    """Whether a file of the folder counts. Hidden ones are those of editors and file systems."""
    return path.name.endswith(".yaml") and not path.name.startswith(".")
