"""What a run of a graph has behind it, outside of the graph's state: no rewind takes it back, and no crash."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from inspect import iscoroutinefunction
from operator import attrgetter
from typing import Any

from governor.errors import LedgerError
from governor.facade import Governor
from governor.policy import Policy, on_fail_for, rule_for
from governor.protocols import Shelf, Terms
from governor.records import Step
from governor.shelf import LARGEST, LONGEST_KEY, update
from governor_langgraph.blame import Back, Done, blamed, priced
from governor_langgraph.left import left_of
from governor_langgraph.place import Place

TRAIL_KEY = "governor_trail"
"""Under `configurable`: the Trail of the run."""

KEEP_SECONDS = 30 * 86_400.0
"""How long the trail of a run that nobody goes on with is kept, as the sums of sessions are."""


MOST_STEPS = 256
"""How many steps are remembered: what lies further back can't be blamed, and is not written with each new step."""


class TrailWarning(UserWarning):
    """The trail of a run could not be kept, and the policy says `fail: open`: a crash would lose it."""


@dataclass(frozen=True, slots=True)
class Made:
    """A tool call that was made by a `task`, in the superstep after a `checkpoint` of the outermost graph.

    `number` names it in the run, `arguments` is their digest, `call` the id that the model gave it, `turn` the stretch
    of the run that it lies in, `attempt` that of the node around it. One that has not `ended` still runs, or broke off.
    """

    number: int
    tool: str
    arguments: str
    call: str
    checkpoint: str
    task: str
    turn: int
    attempt: int = 1
    ended: bool = False

    def comes_again(self, other: Made) -> bool:
        """Whether `other` is of a task that runs from its beginning again: it was cut off, or its node rejected."""
        if self.turn < other.turn:
            return self.task == other.task
        outer, its = self.task.partition("|")[0], other.task.partition("|")[0]
        return (self.turn, outer) == (other.turn, its) and self.attempt < other.attempt


@dataclass(frozen=True, slots=True)
class Past:
    """What the trail keeps: the steps of the branch it is on, all rewinds of the run, and the tool calls made.

    `undone` are the calls of branches that were left: their effects stand, and wait to be asked for again. `turn`
    counts the stretches of the run: each begins where it started, was resumed, or went back.
    """

    run: str
    done: tuple[Done, ...] = ()
    backs: tuple[Back, ...] = ()
    made: tuple[Made, ...] = ()
    undone: tuple[Made, ...] = ()
    turn: int = 0

    @property
    def branch(self) -> str:
        """What the graph's history calls the branch that the run is on; empty for its first."""
        return f"{len(self.backs)}: {self.backs[-1].branch}" if self.backs else ""

    @property
    def calls(self) -> tuple[Made, ...]:
        """Every tool call of the run."""
        return *self.made, *self.undone

    def redone(self, place: Place) -> Back | None:
        """The rewind because of which a node runs, on a higher rung; None where it runs for another reason.

        All its runs of the first superstep in which it runs again count.
        """
        last = self.backs[-1] if self.backs else None
        if last is None or last.node != place.node or place.inner:
            return None
        again = any(one.node == last.node and last.checkpoint <= one.checkpoint < place.checkpoint for one in self.done)
        return None if again else last

    def walked(self, done: Done) -> Past:
        """With a step that has ended. One that a crash made run again takes its old place."""
        return replace(self, done=(*(one for one in self.done if one.task != done.task), done)[-MOST_STEPS:])

    def before(self, checkpoint: str) -> Past:
        """As it was there; nothing that was called since is forgotten. Time orders checkpoints by their ids."""
        return replace(
            self,
            done=tuple(one for one in self.done if one.checkpoint < checkpoint),
            made=tuple(one for one in self.made if one.checkpoint < checkpoint),
            undone=(*self.undone, *(one for one in self.made if one.checkpoint >= checkpoint)),
            turn=self.turn + 1,
        )

    def after(self, back: Back) -> Past:
        """The same once the run has gone back."""
        return replace(self.before(back.checkpoint), backs=(*self.backs, back))

    def resumed(self, head: str) -> Past:
        """The same where the run goes on from its latest checkpoint: what was built on lost ones is undone."""
        built_on = [*(one.checkpoint for one in self.done), *(one.checkpoint for one in self.made)]
        lost = [one for one in built_on if one > head]
        return self.before(min(lost)) if lost else replace(self, turn=self.turn + 1)

    def written(self) -> bytes:
        lists = {name: [_values(kind, one) for one in getattr(self, name)] for name, kind in _LISTS.items()}
        return json.dumps({"run": self.run, "turn": self.turn, **lists}, separators=(",", ":")).encode()

    @classmethod
    def read(cls, text: bytes) -> Past:
        kept = json.loads(text)
        lists = {name: tuple(kind(*one) for one in kept[name]) for name, kind in _LISTS.items()}
        return cls(run=kept["run"], turn=kept["turn"], **lists)  # type: ignore[arg-type]  # each name has its kind


_LISTS: Mapping[str, type[Done] | type[Back] | type[Made]] = {"done": Done, "backs": Back, "made": Made, "undone": Made}
_GETTERS = {kind: attrgetter(*kind.__slots__) for kind in (Done, Back, Made)}


def _values(kind: type[Done] | type[Back] | type[Made], one: Done | Back | Made) -> tuple[Any, ...]:
    """The values in the order of their fields; `dataclasses.astuple` copies them, and takes ten times as long."""
    values: tuple[Any, ...] = _GETTERS[kind](one)
    return values


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
        """What is left for other steps, in what their cost is counted in; a step's own limits are for it alone."""
        if _awaited(self.governor.ledger.balance):
            return math.inf
        shared = tuple(limit for limit in terms.limits if not limit.scope.startswith("step:"))
        left = left_of(self.governor, replace(terms, limits=shared))
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
        ended = replace(made, ended=True)
        self.change(lambda past: _ended(past, ended))

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
            self._lost(fault)

    def _load(self, name: str) -> bytes | None:
        shelf = self._shelf()
        if shelf is None:
            return None
        try:
            found = shelf.load(self._key(name))
        except LedgerError as fault:
            self._lost(fault)
            return None
        return found[0] if found else None

    def _shelf(self) -> Shelf | None:
        """Where the trail is kept: not in a store that is awaited, as nodes that block can't."""
        ledger: object = self.governor.ledger if self.durable else None
        return ledger if isinstance(ledger, Shelf) and not _awaited(ledger.load) else None

    def _lost(self, fault: LedgerError) -> None:
        if self.governor.policy.fail == "closed":
            raise fault
        warnings.warn(f"the trail of run '{self.past.run}' is not kept: {fault}", TrailWarning, stacklevel=4)

    def _key(self, name: str) -> str:
        """The past lies under the thread, results under the run too, so that none is taken for another's."""
        key = f"run:{self.governor.policy.app}:{self.thread}" + (f":{self.past.run}{name}" if name else "")
        return key if len(key) <= LONGEST_KEY else f"run:{sha256(key.encode()).hexdigest()}"


def _awaited(function: Any) -> bool:
    return iscoroutinefunction(function)


def _ended(past: Past, ended: Made) -> Past:
    def put(calls: tuple[Made, ...]) -> tuple[Made, ...]:
        return tuple(replace(one, ended=True) if one.number == ended.number else one for one in calls)

    return replace(past, made=put(past.made), undone=put(past.undone))


def rewinds(policy: Policy) -> bool:
    """Whether any rule of a policy lets a run go back."""
    return any(rule.on_fail is not None for rule in policy.steps)


def trail_of(config: Mapping[str, Any]) -> Trail | None:
    """The trail of the run that a configuration belongs to; None where no governed graph drives it."""
    found = (config.get("configurable") or {}).get(TRAIL_KEY)
    return found if isinstance(found, Trail) else None
