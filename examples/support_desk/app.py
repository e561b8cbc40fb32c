"""A support desk: classify -> retrieve -> draft -> check -> person, governed by policy.yaml beside it.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/support_desk/app.py
"""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START
from langgraph.types import Command, interrupt

from governor import Governor
from governor_langgraph import CheckFailedError, GovernedChat, GovernedStateGraph, NoAnswerError

FOLDER = Path(__file__).parent
CLASS = {
    "title": "Class",
    "type": "object",
    "properties": {"category": {"enum": ["billing", "technical", "account"]}},
    "required": ["category"],
}
SHOWN = (  # so small a model follows examples better than instructions
    HumanMessage("I want my money back."),
    AIMessage('{"category": "billing"}'),
    HumanMessage("The screen stays black after the update."),
    AIMessage('{"category": "technical"}'),
    HumanMessage("My login does not work."),
    AIMessage('{"category": "account"}'),
)


class Ticket(TypedDict, total=False):
    """What flows through the graph; `article` is what the knowledge base holds on the ticket."""

    id: str
    text: str
    category: str
    article: dict[str, Any] | None
    reply: str
    decision: str


def read(name: str) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def build_graph(governor: Governor) -> Any:
    """The desk. Only `classify` and `draft` ask a model; a wrong class is noticed at the check."""
    chat, articles = GovernedChat(governor=governor), read("articles.jsonl")
    classes = chat.with_structured_output(CLASS)

    def classify(state: Ticket) -> Ticket:
        return {"category": classes.invoke([*SHOWN, HumanMessage(state.get("text", ""))])["category"]}

    def retrieve(state: Ticket) -> Ticket:
        asked = words(state.get("text", ""))
        shelf = [one for one in articles if one["category"] == state.get("category")]
        best = max(shelf, key=lambda one: len(asked & set(one["about"])), default=None)
        return {"article": best if best and asked & set(best["about"]) else None}

    def draft(state: Ticket) -> Ticket:
        opening = chat.invoke(f"Thank a customer in one short sentence for this message: {state.get('text')}").content
        article = state.get("article") or {}
        return {"reply": f"{opening}\n\n{article.get('text', '')}".strip()}

    def check(state: Ticket) -> Ticket:
        if not state.get("article"):
            raise CheckFailedError(f"nothing about this ticket is filed under {state.get('category')}")
        return {}

    def person(state: Ticket) -> Ticket:
        if state.get("category") != "billing":
            return {"decision": "sent"}
        return {"decision": interrupt({"ticket": state.get("id"), "reply": state.get("reply")})}

    graph = GovernedStateGraph(Ticket, policy=governor)
    steps = (classify, retrieve, draft, check, person)
    names = [START, *(step.__name__ for step in steps), END]
    for step in steps:
        graph.add_node(step.__name__, step)
    for start, end in pairwise(names):
        graph.add_edge(start, end)
    return graph.compile(checkpointer=InMemorySaver())


def handle(graph: Any, ticket: dict[str, Any], decide: Callable[[Any], str]) -> dict[str, Any]:
    """Takes one ticket to its end. What can't be answered within policy and budget goes to a person unanswered."""
    config = {"configurable": {"thread_id": ticket["id"]}}
    try:
        done: dict[str, Any] = graph.invoke(ticket, config)
        while asked := done.get("__interrupt__"):
            done = graph.invoke(Command(resume=decide(asked[0].value)), config)
    except (CheckFailedError, NoAnswerError) as failed:
        return {"id": ticket["id"], "decision": f"to a person: {failed}"}
    return done


def main() -> None:
    """Work through the tickets; whoever approves refunds says yes here."""
    with Governor.from_policy(FOLDER / "policy.yaml") as governor:
        graph, total = build_graph(governor), 0
        for ticket in read("tickets.jsonl"):
            done = handle(graph, ticket, lambda asked: f"approved {asked['ticket']}")
            spent = governor.ledger.balance(f"session:desk-example/{ticket['id']}").spent.tokens
            history = graph.get_state_history({"configurable": {"thread_id": ticket["id"]}})
            branches = {one.metadata.get("governor_branch") for one in history} - {None}
            print(f"{ticket['id']}: {done['decision']} ({spent} tokens, {len(branches)} rewinds)")
            total += spent
        print(f"{total} tokens of today's 60000")


if __name__ == "__main__":
    main()
