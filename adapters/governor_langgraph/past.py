"""What a run of a graph has behind it: pure values, and how rewinds, crashes and resumptions change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from governor_langgraph.blame import Back, Done
from governor_langgraph.place import Place

MOST_STEPS = 256
"""How many steps are remembered: what lies further back can't be blamed, and is not written with each new step."""


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

    def ended(self, made: Made) -> Past:
        """With a call that has its result, on whatever branch it lies by now."""

        def put(calls: tuple[Made, ...]) -> tuple[Made, ...]:
            return tuple(replace(one, ended=True) if one.number == made.number else one for one in calls)

        return replace(self, made=put(self.made), undone=put(self.undone))

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
