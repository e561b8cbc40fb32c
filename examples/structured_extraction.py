"""Structured output inside a governed node: the schema constrains the model, and verifies what the node returns.

pip install -e '.[langgraph,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/structured_extraction.py
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from governor import Governor
from governor_langgraph import GovernedChat, node

POLICY = Path(__file__).parent / "graphs.yaml"
MAIL = "Hello, I am Priya Nair from Lisbon. Please send me 4 lamps, order 4471. Thank you!"


class Order(BaseModel):
    """What a mail asks for."""

    name: Annotated[str, Field(max_length=30)]
    city: Annotated[str, Field(max_length=20)]
    thing: Literal["chairs", "lamps", "desks"]
    quantity: Annotated[int, Field(ge=1, le=99)]


class State(TypedDict, total=False):
    """What flows through the graph."""

    mail: str
    order: Order


def build_graph(governor: Governor) -> Any:
    """One governed node in a plain StateGraph."""
    orders = GovernedChat(governor=governor).with_structured_output(Order)

    @node(governor, ask=lambda state: state["mail"])
    def extract(state: State) -> State:
        return {"order": orders.invoke(f"{state.get('mail')}\n\nWhat is ordered?")}

    graph = StateGraph(State)
    graph.add_node("extract", extract)
    graph.add_edge(START, "extract")
    graph.add_edge("extract", END)
    return graph.compile()


def main() -> None:
    """Read one mail."""
    with Governor.from_policy(POLICY) as governor:
        order = build_graph(governor).invoke({"mail": MAIL})["order"]
    assert isinstance(order, Order)
    print(f"order: {order}")


if __name__ == "__main__":
    main()
