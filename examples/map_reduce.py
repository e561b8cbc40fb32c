"""Map-reduce with fan-out: every Send is a governed step of its own, and all of them share the thread's budget.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/map_reduce.py
"""

import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START
from langgraph.types import Send

from governor import Governor
from governor_langgraph import GovernedChat, GovernedStateGraph

POLICY = Path(__file__).parent / "graphs.yaml"
REVIEWS = ("The soup was cold and the waiter rude.", "Lovely place, we will come again!", "Too loud to talk.")
MOOD = {
    "title": "Mood",
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}},
    "required": ["mood"],
}


class State(TypedDict, total=False):
    """What flows through the graph; the branches' moods are gathered in one list."""

    reviews: tuple[str, ...]
    moods: Annotated[list[tuple[str, str]], operator.add]
    summary: str


class Review(TypedDict):
    """What a branch is sent."""

    text: str


def build_graph(governor: Governor) -> Any:
    """One `judge` per review, side by side, then `count`, which asks no model and is left as it is."""
    chat = GovernedChat(governor=governor).with_structured_output(MOOD)

    def fan_out(state: State) -> list[Send]:
        return [Send("judge", Review(text=review)) for review in state.get("reviews", ())]

    def judge(state: Review) -> State:
        found = chat.invoke(f"Is this review good or bad? {state['text']}")
        return {"moods": [(state["text"], found["mood"])]}

    def count(state: State) -> State:
        moods = [mood for _, mood in state.get("moods", [])]
        return {"summary": f"{len(moods)} reviews: {moods.count('good')} good, {moods.count('bad')} bad"}

    graph = GovernedStateGraph(State, policy=governor)
    graph.add_node("judge", judge)
    graph.add_node("count", count)
    graph.add_conditional_edges(START, fan_out, ["judge"])
    graph.add_edge("judge", "count")
    graph.add_edge("count", END)
    return graph.compile()


def main() -> None:
    """Judge all reviews at once."""
    with Governor.from_policy(POLICY) as governor:
        final = build_graph(governor).invoke({"reviews": REVIEWS}, {"configurable": {"thread_id": "today"}})
        spent = governor.ledger.balance("session:graphs/today").spent.tokens
    for review, mood in final["moods"]:
        print(f"{mood:4} {review}")
    print(f"{final['summary']}, {spent} tokens of 20000")
    assert len(final["moods"]) == len(REVIEWS)
    assert 0 < spent <= 20_000


if __name__ == "__main__":
    main()
