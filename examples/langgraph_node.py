"""A governed model call inside a LangGraph node; what could not be verified goes to a person.

python examples/langgraph_node.py        (needs the extra langgraph)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph

from governor import Governor

POLICY = Path(__file__).parent / "quickstart.yaml"


class State(TypedDict, total=False):
    """What flows through the graph."""

    question: str
    answer: str
    status: str


def solve_with(governor: Governor) -> Callable[[State], State]:
    """The node: estimate, choose a rung, call, verify and backtrack all happen inside `run`."""

    def solve(state: State) -> State:
        outcome = governor.run(
            state["question"],
            node="solve",  # what the policy's `steps` match
            session="thread-1",  # what session budgets are summed under
            checks=({"choice": ["Paris", "London", "Rome"]},),
            seed=1,
        )
        return {"answer": outcome.answer, "status": outcome.status}

    return solve


def person(state: State) -> State:
    """In life: an interrupt, a queue, a ticket."""
    return {"answer": f"(a person must look: {state['status']})"}


def trusted(state: State) -> Literal["person", "__end__"]:
    """Only a verified answer leaves the graph by itself."""
    return END if state["status"] == "accepted" else "person"


def main() -> None:
    """Build the graph, ask one question."""
    with Governor.from_policy(POLICY) as governor:
        graph = StateGraph(State)
        graph.add_node("solve", solve_with(governor))
        graph.add_node("person", person)
        graph.add_edge(START, "solve")
        graph.add_conditional_edges("solve", trusted)
        graph.add_edge("person", END)
        final = graph.compile().invoke({"question": "Which city is the capital of France?"})
    print(f"{final['status']}: {final['answer']}")


if __name__ == "__main__":
    main()
