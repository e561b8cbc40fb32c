"""Whatever LangGraph takes as a node can be governed, and is called with what LangGraph gives it."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.graph import END, START
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, StreamWriter

import governor
from governor_langgraph import node
from governor_langgraph.graph import GovernedStateGraph, govern
from tests.governor_langgraph.desk import Desk, State, desk, named, one_node, pinned, reply

HOW = ("decorator", "govern", "GovernedStateGraph")


def question(state: Any) -> Any:
    return state["question"]


class Seen(TypedDict, total=False):
    question: str
    seen: Any


def graph_of(at: Desk, function: Any, how: str, state: Any = State, **options: Any) -> Any:
    """A graph whose node `ask` is the function, governed in one of the three ways."""
    compiled = {key: options.pop(key) for key in ("store", "cache", "checkpointer") if key in options}
    if how == "decorator":
        return one_node(node(at.governor)(function), state, **options).compile(**compiled)
    if how == "govern":
        return govern(one_node(function, state, **options).compile(**compiled), at.governor)
    builder = GovernedStateGraph(state, policy=at.governor)
    builder.add_node("ask", function, **options).add_edge(START, "ask").add_edge("ask", END)
    return builder.compile(**compiled)


def at_high() -> Desk:
    return desk(named, steps=pinned(ask="high"))


@pytest.mark.parametrize("how", HOW)
def test_a_node_gets_config_runtime_writer_and_store(how: str) -> None:
    at, store = at_high(), InMemoryStore()
    store.put(("a",), "key", {"value": 7})

    def ask(
        state: Any, config: RunnableConfig, *, runtime: Runtime[Any], writer: StreamWriter, store: BaseStore
    ) -> Seen:
        writer({"progress": 1})
        item = store.get(("a",), "key")
        assert item is not None
        assert runtime.store is store
        said = at.chat.invoke(state["question"], config).content
        return {"seen": (config.get("configurable", {})["tenant"], item.value["value"], said)}

    graph = graph_of(at, ask, how, Seen, store=store)
    chosen = {"configurable": {"tenant": "acme"}}
    chunks = list(graph.stream({"question": "q"}, chosen, stream_mode=["custom", "updates"]))
    assert chunks == [("custom", {"progress": 1}), ("updates", {"ask": {"seen": ("acme", 7, "high")}})]
    assert [one.rung for one in at.kept.nodes] == ["high"]


@pytest.mark.parametrize("how", HOW)
async def test_an_async_node_gets_them_too(how: str) -> None:
    at = at_high()

    async def ask(state: Any, config: RunnableConfig, runtime: Runtime[Any], writer: StreamWriter) -> Seen:
        writer("begun")
        return {"seen": ((await at.chat.ainvoke("q", config)).content, runtime.execution_info is not None)}

    graph = graph_of(at, ask, how, Seen)
    chunks = [chunk async for chunk in graph.astream({"question": "q"}, stream_mode=["custom", "updates"])]
    assert chunks == [("custom", "begun"), ("updates", {"ask": {"seen": ("high", True)}})]


@pytest.mark.parametrize("how", HOW)
def test_callable_objects_and_partials_are_nodes(how: str) -> None:
    at = at_high()

    class Asks:
        def __call__(self, state: Seen) -> Seen:
            return {"seen": at.chat.invoke("q").content}

    def asks(prefix: str, state: Any) -> Seen:
        return {"seen": prefix + str(at.chat.invoke("q").content)}

    assert graph_of(at, Asks(), how, Seen).invoke({})["seen"] == "high"
    assert graph_of(at, functools.partial(asks, "on "), how, Seen).invoke({})["seen"] == "on high"
    assert [one.rung for one in at.kept.nodes] == ["high", "high"]


@pytest.mark.parametrize("how", HOW)
async def test_async_callable_objects_partials_and_methods_are_nodes(how: str) -> None:
    at = at_high()

    class Asks:
        async def __call__(self, state: Seen) -> Seen:
            return {"seen": (await at.chat.ainvoke("q")).content}

        async def method(self, state: Seen) -> Seen:
            return await self(state)

    async def asks(prefix: str, state: Any) -> Seen:
        return {"seen": prefix + str((await at.chat.ainvoke("q")).content)}

    for function, wanted in ((Asks(), "high"), (Asks().method, "high"), (functools.partial(asks, "on "), "on high")):
        assert (await graph_of(at, function, how, Seen).ainvoke({}))["seen"] == wanted
    assert [one.rung for one in at.kept.nodes] == ["high"] * 3


@pytest.mark.parametrize("how", HOW)
def test_runnables_are_nodes(how: str) -> None:
    at = at_high()
    chain: Any = RunnableLambda(question) | at.chat | (lambda said: {"seen": said.content})
    assert graph_of(at, chain, how, Seen).invoke({"question": "q"})["seen"] == "high"
    assert asyncio.run(graph_of(at, chain, how, Seen).ainvoke({"question": "q"}))["seen"] == "high"
    assert [one.rung for one in at.kept.nodes] == ["high", "high"]


@pytest.mark.parametrize("how", HOW)
def test_a_runnable_with_both_colours_takes_the_one_that_is_asked(how: str) -> None:
    at = at_high()

    async def awaited(state: Any) -> Any:
        return {"seen": "async"}

    both: Any = RunnableLambda(lambda state: {"seen": "sync"}, afunc=awaited)
    assert graph_of(at, both, how, Seen).invoke({})["seen"] == "sync"
    assert asyncio.run(graph_of(at, both, how, Seen).ainvoke({}))["seen"] == "async"


class Narrow(TypedDict):
    question: str


@pytest.mark.parametrize("how", HOW)
def test_the_type_hint_of_a_node_is_still_its_input_schema(how: str) -> None:
    at, seen = at_high(), []

    def ask(state: Narrow) -> State:
        seen.append(dict(state))
        return {"answer": str(at.chat.invoke("q").content)}

    graph_of(at, ask, how).invoke({"question": "q", "log": ["not for the node"]})
    assert seen == [{"question": "q"}]


def test_a_function_keeps_its_name_and_stays_callable_outside_of_a_graph() -> None:
    at = at_high()

    @node(at.governor)
    def ask(state: Any) -> State:
        """Asks."""
        return {"answer": str(at.chat.invoke(state["question"]).content)}

    assert (ask.__name__, ask.__doc__) == ("ask", "Asks.")
    assert ask({"question": "q"}) == {"answer": "low"}  # outside of a graph its name is unknown: the policy's own terms
    assert [one.node for one in at.kept.nodes] == ["default"]


@pytest.mark.parametrize("how", HOW)
def test_a_retry_policy_runs_the_node_again_as_a_new_step(how: str) -> None:
    at, tries = at_high(), []

    def ask(state: Any) -> State:
        tries.append(at.chat.invoke("q").content)
        if len(tries) == 1:
            raise ConnectionError("the node's own")
        return {"answer": str(tries[-1])}

    retry = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False)
    assert graph_of(at, ask, how, retry_policy=retry).invoke({})["answer"] == "high"
    assert tries == ["high", "high"]
    # the first was left by the node's own error: its call was booked and recorded, the step itself has no outcome
    assert (len(at.kept.nodes), len(at.kept.parts)) == (1, 2)
    assert len({one.parent for one in at.kept.parts}) == 2


@pytest.mark.parametrize("how", HOW)
def test_an_error_handler_takes_over_what_the_node_raised(how: str) -> None:
    at = desk(named)

    def ask(state: Any) -> State:
        at.chat.invoke("q")
        raise KeyError("the node's own")

    def mend(state: Any, error: NodeError) -> Command[Any]:
        return Command(update={"answer": f"mended {type(error.error).__name__}"}, goto=END)

    assert graph_of(at, ask, how, error_handler=mend).invoke({})["answer"] == "mended KeyError"


@pytest.mark.parametrize("how", HOW)
def test_a_cached_node_is_neither_run_nor_recorded_again(how: str) -> None:
    at = at_high()
    graph = graph_of(
        at,
        lambda state: {"answer": at.chat.invoke("q").content},
        how,
        cache_policy=CachePolicy(),
        cache=InMemoryCache(),
    )
    assert [graph.invoke({"question": "q"})["answer"] for _ in range(2)] == ["high", "high"]
    assert (len(at.backend.calls), len(at.kept.nodes)) == (1, 1)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("limit", [0.1, timedelta(seconds=0.1)])
async def test_a_nodes_own_timeout_ends_it(how: str, limit: Any) -> None:
    at = at_high()

    async def ask(state: Any) -> State:
        await at.chat.ainvoke("q")
        await asyncio.sleep(30)
        return {"answer": "never"}

    with pytest.raises(NodeTimeoutError):
        await graph_of(at, ask, how, timeout=limit).ainvoke({})
    assert len(at.kept.parts) == 1


def test_a_compiled_graph_that_is_governed_stays_as_it_was() -> None:
    at = at_high()
    graph = one_node(lambda state: {"answer": at.chat.invoke("q").content}).compile()
    assert govern(graph, at.governor).invoke({})["answer"] == "high"
    assert len(at.kept.nodes) == 1
    graph.invoke({})
    assert [bool(one.parent) for one in at.kept.outcomes] == [True, False, False]  # the model alone, under its rule
    assert len(at.kept.parts) == 1


def test_govern_node_and_graph_take_a_policy_a_file_and_the_name_of_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\napp: filed\nladder: [{id: low, model: m/small}]\n")
    graph = one_node(lambda state: {"answer": "fixed"}).compile()
    assert govern(graph, path).governor.policy.app == "filed"
    assert govern(graph, str(path)).governor.policy.app == "filed"
    assert govern(graph, "balanced").governor.policy.ladder
    assert govern(graph, at_high().governor.policy).invoke({})["answer"] == "fixed"


def test_the_package_offers_the_decorator_by_its_own_name() -> None:
    assert governor.node is node


def test_without_the_extra_the_name_says_which_one_to_install() -> None:
    code = "import sys; sys.modules['langgraph'] = None; import governor; governor.node"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    wanted = "governor.node needs the extra 'langgraph': pip install 'compute-governor[langgraph]'"
    assert done.stderr.rstrip().endswith(f"MissingExtraError: {wanted}")


@pytest.mark.parametrize("how", HOW)
def test_a_checkpointer_keeps_only_the_accepted_update(how: str) -> None:
    at = desk([reply("wrong"), reply("right")], verify={"regex": "right"})
    graph = graph_of(
        at, lambda state: {"answer": at.chat.invoke("q").content, "log": [1]}, how, checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "t"}}
    graph.invoke({"question": "What is 12 * 17?"}, config)
    states = [state.values for state in graph.get_state_history(config)]
    assert [(one.get("answer"), one.get("log")) for one in states] == [("right", [1]), (None, []), (None, [])]
