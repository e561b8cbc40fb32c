"""What audits say of a certificate, shared by replicas: the state that a Guard rules by.

The state lies on a shelf under one key and is changed by compare-and-set, so that no audit is lost and an alarm reaches
every replica.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace

from governor.aside import Aside
from governor.errors import CertificateError, LedgerError
from governor.learn.monitor import Audit, Guard, Ruling, Watch
from governor.protocols import Shelf
from governor.shelf import update


class CertificateWarning(UserWarning):
    """A certificate is not used, or no longer: the safe dial is in force."""


class Audits:
    """A guard and what it was told. Safe for many threads; `ruling` does no I/O. `shelf` None: this process alone."""

    def __init__(self, guard: Guard, shelf: Shelf | None, key: str) -> None:
        self.guard = guard
        self._shelf = shelf
        self._key = key
        self._lock = threading.Lock()
        self._watch = Watch()
        self._unknown = "" if shelf is None else "what audits said so far is not read yet"
        self._read_once = False
        self._told: set[str] = set()
        self._aside = Aside(shelf)
        self.refresh_aside()

    def ruling(self, node: str, asked: float | None) -> Ruling:
        """The dial for a step of this node (see Guard.ruling); the safe one while the audits so far can't be read."""
        if self._unknown:
            dial = self.guard.safe if asked is None else min(self.guard.safe, asked)
            return Ruling(dial, False, f"safe dial {dial:g}: {self._unknown}")
        return self.guard.ruling(node, asked, self._watch)

    def take(self, audit: Audit) -> None:
        """Count an audit. Raises LedgerError or CertificateError, and counts nothing, where it can't be kept."""
        with self._lock:
            if self._shelf is None:
                self._watch = self.guard.observe(self._watch, audit)
            else:
                self._read(update(self._shelf, self._key, lambda old: self._after(old, audit)))
            alarms = self._fresh_alarms()
        _warn(alarms)

    def refresh(self) -> None:
        """Take up what other replicas' audits said. What was known stays where the shelf can't be reached."""
        if self._shelf is None:
            return
        with self._lock:
            try:
                found = self._shelf.load(self._key)
                self._read(found[0] if found else None)
            except (LedgerError, CertificateError) as fault:
                if not self._read_once:  # an alarm may stand there
                    self._unknown = f"what audits said so far can't be read ({fault})"
            alarms = self._fresh_alarms()
        _warn(alarms)

    def refresh_aside(self) -> None:
        """The same, in a thread where it would hold up an event loop."""
        self._aside(self.refresh)

    def _after(self, old: bytes | None, audit: Audit) -> bytes:
        return self.guard.observe(Watch.from_bytes(old) if old else Watch(), audit).to_bytes()

    def _read(self, value: bytes | None) -> None:
        self._watch = Watch.from_bytes(value) if value else Watch()
        self._unknown, self._read_once = "", True

    def _fresh_alarms(self) -> list[str]:
        """What was refuted and not told yet, one sentence a certificate."""
        guard, watch = self.guard, self._watch
        refuted = [one for one in guard.certificates if watch.of(one).alarmed(guard.delta)]
        fresh = [one for one in refuted if one.evidence not in self._told]
        self._told |= {one.evidence for one in fresh}
        return [f"safe dial {guard.safe:g}: {said}" for said in replace(guard, certificates=tuple(fresh)).alarms(watch)]


def _warn(alarms: list[str]) -> None:
    for alarm in alarms:
        warnings.warn(CertificateWarning(alarm), stacklevel=4)
