"""What precedes a node's first model call: its forecast and plan, made when the node asks a model, if it ever does."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from governor.drivers import Ports, drive
from governor.effects import CallModel, Process, opened, rest
from governor.errors import NoAnswerError
from governor.records import Call, Outcome, Reply


@dataclass(slots=True)
class Opening:
    """The loop of a node's step up to its first attempt, and what that came to. Safe for threads.

    Most nodes of most graphs ask no model: for these nothing is decided. A step counts its time from `started`, on the
    clock of `ports`.
    """

    process: Process[Outcome]
    ports: Ports
    started: float
    waiting: CallModel | None = None
    """The first attempt, once it is decided."""
    fault: BaseException | None = None
    """Why there is none."""
    _reply: Reply | None = None
    _failed: BaseException | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> Call:
        """The first attempt, decided now unless it was before. NoAnswerError where the step ends without any."""
        with self._lock:
            if self.fault is not None:
                raise self.fault
            if self.waiting is None:
                try:
                    self.waiting = self._begun()
                except BaseException as fault:
                    self.fault = fault
                    raise
            return self.waiting.call

    def _begun(self) -> CallModel:
        """Nothing before the first call is awaited: a nested step reserves nothing, and its load is a number."""
        begun = drive(opened(self.process), replace(self.ports, clock=lambda: self.started).perform)
        if isinstance(begun, Outcome):
            raise NoAnswerError(begun)
        return begun

    @contextmanager
    def trying(self) -> Generator[None, None, None]:
        """While the first attempt is made. What it fails with is for the loop, if that has begun; else it leaves."""
        try:
            yield
        except BaseException as cause:
            if self.fault is not None:  # a node may go on without the model that it did not get: it has not run
                raise self.fault from cause
            if self.waiting is None:
                raise
            self._failed = cause

    def tried(self, reply: Reply) -> None:
        """The first attempt came to this reply."""
        self._reply = reply

    def answered(self, call: Call) -> Reply | None:
        """What the first attempt came to; None of a later one. Raises what it failed with."""
        if self.waiting is None or call is not self.waiting.call:
            return None
        if self._failed is not None:
            raise self._failed
        return self._reply

    def rest(self) -> Process[Outcome]:
        """The loop from its first attempt on, which is decided at the latest now."""
        self.call()
        assert self.waiting is not None, "`call` has decided it"
        return rest(self.process, self.waiting)
