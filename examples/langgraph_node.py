"""A governed model call inside a LangGraph node; what could not be verified goes to a person.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/langgraph_node.py
"""

from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from governor import Governor

POLICY = Path(__file__).parent / "quickstart.yaml"


class State(TypedDict, total=False):
    """What flows through the graph."""

    question: str
    answer: str
    status: str


def build_graph(governor: Governor) -> CompiledStateGraph[State, Any, State, State]:
    """Solve -> end where the answer was verified, else solve -> person -> end."""

    def solve(state: State) -> State:
        outcome = governor.run(  # estimates, chooses a rung, calls, verifies and backtracks
            state.get("question", ""),
            node="solve",  # what the policy's `steps` match
            session="thread-1",  # what session budgets are summed under
            checks=({"choice": ["Paris", "London", "Rome"]},),
            seed=1,
        )
        return {"answer": outcome.answer, "status": outcome.status}

    def person(state: State) -> State:  # in life: an interrupt, a queue, a ticket
        return {"answer": f"(a person must look: {state.get('status')})"}

    def trusted(state: State) -> bool:
        return state.get("status") == "accepted"

    graph = StateGraph(State)
    graph.add_node("solve", solve)
    graph.add_node("person", person)
    graph.add_edge(START, "solve")
    graph.add_conditional_edges("solve", trusted, {True: END, False: "person"})
    graph.add_edge("person", END)
    return graph.compile()


def main() -> None:
    """Ask the graph one question."""
    with Governor.from_policy(POLICY) as governor:
        final = build_graph(governor).invoke({"question": "Which city is the capital of France?"})
    print(f"{final['status']}: {final['answer']}")


if __name__ == "__main__":
    main()
