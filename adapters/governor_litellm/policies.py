"""The policies of a folder, one file per application, and the governors that carry them out."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from governor.errors import GovernorError, PolicyError
from governor.facade import Governor
from governor.ledger.late import LateLedger
from governor.ledger.standby import RETRY_SECONDS, StandbyLedger, standby
from governor.policy import Check, Policy, PolicyWatcher
from governor.policy.watch import waiting
from governor.protocols import AwaitedLedger
from governor.records import Limit

log = logging.getLogger("governor.proxy")


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


@dataclass(slots=True)
class PolicyFolder:
    """Every `*.yaml` of a folder, looked at again and again; new, changed and removed files count from the next look.

    What can't be used is told in `errors` and logged once, and the last good policy of that file stays. Two files for
    one application are a mistake: the first by name holds. `make` opens a governor. Threads may share it.
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
    _files: dict[Path, _File] = field(default_factory=dict)
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
        """Why files can't be used as they are, by the file's name."""
        return {path.name: one.error for path, one in tuple(self._files.items()) if one.error}

    @property
    def looked(self) -> bool:
        """Whether a look was ever finished."""
        return self._finished

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        if not self._finished or self._looked is None:
            return True
        settled = all(one.watcher is None or one.watcher.settled for one in tuple(self._files.values()))
        return self.clock() - self._looked >= waiting(self.interval, settled=settled)

    def look(self) -> None:
        """Take in what the files hold now. Reads and parses: not for an event loop."""
        with self._turn:
            if self._closed:
                return
            self._close_idle()
            self._looked = self.clock()
            present = sorted(self.folder.glob("*.yaml"))
            for gone in set(self._files) - set(present):
                del self._files[gone]
            policies: dict[str, tuple[Path, Policy]] = {}
            errors: dict[Path, str] = {}
            for path in present:
                errors[path] = self._take(path, policies)
            errors |= self._serve(policies)
            for path, error in errors.items():
                self._told(path, self._files[path], error)
            self._finished = True

    def enter(self, app: str) -> Served | None:
        """What serves an application now, held until `leave`; None where there is no policy for it."""
        with self._lock:
            served = self._served.get(app)
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

    def _take(self, path: Path, policies: dict[str, tuple[Path, Policy]]) -> str:
        """Put what the file holds among the policies; why it is not what it holds now, else nothing."""
        known = self._files.setdefault(path, _File())
        policy, error = self._current(path, known)
        if policy is not None and policy.app in policies:
            first = policies[policy.app][0].name
            return error or f"{path.name}: app: '{policy.app}' has a policy already, in {first}"
        if policy is not None:
            policies[policy.app] = path, policy
        return error

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
            log.error("policy %s can't be used as it is (where a good one was read before, it stays): %s", path, error)
        known.error = error

    def _serve(self, policies: Mapping[str, tuple[Path, Policy]]) -> dict[Path, str]:
        """Let these policies serve; why some can't."""
        before, now, errors = self._served, dict[str, Served](), dict[Path, str]()
        for app, (path, policy) in policies.items():
            old = before.get(app)
            if old is not None and old.policy.digest == policy.digest:
                now[app] = old
                continue
            try:
                now[app] = Served(path, self.make(policy))
                self.loaded += 1
                log.info("policy %s serves %s (%s)", path.name, app, policy.digest[:12])
            except GovernorError as error:  # its store can't be opened
                errors[path] = str(error)
                if old is not None:
                    now[app] = old
        with self._lock:
            self._served = MappingProxyType(now)
            self._replaced += [old for app, old in before.items() if now.get(app) is not old]
        self._close_idle()
        return errors

    def _close_idle(self) -> None:
        with self._lock:
            idle = [one for one in self._replaced if one.using <= 0]
            self._replaced = [one for one in self._replaced if one.using > 0]
        for one in idle:
            one.governor.close()


@dataclass(slots=True)
class Ledgers:
    """One open ledger per URI, shared by all governors and closed by none of them; where it can be awaited, two.

    What stands in for one while its store is down outlives governors too, with what it owes and what its cap has left.
    """

    open: Callable[[str], Any]
    open_awaited: Callable[[str], AwaitedLedger | None] = lambda _: None
    _opened: dict[str, Any] = field(default_factory=dict)
    _awaited: dict[str, AwaitedLedger | None] = field(default_factory=dict)
    _standing_in: dict[tuple[str, str], StandbyLedger] = field(default_factory=dict)
    _paying: asyncio.Task[None] | None = None

    def of(self, uri: str) -> Any:
        """The ledger of this URI. LedgerError where it can't be opened."""
        if uri not in self._opened:
            self._opened[uri] = self.open(uri)
        return self._opened[uri]

    def awaited(self, uri: str) -> AwaitedLedger | None:
        """The awaited ledger of this URI; None where it has none."""
        if uri not in self._awaited:
            self._awaited[uri] = self.open_awaited(uri)
        return self._awaited[uri]

    def standing_in(self, uri: str, cap: Limit) -> StandbyLedger:
        """What stands in for the ledger of this URI, up to a cap. LedgerError where it can't be opened."""
        found = self._standing_in.get((uri, cap.scope))
        if found is None:
            found = self._standing_in[uri, cap.scope] = standby(self.of(uri), cap)
        found.stand_in_to(cap)
        return found

    def pay(self) -> None:
        """Book what is owed by those that stand in, again and again until nothing is."""
        if self._owed_aside and (self._paying is None or self._paying.done()):
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        while self._owed_aside:
            await asyncio.sleep(RETRY_SECONDS)
            await self._pay_once()

    async def _pay_once(self) -> None:
        for one in tuple(self._standing_in.values()):
            if one.owed:
                await asyncio.to_thread(one.pay)

    @property
    def _owed_aside(self) -> int:
        return sum(one.owed for one in tuple(self._standing_in.values()))

    @property
    def opened(self) -> Mapping[str, Any]:
        return dict(self._opened)

    @property
    def owed(self) -> int:
        """How many reservations wait to be closed, because their store did not answer when they should have been."""
        late = sum(one.owed for one in tuple(self._awaited.values()) if isinstance(one, LateLedger))
        return late + self._owed_aside

    def close(self) -> None:
        for ledger in self._opened.values():
            ledger.close()
        self._opened.clear()

    async def aclose(self) -> None:
        """Close them all, after a last attempt to book what is owed."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.wait([self._paying])
        await self._pay_once()
        if self._owed_aside:
            log.error("%d closed reservations could not be booked: their store is down", self._owed_aside)
        self._standing_in.clear()
        for awaited in self._awaited.values():
            if awaited is not None:
                await awaited.close()
        self._awaited.clear()
        self.close()
