"""What a reader of a graph's stream sees: accepted answers once, rejected ones never, and tokens as they come
where nothing has to be verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import StreamWriter, interrupt

from governor.protocols import Delta
from governor.records import Call, Reply
from governor.testing import ScriptedBackend
from governor_langgraph import node
from governor_langgraph.graph import govern
from tests.governor_langgraph.desk import Desk, State, by_rung, desk, one_node, reply

RIGHT = {"regex": "two hundred four"}
WRONG, GOOD = "it is wrong indeed", "it is two hundred four"
ASKED: State = {"messages": [HumanMessage("What is 12 * 17?")]}
WAYS = ("sync", "async")


def verified(**keys: Any) -> Desk:
    return desk(by_rung(low=WRONG, high=GOOD), verify=RIGHT, **keys)


def chunks(graph: Any, way: str, mode: Any, **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [chunk async for chunk in graph.astream(ASKED, stream_mode=mode, **options)]

    return asyncio.run(collect()) if way == "async" else list(graph.stream(ASKED, stream_mode=mode, **options))


def events(graph: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [event async for event in graph.astream_events(ASKED, version="v2")]

    return asyncio.run(collect())


def in_messages(state: Any, at: Desk) -> Any:
    return {"messages": [at.chat.invoke(state["messages"])]}


def in_answer(state: Any, at: Desk) -> Any:
    return {"answer": at.chat.invoke(state["messages"]).text}


def by_stream(state: Any, at: Desk) -> Any:
    return {"answer": "".join(str(chunk.content) for chunk in at.chat.stream(state["messages"]))}


def through_chain(state: Any, at: Desk) -> Any:
    chain = at.chat | (lambda said: said.text)
    return {"answer": chain.invoke(state["messages"])}


SHAPES = [in_messages, in_answer, by_stream, through_chain]


def node_of(at: Desk, shape: Any, way: str) -> Any:
    async def awaited(state: Any) -> Any:
        if shape is in_messages:
            return {"messages": [await at.chat.ainvoke(state["messages"])]}
        if shape is by_stream:
            return {"answer": "".join([str(chunk.content) async for chunk in at.chat.astream(state["messages"])])}
        return {"answer": (await at.chat.ainvoke(state["messages"])).text}

    return awaited if way == "async" else lambda state: shape(state, at)


@pytest.mark.parametrize("how", ["govern", "decorator"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_the_accepted_answer_is_streamed_once_and_the_rejected_one_never(way: str, shape: Any, how: str) -> None:
    at = verified()
    function = node_of(at, shape, way)
    graph = at.graph(function) if how == "govern" else one_node(node(at.governor)(function)).compile()
    texts = [message.content for message, _ in chunks(graph, way, "messages")]
    assert "".join(texts) == GOOD
    assert len([text for text in texts if text]) == 5  # piece by piece, at acceptance
    assert at.rungs == ["low", "high"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_without_a_verifier_tokens_stream_one_by_one(way: str, shape: Any) -> None:
    seen: list[str] = []

    class Slow(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            for piece in super().stream(call):
                if isinstance(piece, Delta):
                    seen.append(f"made {piece.text}")
                yield piece

    at = desk(Slow(by_rung(low="a b c")))
    graph = at.graph(node_of(at, shape, way))

    async def read() -> None:
        async for message, _ in graph.astream(ASKED, stream_mode="messages"):
            if message.content:
                seen.append(f"seen {message.content}")

    if way == "async":
        asyncio.run(read())
        assert [one for one in seen if one.startswith("seen")] == ["seen a", "seen  b", "seen  c"]
        return
    for message, _ in graph.stream(ASKED, stream_mode="messages"):
        if message.content:
            seen.append(f"seen {message.content}")
    assert [one for one in seen if one.startswith("seen")] == ["seen a", "seen  b", "seen  c"]


async def test_tokens_are_read_while_the_model_still_writes() -> None:
    go_on = asyncio.Event()

    class Waiting(ScriptedBackend):
        async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
            yield Delta("first")
            await go_on.wait()
            yield Delta(" second")
            yield reply("first second")

    at = desk(Waiting([]))
    seen = []

    async def ask(state: Any) -> Any:
        return {"messages": [await at.chat.ainvoke(state["messages"])]}

    async for message, _ in at.graph(ask).astream(ASKED, stream_mode="messages"):
        seen.append(message.content)
        go_on.set()  # without a first chunk this is never reached, and the model never ends
    assert "".join(seen) == "first second"


@pytest.mark.parametrize("way", WAYS)
def test_updates_and_values_hold_the_accepted_result_alone(way: str) -> None:
    at = verified()
    seen = chunks(at.graph(node_of(at, in_answer, way)), way, ["updates", "values"])
    assert [chunk for mode, chunk in seen if mode == "updates"] == [{"ask": {"answer": GOOD}}]
    assert [chunk.get("answer") for mode, chunk in seen if mode == "values"] == [None, GOOD]
    assert WRONG not in str(seen)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_events_tell_of_the_accepted_attempt_alone(way: str, shape: Any) -> None:
    at = verified()
    seen = events(at.graph(node_of(at, shape, way)))
    assert at.rungs == ["low", "high"]
    assert WRONG not in str(seen)
    assert "wrong" not in "".join(str(event) for event in seen)
    streamed = [event["data"]["chunk"].content for event in seen if event["event"] == "on_chat_model_stream"]
    assert "".join(streamed) == GOOD
    ended = [event["data"]["output"].content for event in seen if event["event"] == "on_chat_model_end"]
    assert ended == [GOOD]
    assert [event["event"] for event in seen].count("on_chat_model_start") == 1


@pytest.mark.parametrize("how", ["govern", "decorator"])
@pytest.mark.parametrize("way", WAYS)
def test_custom_writes_of_a_rejected_attempt_are_dropped(way: str, how: str) -> None:
    at = verified()

    def ask(state: Any, writer: StreamWriter) -> State:
        said = at.chat.invoke(state["messages"]).text
        writer({"said": said})
        get_stream_writer()({"again": said})
        return {"answer": said}

    async def aask(state: Any, writer: StreamWriter) -> State:
        said = (await at.chat.ainvoke(state["messages"])).text
        writer({"said": said})
        get_stream_writer()({"again": said})
        return {"answer": said}

    function = aask if way == "async" else ask
    graph = at.graph(function) if how == "govern" else one_node(node(at.governor)(function)).compile()
    assert chunks(graph, way, "custom") == [{"said": GOOD}, {"again": GOOD}]


def test_progress_before_the_first_model_call_is_shown_at_once() -> None:
    at, order = verified(), []

    def ask(state: Any, writer: StreamWriter) -> State:
        writer("begun")
        order.append("writing")
        return {"answer": at.chat.invoke(state["messages"]).text}

    stream = at.graph(ask).stream(ASKED, stream_mode="custom")
    assert next(stream) == "begun"
    assert list(stream) == ["begun"]  # the second attempt began too
    assert at.rungs == ["low", "high"]


def test_what_a_node_without_a_model_writes_is_shown_as_it_comes() -> None:
    at = verified()

    def ask(state: Any, writer: StreamWriter) -> State:
        writer(1)
        writer(2)
        return {"answer": "fixed"}

    assert chunks(at.graph(ask), "sync", ["custom", "updates"]) == [
        ("custom", 1),
        ("custom", 2),
        ("updates", {"ask": {"answer": "fixed"}}),
    ]


def test_what_a_failing_node_wrote_before_is_still_shown() -> None:
    at, seen = verified(), []

    def ask(state: Any, writer: StreamWriter) -> State:
        writer(at.chat.invoke(state["messages"]).text)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        seen.extend(at.graph(ask).stream(ASKED, stream_mode="custom"))
    assert seen == [WRONG]  # nobody rejected it: the node itself broke down


@pytest.mark.parametrize("way", WAYS)
def test_updates_of_a_graph_inside_a_rejected_attempt_are_dropped(way: str) -> None:
    at = verified()
    inner: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    inner.add_node("draft", node_of(at, in_answer, way)).add_edge(START, "draft").add_edge("draft", END)
    seen = chunks(at.graph(inner.compile()), way, ["updates", "messages"], subgraphs=True)
    assert "wrong" not in str(seen)
    inside = [chunk for where, mode, chunk in seen if mode == "updates" and where]
    assert inside == [{"draft": {"answer": GOOD}}]
    assert [chunk["ask"]["answer"] for where, mode, chunk in seen if mode == "updates" and not where] == [GOOD]
    assert "".join(chunk[0].content for _, mode, chunk in seen if mode == "messages") == GOOD


def test_the_accepted_answer_is_streamed_beside_other_nodes_in_order() -> None:
    at = verified()
    builder: Any = StateGraph(State)
    builder.add_node("ask", lambda state: in_messages(state, at))
    builder.add_node("after", lambda state: {"log": [state["messages"][-1].content]})
    builder.add_edge(START, "ask").add_edge("ask", "after").add_edge("after", END)
    seen = chunks(govern(builder.compile(), at.governor), "sync", ["messages", "updates"])
    first_update = next(number for number, (mode, _) in enumerate(seen) if mode == "updates")
    assert "".join(chunk[0].content for mode, chunk in seen[:first_update] if mode == "messages") == GOOD
    assert seen[-1] == ("updates", {"after": {"log": [GOOD]}})


def test_a_draft_is_shown_before_the_interrupt_that_asks_about_it() -> None:
    at = verified()

    def ask(state: Any) -> State:
        draft = at.chat.invoke(state["messages"]).text
        return {"answer": f"{draft} {interrupt('may I?')}"}

    graph = at.graph(ask, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    seen = list(graph.stream(ASKED, config, stream_mode=["messages", "updates"]))
    assert "".join(chunk[0].content for mode, chunk in seen if mode == "messages") == WRONG
    assert "__interrupt__" in seen[-1][1]
