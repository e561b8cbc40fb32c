"""The past of a run, kept outside of its graph's state: no rewind takes it back, and no crash."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from inspect import iscoroutinefunction
from typing import Any

from governor.errors import LedgerError
from governor.facade import Governor
from governor.policy import Policy, on_fail_for, rule_for
from governor.protocols import Shelf, Terms
from governor.records import Step
from governor.shelf import LARGEST, LONGEST_KEY, update
from governor_langgraph.blame import Back, Done, blamed, priced
from governor_langgraph.left import left_of
from governor_langgraph.past import Made, Past
from governor_langgraph.place import Place

TRAIL_KEY = "governor_trail"
"""Under `configurable`: the Trail of the run."""

KEEP_SECONDS = 30 * 86_400.0
"""How long the trail of a run that nobody goes on with is kept, as the sums of sessions are."""


class TrailWarning(UserWarning):
    """The store could not keep the trail of a run, or tell its budgets, and the policy says `fail: open`."""


@dataclass(slots=True)
class Trail:
    """The past of the run of one thread, shared by its nodes. Safe for threads.

    `durable`: it is kept in the ledger's store, for whoever goes on with the run after it ended or died. Where the
    ledger is no Shelf (or an awaited one), a run that is gone on with has a new trail. `failed` are the rewinds that
    nodes of this superstep want.
    """

    governor: Governor
    thread: str
    past: Past
    durable: bool = True
    failed: list[Back] = field(default_factory=list)
    _results: dict[int, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def kept(cls, governor: Governor, thread: str, run: str) -> Trail:
        """The trail of a run, as it is kept; an empty one where nothing is kept of this run, but maybe of another."""
        trail = cls(governor, thread, Past(run))
        found = trail._load("")
        past = Past.read(found) if found is not None else trail.past
        trail.past = past if past.run == run else trail.past
        return trail

    def change(self, changed: Callable[[Past], Past]) -> None:
        """Changes the past, where it is kept and here. LedgerError where it can't be and the policy is closed."""
        with self._lock:
            past = changed(self.past)
            if past != self.past:
                self._save("", past.written())
                self.past = past

    def walked(self, done: Done) -> None:
        """Notes a step that has ended, where it may ever be blamed."""
        if rewinds(self.governor.policy):
            self.change(lambda past: past.walked(done))

    def back(self, step: Step, place: Place, terms: Terms | None = None) -> Back | None:
        """Where the run goes back to, now that `step` has failed; None: nowhere, or not any more."""
        policy = self.governor.policy
        on_fail, rule = on_fail_for(policy, step), rule_for(policy, step)
        if on_fail is None:
            return None
        rewind, left = on_fail.rewind, self._left(terms) if terms else math.inf
        with self._lock:
            if sum(one.rule == rule for one in self.past.backs) >= rewind.max:
                return None
            earlier = [one for one in self.past.done if one.checkpoint < place.checkpoint]
            back = blamed(earlier, rewind, step.node, rule, left)
            if back is not None:
                self.failed.append(back)
        return back

    def _left(self, terms: Terms) -> float:
        """What is left for other steps, in what their cost is counted in; a step's own limits are for it alone.

        Where the store can't say: LedgerError under `fail: closed`, else nothing where money is limited, which no step
        goes on without, and infinite where it is not.
        """
        if _awaited(self.governor.ledger.balance):
            return math.inf
        shared = tuple(limit for limit in terms.limits if not limit.scope.startswith("step:"))
        try:
            left = left_of(self.governor, replace(terms, limits=shared))
        except LedgerError as fault:
            self._lost(fault, "what is left of its budgets is not known")
            return 0.0 if terms.limits_money else math.inf
        return left.get("micros" if priced(terms) else "tokens", math.inf)

    def wanted(self) -> Back | None:
        """The rewind that the nodes which failed want: the furthest back, which redoes what the others blame too."""
        with self._lock:
            return min(self.failed, key=lambda one: (one.checkpoint, -one.doubt), default=None)

    def went(self, back: Back) -> None:
        """Notes that the run goes back."""
        self.failed.clear()
        self.change(lambda past: past.after(back))

    def keep(self, made: Made, result: bytes) -> None:
        """Keeps the result of a tool call, of any size, apart from the past."""
        with self._lock:
            self._results[made.number] = result
            for part in range(0, len(result) + 1, LARGEST):
                self._save(f":{made.number}.{part // LARGEST}", result[part : part + LARGEST])
        self.change(lambda past: past.ended(made))

    def result(self, made: Made) -> bytes:
        """The result of a call that has ended; empty where it is lost."""
        if made.number in self._results:
            return self._results[made.number]
        parts: list[bytes] = []
        while not parts or len(parts[-1]) == LARGEST:
            part = self._load(f":{made.number}.{len(parts)}")
            if part is None:
                return b""
            parts.append(part)
        return b"".join(parts)

    def _save(self, name: str, value: bytes) -> None:
        shelf = self._shelf()
        if shelf is None:
            return
        try:
            update(shelf, self._key(name), lambda _: value, ttl=KEEP_SECONDS)
        except LedgerError as fault:
            self._lost(fault, "its trail is not kept")

    def _load(self, name: str) -> bytes | None:
        shelf = self._shelf()
        if shelf is None:
            return None
        try:
            found = shelf.load(self._key(name))
        except LedgerError as fault:
            self._lost(fault, "its trail is not kept")
            return None
        return found[0] if found else None

    def _shelf(self) -> Shelf | None:
        """Where the trail is kept."""
        return shelf_of(self.governor) if self.durable else None

    def _lost(self, fault: LedgerError, what: str) -> None:
        if self.governor.policy.fail == "closed":
            raise fault
        warnings.warn(f"run '{self.past.run}': {what}: {fault}", TrailWarning, stacklevel=4)

    def _key(self, name: str) -> str:
        """The past lies under the thread, results under the run too, so that none is taken for another's."""
        key = f"run:{self.governor.policy.app}:{self.thread}" + (f":{self.past.run}{name}" if name else "")
        return key if len(key) <= LONGEST_KEY else f"run:{sha256(key.encode()).hexdigest()}"


def shelf_of(governor: Governor) -> Shelf | None:
    """Where what outlives a process is kept: not in a store that is awaited, as nodes that block can't."""
    ledger: object = governor.ledger
    return ledger if isinstance(ledger, Shelf) and not _awaited(ledger.load) else None


def _awaited(function: Any) -> bool:
    return iscoroutinefunction(function)


def rewinds(policy: Policy) -> bool:
    """Whether any rule of a policy lets a run go back."""
    return any(rule.on_fail is not None for rule in policy.steps)


def trail_of(config: Mapping[str, Any]) -> Trail | None:
    """The trail of the run that a configuration belongs to; None where no governed graph drives it."""
    found = (config.get("configurable") or {}).get(TRAIL_KEY)
    return found if isinstance(found, Trail) else None
