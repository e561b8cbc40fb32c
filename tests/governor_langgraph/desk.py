"""A governor on scripted replies, a state, and graphs of one node: what the tests of governed nodes begin with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from governor import Governor, Outcome, Step, Usage
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Sink, Tracer
from governor.records import Attempt, Call, Reply
from governor.testing import ScriptedBackend
from governor_langgraph import GovernedChat
from governor_langgraph.graph import govern

LADDER = [
    {"id": "low", "model": "m/small", "answer_tokens": 100, "price": {"input": 1, "output": 2}},
    {"id": "mid", "model": "m/small", "thinking_tokens": 200, "answer_tokens": 100, "price": {"input": 1, "output": 2}},
    {"id": "high", "model": "m/large", "answer_tokens": 100, "price": {"input": 5, "output": 10}},
]
SPENT = Usage(20, 5)
"""What each scripted reply came to."""


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    question: str
    answer: str
    log: Annotated[list[Any], operator.add]


@dataclass(frozen=True, slots=True)
class Kept:
    """A sink that keeps what it is given."""

    attempts: list[tuple[Step, Attempt]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        if isinstance(record, Outcome):
            self.outcomes.append(record)
        else:
            self.attempts.append((step, record))

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def nodes(self) -> list[Outcome]:
        """The records of steps that are part of none."""
        return [one for one in self.outcomes if not one.parent]

    @property
    def parts(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.parent]


@dataclass(frozen=True, slots=True)
class Desk:
    """A governor, the model that takes its rungs, what the backend was asked, and what was recorded."""

    governor: Governor
    chat: GovernedChat
    backend: ScriptedBackend
    kept: Kept

    @property
    def rungs(self) -> list[str]:
        """The rungs that were called, in order."""
        return [call.rung.id for call in self.backend.calls]

    def spent(self, scope: str) -> Any:
        return self.governor.ledger.balance(scope).spent

    def graph(self, function: Any, state: Any = State, **compiled: Any) -> Any:
        """A graph whose one node `ask` is the function, governed as a whole."""
        return govern(one_node(function, state).compile(**compiled), self.governor)


def desk(script: Any, *, tracer: Tracer | None = None, sinks: Sequence[Sink] = (), **keys: Any) -> Desk:
    """A desk under a policy of three rungs that begins at the lowest; `keys` are of its policy."""
    backend = script if isinstance(script, ScriptedBackend) else ScriptedBackend(script)
    policy = policy_from({"version": 1, "app": "test", "dial": 0.5, "ladder": LADDER, **keys})
    kept = Kept()
    governor = Governor(policy, backend=backend, ledger=open_ledger("memory://"), sinks=[kept, *sinks], tracer=tracer)
    return Desk(governor, GovernedChat(governor=governor), backend, kept)


def one_node(function: Any, state: Any = State, name: str = "ask", **options: Any) -> StateGraph[Any, Any, Any, Any]:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(state)
    builder.add_node(name, function, **options)
    return builder.add_edge(START, name).add_edge(name, END)


def reply(text: str, **fields: Any) -> Reply:
    return Reply(text=text, usage=SPENT, seconds=0.01, **fields)


def named(call: Call) -> Reply:
    """A reply that names the rung that gave it."""
    return reply(call.rung.id)


def by_rung(**answers: str) -> Callable[[Call], Reply]:
    """What each rung answers; without one, its name."""
    return lambda call: reply(answers.get(call.rung.id, call.rung.id))


def pinned(**rungs: str) -> list[dict[str, Any]]:
    """Policy rules that hold each node on one rung."""
    return [{"match": {"node": node}, "ladder": [rung]} for node, rung in rungs.items()]
