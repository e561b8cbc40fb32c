"""A governed run in a process of its own, which kills itself where it is told to.

`live(folder, place, visit)` goes on with what the folder holds, and writes the state there where it comes to the end.
The place names a call of KILLS, of which the visit-th dies: before it is made, or, with "after ", once it is made.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.prebuilt import ToolNode

from governor.ledger import open_ledger
from governor.ledger.book import BookLedger
from governor.records import Call, Reply
from governor.testing import ScriptedBackend
from governor_langgraph.stretch import Stretch
from governor_langgraph.tools import remembered
from governor_langgraph.trail import Trail
from tests.governor_langgraph.rewinding import TO_PLAN, Desk, State, chain, check, script

KILLS: dict[str, tuple[type[Any], str]] = {
    "a call": (ScriptedBackend, "call"),
    "a settlement": (BookLedger, "settle"),
    "a note of the trail": (Trail, "change"),
    "the note of a rewind": (Trail, "went"),
    "a rewind": (Stretch, "again"),
    "a checkpoint": (SqliteSaver, "put"),
    "the writes of a task": (SqliteSaver, "put_writes"),
}
THREAD: Any = {"configurable": {"thread_id": "one"}}
APP = {"app": {"usd": 1, "per": "total"}}


def mortal(place: str, visit: int) -> None:
    """Makes the process die at the visit-th call of a place."""
    where, after = place.removeprefix("after "), place.startswith("after ")
    kind, name = KILLS[where]
    made: Callable[..., Any] = getattr(kind, name)
    visits = iter(range(1, 1 << 30))

    def dying(*args: Any, **kwargs: Any) -> Any:
        here = next(visits)
        if here == visit and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = made(*args, **kwargs)
        if here == visit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(kind, name, dying)


def billing(folder: Path) -> Callable[[Call], Reply]:
    """A provider that writes a bill for every call it answers."""
    answer = script({"plan": "mid"})

    def billed(call: Call) -> Reply:
        reply = answer(call)
        with (folder / "bills").open("a") as bills:
            bills.write(f"{call.rung.price.micros(reply.usage)}\n")
        return reply

    return billed


def live(folder: Path, place: str = "", visit: int = 1) -> None:
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    backend = ScriptedBackend(billing(folder))
    desk = Desk.made([TO_PLAN], ledger=ledger, backend=backend, budget=APP)

    def mail(to: str) -> str:
        """Send a letter."""
        with (folder / "letters").open("a") as letters:
            letters.write(f"{to}\n")
        return f"sent to {to}"

    def write(state: Any) -> State:
        number = len(state["messages"])
        return {"messages": [AIMessage("", tool_calls=[{"name": "mail", "args": {"to": "ann"}, "id": f"c{number}"}])]}

    tool = StructuredTool.from_function(mail, name="mail", description="Send a letter.")
    graph = chain(
        ("plan", desk.node("plan")),
        ("write", write),
        ("mail", ToolNode([tool], wrap_tool_call=remembered(desk.governor))),
        ("solve", desk.node("solve")),
        ("check", check),
    )
    with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
        governed = desk.govern(graph.compile(checkpointer=saver))
        begun = saver.get_tuple(THREAD) is not None
        if place:
            mortal(place, visit)
        state = governed.invoke(None if begun else {"messages": [], "log": []}, THREAD, durability="sync")
    told = [[type(one).__name__, one.text] for one in state["messages"]]
    (folder / "state").write_text(json.dumps({"log": state["log"], "plan": state["plan"], "messages": told}))
