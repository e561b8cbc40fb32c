"""The attempt of a governed node that is running in this context: which rung its models take, what they spend."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from governor.errors import Refusal
from governor.facade import Governor
from governor.protocols import Terms
from governor.records import Amount, BacktrackMode, Outcome, Rung, Step, Usage

MENDS: tuple[BacktrackMode, ...] = ("continue", "more", "fresh")
"""How a model call inside a node may be mended where it was cut or failed; the rest is the node's to decide."""


@dataclass(slots=True)
class NodeAttempt:
    """One attempt of a node. Mutable: model calls of parallel threads and tasks of the node add what they spent.

    `ends` is the node's deadline in monotonic seconds. `asked` says that a model was asked, `refusal` which budget last
    refused one.
    """

    governor: Governor
    step: Step
    terms: Terms
    rung: Rung
    ends: float | None
    governed: bool = True
    asked: bool = False
    number: int = 1
    usage: Usage = Usage()
    spent: Amount = Amount()
    refusal: Refusal | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> None:
        """Counts a model call, rejected attempts of it too."""
        with self._lock:
            self.usage += outcome.usage + outcome.verifier_usage
            self.spent += outcome.spent
            if outcome.reply is None:
                self.refusal = outcome.refusal or self.refusal

    def within(self, step: Step) -> tuple[Step, dict[str, Any]]:
        """A model call as a step of its own, part of this one: its place, and the terms that bind it.

        It may take this rung alone, and reserves what it needs on the same budgets as the node. In shadow and control
        arms it is called as it would be without a policy.
        """
        self.asked = True
        left = None if self.ends is None else max(0.0, self.ends - time.monotonic())
        mine = self.step
        bound = {
            "ladder": (self.rung,),
            "mode": "on" if self.governed else self.terms.mode,
            "share": float(self.governed),
            "modes": MENDS,
            "on_exhausted": "best_so_far",  # a refusal is told, and the node decides what follows
            "audit": False,
            "call": self.terms.call,
            "limits": self.terms.limits,
            "models": self.terms.models,
            "deadline": left,
        }
        part = replace(step, parent=mine.id, session=mine.session, run=mine.run, tenant=mine.tenant, node=mine.node)
        return part, bound


_running: ContextVar[NodeAttempt | None] = ContextVar("governor_langgraph.attempt", default=None)


def running() -> NodeAttempt | None:
    """The attempt of the governed node that this code runs in; None outside of one."""
    return _running.get()


@contextmanager
def entered(attempt: NodeAttempt | None) -> Generator[None, None, None]:
    """What runs meanwhile in this context, and in contexts copied from it, belongs to the attempt."""
    token = _running.set(attempt)
    try:
        yield
    finally:
        _running.reset(token)
