"""The demo's LangGraph graph: plan -> solve -> check, with every solve step governed.

`plan` frames the task as a step of the graph, `solve` is the governed model call (verification and
backtracking happen inside it), `check` reads the verdict and decides whether a person must look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from governor.errors import MissingExtraError
from governor.records import Outcome, Step

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Solve = Callable[[Step], Outcome]


class TaskState(TypedDict):
    """What flows through the graph for one task; each node fills in what follows."""

    task: Step
    step: NotRequired[Step]
    outcome: NotRequired[Outcome]
    trusted: NotRequired[bool]


class Planned(TypedDict):
    """What `plan` adds."""

    step: Step


class Solved(TypedDict):
    """What `solve` adds."""

    outcome: Outcome


class Checked(TypedDict):
    """What `check` adds: whether the answer can be used without a person's look."""

    trusted: bool


def build_graph(solve: Solve) -> CompiledStateGraph[TaskState, Any, TaskState, TaskState]:
    """Compile the graph around a way to solve steps. Raises MissingExtraError without langgraph."""
    try:
        from langgraph.graph import END, START, StateGraph
    except ImportError:
        raise MissingExtraError("governor demo", "langgraph") from None

    def plan(state: TaskState) -> Planned:
        task = state["task"]
        return {"step": Step(id=task.id, messages=task.messages, node=task.node, checks=task.checks, seed=task.seed)}

    def answer(state: Planned) -> Solved:
        return {"outcome": solve(state["step"])}

    def check(state: Solved) -> Checked:
        return {"trusted": state["outcome"].status == "accepted"}

    graph = StateGraph(TaskState)
    graph.add_node("plan", plan)
    graph.add_node("solve", answer)
    graph.add_node("check", check)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "solve")
    graph.add_edge("solve", "check")
    graph.add_edge("check", END)
    return graph.compile()
