"""A person approves what was written after a rewind: the interrupt and its answer belong to the new branch.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/human_approval.py
"""

from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START
from langgraph.types import Command, interrupt

from governor import Governor
from governor_langgraph import CheckFailedError, GovernedChat, GovernedStateGraph

POLICY = Path(__file__).parent / "graphs.yaml"
WORDS = 12


class State(TypedDict, total=False):
    """What flows through the graph."""

    topic: str
    text: str
    decision: str


def build_graph(governor: Governor) -> Any:
    """Draft -> review -> approve. A draft of a few words fails the review, and is written again on a higher rung."""
    chat = GovernedChat(governor=governor)

    def draft(state: State) -> State:
        return {"text": str(chat.invoke(f"Write a friendly paragraph about {state.get('topic')}.").content)}

    def review(state: State) -> State:
        words = len(state.get("text", "").split())
        if words < WORDS:
            raise CheckFailedError(f"{words} words are too few")
        return {}

    def approve(state: State) -> State:
        return {"decision": interrupt({"approve": state.get("text", "")[:60]})}

    graph = GovernedStateGraph(State, policy=governor)
    for step in (draft, review, approve):
        graph.add_node(step.__name__, step)
    for start, end in ((START, "draft"), ("draft", "review"), ("review", "approve"), ("approve", END)):
        graph.add_edge(start, end)
    return graph.compile(checkpointer=InMemorySaver())


def main() -> None:
    """Run to the interrupt, then go on with a person's answer."""
    config = {"configurable": {"thread_id": "letter-1"}}
    with Governor.from_policy(POLICY) as governor:
        graph = build_graph(governor)
        asked = graph.invoke({"topic": "our new bakery"}, config)
        branch = graph.get_state(config).metadata.get("governor_branch")
        print(f"a person is asked: {asked['__interrupt__'][0].value}")
        final = graph.invoke(Command(resume="yes"), config)
    print(f"on the branch: {branch}")
    print(f"decision: {final['decision']}, {len(final['text'].split())} words")
    assert branch, "ten tokens hold fewer than twelve words, so the run must have gone back"


if __name__ == "__main__":
    main()
