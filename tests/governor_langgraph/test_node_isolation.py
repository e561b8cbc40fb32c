"""Branches that run at the same time keep their own rungs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from governor.records import Call, Reply
from governor_langgraph import GovernedChat, node
from governor_langgraph.graph import GovernedStateGraph
from tests.governor_langgraph.desk import Desk, State, desk, named, pinned

NODES = {"n0": "low", "n1": "mid", "n2": "high"}


def meeting(number: int) -> Any:
    """A script whose calls wait for each other, so that they are under way at the same time."""
    barrier = threading.Barrier(number, timeout=20)

    def script(call: Call) -> Reply:
        barrier.wait()
        return named(call)

    return script


def fan(builder: StateGraph[Any, Any, Any, Any], functions: dict[str, Any]) -> StateGraph[Any, Any, Any, Any]:
    for name, function in functions.items():
        builder.add_node(name, function)
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder


def asking(at: Desk, name: str) -> Any:
    return lambda state: {"log": [(name, at.chat.invoke(name).content)]}


def test_threads_of_one_superstep_keep_their_rungs() -> None:
    at = desk(meeting(3), steps=pinned(**NODES))
    builder = GovernedStateGraph(State, policy=at.governor)
    graph = fan(builder, {name: asking(at, name) for name in NODES}).compile()
    assert sorted(graph.invoke({})["log"]) == sorted(NODES.items())
    assert {(one.node, one.rung) for one in at.kept.nodes} == set(NODES.items())


async def test_tasks_of_one_superstep_keep_their_rungs_and_await_in_between() -> None:
    at = desk(named, steps=pinned(**NODES))
    ready = asyncio.Barrier(3)

    def awaiting(name: str) -> Any:
        async def ask(state: Any) -> State:
            first = (await at.chat.ainvoke(name)).content
            await ready.wait()  # every branch has begun: a rung that leaked would show in the second call
            second = (await at.chat.ainvoke(name)).content
            return {"log": [(name, first, second)]}

        return ask

    builder = GovernedStateGraph(State, policy=at.governor)
    graph = fan(builder, {name: awaiting(name) for name in NODES}).compile()
    assert sorted((await graph.ainvoke({}))["log"]) == sorted((name, rung, rung) for name, rung in NODES.items())


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_ungoverned_node_beside_governed_ones_is_left_alone(way: str) -> None:
    at = desk(named, steps=pinned(governed="high", plain="mid"))
    foreign = FakeListChatModel(responses=["foreign"])

    @node(at.governor)
    def governed(state: Any) -> State:
        return {"log": [("governed", at.chat.invoke("hi").content)]}

    def plain(state: Any) -> State:
        return {"log": [("plain", at.chat.invoke("hi").content), ("foreign", foreign.invoke("hi").content)]}

    graph = fan(StateGraph(State), {"governed": governed, "plain": plain}).compile()
    ended = asyncio.run(graph.ainvoke({})) if way == "async" else graph.invoke({})
    assert sorted(ended["log"]) == [("foreign", "foreign"), ("governed", "high"), ("plain", "mid")]
    # the chat model in the plain node is a step of its own, under the rule of the node that calls it
    assert sorted((one.node, bool(one.parent)) for one in at.kept.outcomes) == [
        ("governed", False),
        ("governed", True),
        ("plain", False),
    ]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_each_of_many_sent_tasks_is_a_step_of_its_own(way: str) -> None:
    at = desk(named, verify={"regex": "high|even"})

    def work(state: Any) -> State:
        parity = "odd" if state["number"] % 2 else "even"
        return {"log": [f"{state['number']} {parity} {at.chat.invoke(parity).content}"]}

    builder = GovernedStateGraph(State, policy=at.governor)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, lambda _: [Send("work", {"number": number}) for number in range(6)], ["work"])
    builder.add_edge("work", END)
    graph = builder.compile()
    ended = asyncio.run(graph.ainvoke({})) if way == "async" else graph.invoke({})
    assert sorted(ended["log"]) == ["0 even low", "1 odd high", "2 even low", "3 odd high", "4 even low", "5 odd high"]
    assert len(at.kept.nodes) == 6
    assert all(one.status == "accepted" for one in at.kept.nodes)


def test_the_same_model_object_serves_all_governors_of_a_process() -> None:
    """Inside a governed node the node's governor rules, whichever one the model was made with."""
    inner, outer = desk(named, steps=pinned(ask="low")), desk(named, steps=pinned(ask="high"))
    chat = GovernedChat(governor=inner.governor)
    assert outer.graph(lambda state: {"answer": chat.invoke("hi").content}).invoke({})["answer"] == "high"
    assert (inner.rungs, outer.rungs) == ([], ["high"])
