"""Graphs that plan, solve and check on scripted models: what the tests of rewinds begin with.

A plan is good from the rung that `Desk.needs` names on. A check finds a bad plan, and a good one it accepts.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import TypedDict

from governor import Governor, Outcome, Step, Usage
from governor.errors import CheckFailedError
from governor.policy import policy_from
from governor.protocols import Ledger, Tracer
from governor.records import Attempt, Call, Reply, text_of
from governor.telemetry.spans import OtelTracer
from governor.testing import ScriptedBackend
from governor_langgraph import GovernedChat
from governor_langgraph.graph import GovernedGraph, govern

LADDER = [
    {"id": "low", "model": "m/low", "answer_tokens": 50, "price": {"input": 1, "output": 2}},
    {"id": "mid", "model": "m/mid", "answer_tokens": 50, "price": {"input": 2, "output": 4}},
    {"id": "high", "model": "m/high", "answer_tokens": 50, "price": {"input": 4, "output": 8}},
]
RUNGS = [rung["id"] for rung in LADDER]

TO_PLAN = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "rung": 1, "max": 2}}}
BLAME = {"match": {"node": "check"}, "on_fail": {"blame": "auto"}}


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    plan: str
    answer: str
    log: Annotated[list[str], operator.add]


@dataclass(frozen=True, slots=True)
class Kept:
    """A sink that keeps the outcomes it is given."""

    outcomes: list[Outcome] = field(default_factory=list)

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        if isinstance(record, Outcome):
            self.outcomes.append(record)

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def micros(self) -> int:
        """What all model calls came to: those of steps that are part of none are told by their parts."""
        return sum(one.spent.micros for one in self.outcomes if one.parent)


def script(needs: Mapping[str, str]) -> Callable[[Call], Reply]:
    """Answers `WHAT good` where the rung is at least what WHAT, the prompt's first word, needs; else `WHAT bad`."""

    def answer(call: Call) -> Reply:
        what = re.findall(r"\w+", text_of(call.messages[-1]))[0]
        good = RUNGS.index(call.rung.id) >= RUNGS.index(needs.get(what, "low"))
        text = f"{what} {'good' if good else 'bad'} {call.rung.id}"
        return Reply(text=text, usage=Usage(10, 5), model=call.rung.model)

    return answer


def policy(rules: Sequence[Mapping[str, Any]] = (TO_PLAN,), **more: Any) -> dict[str, Any]:
    """A policy that begins every node on its lowest rung."""
    fixed = {"version": 1, "app": "t", "dial": 1.0, "ladder": LADDER, "ledger": "memory://"}
    return {**fixed, "steps": list(rules), **more}


@dataclass(frozen=True, slots=True)
class Desk:
    """A governor on scripted answers, the model of its nodes, and what was asked and recorded."""

    governor: Governor
    backend: ScriptedBackend
    kept: Kept
    chat: GovernedChat

    @classmethod
    def made(
        cls,
        rules: Sequence[Mapping[str, Any]] = (TO_PLAN,),
        *,
        needs: Mapping[str, str] | None = None,
        ledger: Ledger | None = None,
        tracer: Tracer | None = None,
        backend: ScriptedBackend | None = None,
        **more: Any,
    ) -> Desk:
        kept = Kept()
        backend = backend or ScriptedBackend(script({"plan": "mid"} if needs is None else needs))
        given = {"backend": backend, "ledger": ledger, "sinks": [kept], "tracer": tracer}
        governor = Governor(policy_from(policy(rules, **more)), **given)  # type: ignore[arg-type]
        return cls(governor, backend, kept, GovernedChat(governor=governor))

    @property
    def asked(self) -> list[str]:
        """What was asked of which rung, in order."""
        return [f"{text_of(call.messages[-1]).split()[0]} {call.rung.id}" for call in self.backend.calls]

    def ask(self, what: str) -> str:
        return str(self.chat.invoke([HumanMessage(what)]).text)

    def node(self, name: str) -> Any:
        """A node that asks its model, and writes what it said to the log, the messages and the channel of its name."""

        def run(state: State) -> State:
            said = self.chat.invoke([HumanMessage(f"{name} for {state.get('plan', 'nothing')}")])
            update = {"messages": [said], "log": [f"{name}: {said.text}"]}
            return {**update, name: said.text} if name in ("plan", "answer") else update  # type: ignore[typeddict-item,return-value]

        return run

    def anode(self, name: str) -> Any:
        async def run(state: State) -> State:
            said = await self.chat.ainvoke([HumanMessage(f"{name} for {state.get('plan', 'nothing')}")])
            update = {"messages": [said], "log": [f"{name}: {said.text}"]}
            return {**update, name: said.text} if name in ("plan", "answer") else update  # type: ignore[typeddict-item,return-value]

        return run

    def govern(self, graph: CompiledStateGraph[Any, Any, Any, Any]) -> GovernedGraph:
        return govern(graph, self.governor)


def check(state: Any) -> State:
    """Finds a bad plan; asks no model."""
    if "bad" in state["plan"]:
        raise CheckFailedError(f"the {state['plan']} does not hold")
    return {"log": ["check: fine"]}


def chain(*nodes: tuple[str, Any]) -> StateGraph[Any, Any, Any, Any]:
    """A graph of nodes one after the other."""
    builder = StateGraph(State)
    for name, run in nodes:
        builder.add_node(name, run)
    for name, following in zip([START, *(n for n, _ in nodes)], [*(n for n, _ in nodes), END], strict=True):
        builder.add_edge(name, following)
    return builder


def planner(desk: Desk, *, asynchronous: bool = False, last: Any = check, **compiled: Any) -> GovernedGraph:
    """plan, solve, check."""
    node = desk.anode if asynchronous else desk.node
    return desk.govern(chain(("plan", node("plan")), ("solve", node("solve")), ("check", last)).compile(**compiled))


GO: State = {"messages": [HumanMessage("go", id="first")], "log": []}


def told(state: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The log and the texts of the messages."""
    return state["log"], [message.text for message in state["messages"]]


RAISED = (
    ["plan: plan good mid", "solve: solve good low", "check: fine"],
    ["go", "plan good mid", "solve good low"],
)
"""What is told where the plan was redone on the rung mid: nothing of the first."""


def branches(graph: GovernedGraph, config: Any) -> list[str]:
    """The branches that a thread's history tells, the first first."""
    names = [str((one.metadata or {}).get("governor_branch", "")) for one in graph.get_state_history(config)]
    return list(dict.fromkeys(reversed(names)))


def spans() -> tuple[InMemorySpanExporter, OtelTracer]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, OtelTracer(provider)
