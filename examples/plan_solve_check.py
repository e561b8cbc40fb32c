"""A plan that turns out too short at the check: the run goes back to the plan, on a higher rung, and forth again.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/plan_solve_check.py
"""

import re
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START

from governor import Governor
from governor_langgraph import CheckFailedError, GovernedChat, GovernedStateGraph

POLICY = Path(__file__).parent / "graphs.yaml"
THINGS = {"type": "array", "items": {"type": "string", "maxLength": 15}, "minItems": 5, "maxItems": 5}
LIST = {"title": "List", "type": "object", "properties": {"things": THINGS}, "required": ["things"]}


class State(TypedDict, total=False):
    """What flows through the graph."""

    trip: str
    things: list[str]
    advice: str


def build_graph(governor: Governor) -> Any:
    """Plan -> solve -> check. Every node is governed by the policy's rule for its name."""
    chat = GovernedChat(governor=governor)
    lists = chat.bind(response_format={"type": "json_schema", "json_schema": {"name": "list", "schema": LIST}})

    def plan(state: State) -> State:
        said = str(lists.invoke(f"Which five things do I need for {state.get('trip')}?").content)
        return {"things": re.findall(r'"([^"]+)"', said.partition("[")[2])}  # of a list that was cut off: what is there

    def solve(state: State) -> State:
        things = ", ".join(state.get("things", []))
        return {"advice": str(chat.invoke(f"Say in one sentence how to pack: {things}").content)}

    def check(state: State) -> State:
        if len(state.get("things", [])) < 5:  # nothing before this node knows it
            raise CheckFailedError(f"only {len(state.get('things', []))} things were planned")
        return {}

    graph = GovernedStateGraph(State, policy=governor)
    for step in (plan, solve, check):
        graph.add_node(step.__name__, step)
    for start, end in ((START, "plan"), ("plan", "solve"), ("solve", "check"), ("check", END)):
        graph.add_edge(start, end)
    return graph.compile(checkpointer=InMemorySaver())


def main() -> None:
    """Plan one trip, then print on which branches the run was, and what it came to."""
    config = {"configurable": {"thread_id": "trip-1"}}
    with Governor.from_policy(POLICY) as governor:
        graph = build_graph(governor)
        final = graph.invoke({"trip": "a day at the sea"}, config)
        branches = {one.metadata.get("governor_branch", "first") for one in graph.get_state_history(config)}
    print(f"branches: {', '.join(sorted(branches, reverse=True))}")
    print(f"advice: {final['advice'][:80]}")
    print(f"planned {len(final['things'])} things: {', '.join(final['things'])}")
    assert len(branches) > 1, "ten tokens have no room for five things, so the run must have gone back"


if __name__ == "__main__":
    main()
