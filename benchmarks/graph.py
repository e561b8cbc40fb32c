"""What governing a graph costs: nodes of a bare LangGraph against the same nodes governed, taking turns in one process.

    python -m benchmarks.graph [--rounds 200] [--json]

A chain of 20 nodes is run whole; the figures are processor milliseconds a node. `pure` nodes ask no model, `model`
nodes ask one that answers at once: bare through a LangChain chat model of the same answer, governed through
GovernedChat. So the whole of a governed step is measured there (forecast, plan, reservation, call, record), not only
the wrapper. `rewinds` adds an on_fail rule: the run keeps its trail, and without a checkpointer checkpoints in memory.
With `saver` both graphs have an InMemorySaver. Exit status 1 if the wrapper (`pure`) costs more than 0.5 ms a node.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from governor import Governor, Reply, Usage
from governor.policy import policy_from
from governor.testing import ScriptedBackend
from governor_langgraph import GovernedChat
from governor_langgraph.graph import govern

NODES = 20
WRAPPER_MS = 0.5
ANSWER = Reply(text="good", usage=Usage(10, 5))
PROMPT = [HumanMessage("Which of the two is larger?")]


class State(TypedDict, total=False):
    """What the nodes count."""

    count: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The same graph bare and governed."""

    name: str
    bare: Callable[[], object]
    governed: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians, in processor milliseconds a node."""

    name: str
    bare: float
    governed: float

    @property
    def difference(self) -> float:
        return self.governed - self.bare

    @property
    def ratio(self) -> float:
        return self.governed / self.bare


def chain(node: Any) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    names = [f"node{number}" for number in range(NODES)]
    for name in names:
        builder.add_node(name, node)
    for name, following in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(name, following)
    return builder


def pure(state: Any) -> State:
    return {"count": state["count"] + 1}


def asking(model: Any) -> Callable[[State], State]:
    def ask(state: Any) -> State:
        model.invoke(PROMPT)
        return {"count": state["count"] + 1}

    return ask


def governor(*, rewinds: bool) -> Governor:
    rules: Sequence[Any] = [{"match": {"node": "node19"}, "on_fail": {"blame": "auto"}}] if rewinds else []
    ladder = [{"id": "low", "model": "m/low", "answer_tokens": 50, "price": {"input": 1, "output": 2}}]
    policy = {"version": 1, "app": "benchmark", "ladder": ladder, "steps": rules}
    return Governor(policy_from(policy), backend=ScriptedBackend(lambda _: ANSWER))


def pair(name: str, *, model: bool = False, rewinds: bool = False, saver: bool = False) -> Pair:
    governing = governor(rewinds=rewinds)
    bare_node = asking(FakeListChatModel(responses=["good"])) if model else pure
    node = asking(GovernedChat(governor=governing)) if model else pure
    threads = iter(range(1 << 30))
    bare = chain(bare_node).compile(checkpointer=InMemorySaver() if saver else None)
    governed = govern(chain(node).compile(checkpointer=InMemorySaver() if saver else None), governing)

    def run(graph: Any) -> Callable[[], object]:
        return lambda: graph.invoke({"count": 0}, {"configurable": {"thread_id": f"{name}{next(threads)}"}})

    return Pair(name, run(bare), run(governed))


def timed(run: Callable[[], object]) -> float:
    """Processor milliseconds a node, of all threads: nothing here waits, and who else is running does not count."""
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3 / NODES


def measured(compared: Pair, rounds: int) -> Figures:
    """Medians of runs that take turns."""
    for _ in range(5):
        compared.bare()
        compared.governed()
    gc.collect()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            times[which].append(timed((compared.bare, compared.governed)[which]))
    return Figures(compared.name, statistics.median(times[0]), statistics.median(times[1]))


def measure(rounds: int) -> list[Figures]:
    pairs = (
        pair("pure"),
        pair("pure, saver", saver=True),
        pair("pure, rewinds", rewinds=True),
        pair("pure, rewinds, saver", rewinds=True, saver=True),
        pair("model", model=True),
        pair("model, rewinds, saver", model=True, rewinds=True, saver=True),
    )
    return [measured(one, rounds) for one in pairs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="runs of each graph (default 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    passed = all(one.difference <= WRAPPER_MS for one in found if one.name in ("pure", "pure, saver"))
    if arguments.json:
        rows = {one.name: {"bare_ms": one.bare, "governed_ms": one.governed, "ratio": one.ratio} for one in found}
        print(json.dumps({"nodes": NODES, "rounds": arguments.rounds, "rows": rows, "passed": passed}))
        return 0 if passed else 1
    print(f"{arguments.rounds} runs of {NODES} nodes each; medians, processor ms a node")
    print(f"{'':24}{'bare':>8}{'governed':>10}{'difference':>12}{'ratio':>8}")
    for one in found:
        print(f"{one.name:24}{one.bare:8.3f}{one.governed:10.3f}{one.difference:12.3f}{one.ratio:8.2f}")
    print(f"wrapper at most {WRAPPER_MS} ms a node: {'pass' if passed else 'FAIL'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
