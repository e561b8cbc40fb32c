"""What a run of a graph has behind it, outside of the graph's state: no rewind takes it back, and no crash."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from governor.facade import Governor
from governor.policy import on_fail_for
from governor.protocols import Shelf
from governor.records import Step
from governor.shelf import update
from governor_langgraph.blame import Back, Done, blamed

TRAIL_KEY = "governor_trail"
"""Under `configurable`: the Trail of the run."""

KEEP_SECONDS = 30 * 86_400.0
"""How long the trail of a run that nobody goes on with is kept, as the sums of sessions are."""


@dataclass(frozen=True, slots=True)
class Made:
    """A tool call that was made. `result` is the message it gave, serialised; None while it runs, or if it died."""

    tool: str
    arguments: str
    index: int
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What the trail keeps: the steps of the branch it is on, all rewinds of the run, and the tool calls made.

    `undone` are the calls of branches that were left: their effects stand, and wait to be asked for again.
    """

    run: str
    done: tuple[Done, ...] = ()
    backs: tuple[Back, ...] = ()
    made: tuple[Made, ...] = ()
    undone: tuple[Made, ...] = ()

    def redone(self, node: str, index: int) -> Back | None:
        """The rewind because of which a node runs, on a higher rung; None where it runs for another reason.

        All its runs of the first superstep in which it runs again count. A superstep's number is no name: a new branch
        counts on.
        """
        last = self.backs[-1] if self.backs else None
        if last is None or last.node != node:
            return None
        again = any(one.node == node and last.index <= one.index < index for one in self.done)
        return None if again else last

    def after(self, back: Back) -> Past:
        """The same once the run has gone back."""
        return replace(
            self,
            done=tuple(one for one in self.done if one.index < back.index),  # all that the checkpoint holds
            backs=(*self.backs, back),
            made=tuple(one for one in self.made if one.index < back.index),
            undone=(*self.undone, *(one for one in self.made if one.index >= back.index)),
        )

    def written(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def read(cls, text: bytes) -> Past:
        kept = json.loads(text)
        return cls(
            kept["run"],
            tuple(Done(**one) for one in kept["done"]),
            tuple(Back(**one) for one in kept["backs"]),
            tuple(Made(**one) for one in kept["made"]),
            tuple(Made(**one) for one in kept["undone"]),
        )


@dataclass(slots=True)
class Trail:
    """The past of the run of one thread, shared by its nodes and kept in the ledger's store. Safe for threads.

    A ledger that is no Shelf keeps it in this process alone.
    """

    governor: Governor
    thread: str
    past: Past
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def begun(cls, governor: Governor, thread: str, run: str) -> Trail:
        """The trail of a new run."""
        trail = cls(governor, thread, Past(run))
        trail.change(lambda past: past)
        return trail

    @classmethod
    def resumed(cls, governor: Governor, thread: str, run: str) -> Trail:
        """The trail of the thread's last run; a new one where none is kept."""
        shelf = governor.ledger
        found = shelf.load(_key(governor, thread)) if isinstance(shelf, Shelf) else None
        return cls(governor, thread, Past.read(found[0])) if found else cls.begun(governor, thread, run)

    def change(self, changed: Callable[[Past], Past]) -> None:
        """Changes the past, here and where it is kept. LedgerError where it can't be kept."""
        with self._lock:
            self.past = changed(self.past)
            shelf, kept = self.governor.ledger, self.past.written()
            if isinstance(shelf, Shelf):
                update(shelf, _key(self.governor, self.thread), lambda _: kept, ttl=KEEP_SECONDS)

    def walked(self, done: Done) -> None:
        """Notes a step that has ended."""
        self.change(lambda past: replace(past, done=(*past.done, done)))

    def back(self, step: Step, why: str, *, inner: bool = False) -> Back | None:
        """Where to go back to now that `step` has failed; None: nowhere, or not any more. What is answered is noted.

        `inner`: it failed inside a subgraph, whose supersteps count for themselves.
        """
        rule = on_fail_for(self.governor.policy, step)
        if rule is None:
            return None
        with self._lock:
            past = self.past
        if sum(one.by == step.node for one in past.backs) >= rule.rewind.max:
            return None
        earlier = [one for one in past.done if inner or one.index < step.index]
        back = blamed(earlier, rule.rewind, step.node, why)
        if back is not None:
            self.change(lambda past: past.after(back))
        return back


def trail_of(config: Mapping[str, Any]) -> Trail | None:
    """The trail of the run that a configuration belongs to; None where no governed graph drives it."""
    found = (config.get("configurable") or {}).get(TRAIL_KEY)
    return found if isinstance(found, Trail) else None


def _key(governor: Governor, thread: str) -> str:
    return f"run:{governor.policy.app}:{thread}"
