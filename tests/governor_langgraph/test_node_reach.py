"""The rung of a governed node reaches every model that is called inside it, however it is called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from governor.records import Call, Reply, ToolCall
from governor_langgraph import GovernedChat
from tests.governor_langgraph.desk import Desk, State, desk, named, one_node, pinned, reply

ASKED: State = {"question": "What is 12 * 17?"}
FORMS = ("sync", "async")


class Sum(BaseModel):
    total: int


class TypedSum(TypedDict):
    """A sum."""

    total: int


JSON_SUM = {"title": "Sum", "type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def on_high(script: Any = named, **keys: Any) -> Desk:
    return desk(script, steps=pinned(ask="high"), **keys)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


WAYS: dict[str, Callable[[GovernedChat], Any]] = {
    "invoke": lambda chat: chat.invoke("hi").content,
    "bind_tools": lambda chat: chat.bind_tools([add]).invoke("hi").content,
    "chain": lambda chat: (ChatPromptTemplate.from_template("{x}") | chat | StrOutputParser()).invoke({"x": "hi"}),
    "batch": lambda chat: chat.batch(["a", "b", "c"])[1].content,
    "stream": lambda chat: "".join(str(chunk.content) for chunk in chat.stream("hi")),
    "parallel": lambda chat: RunnableParallel(one=chat, two=chat).invoke("hi")["two"].content,
    "retry": lambda chat: chat.with_retry().invoke("hi").content,
    "fallbacks": lambda chat: chat.with_fallbacks([chat]).invoke("hi").content,
    "threads of langchain": lambda chat: _in_threads(chat),
}


def _in_threads(chat: GovernedChat) -> Any:
    with ContextThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda text: chat.invoke(text).content, ["a", "b"]))[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_blocking_call_takes_the_rung(way: str) -> None:
    at = on_high()
    graph = at.graph(lambda state: {"answer": WAYS[way](at.chat)})
    assert graph.invoke(ASKED)["answer"] == "high"
    assert set(at.rungs) == {"high"}
    assert len(at.kept.nodes) == 1
    assert {one.parent for one in at.kept.parts} == {at.kept.nodes[0].step_id}
    assert len(at.kept.parts) == len(at.backend.calls)


async def _streamed(chat: GovernedChat) -> str:
    return "".join([str(chunk.content) async for chunk in chat.astream("hi")])


AWAITED: dict[str, Callable[[GovernedChat], Any]] = {
    "ainvoke": lambda chat: chat.ainvoke("hi"),
    "abind_tools": lambda chat: chat.bind_tools([add]).ainvoke("hi"),
    "achain": lambda chat: (chat | StrOutputParser()).ainvoke("hi"),
    "abatch": lambda chat: chat.abatch(["a", "b", "c"]),
    "astream": _streamed,
    "gather": lambda chat: asyncio.gather(chat.ainvoke("a"), chat.ainvoke("b")),
    "blocking call in a thread": lambda chat: asyncio.to_thread(chat.invoke, "hi"),
}


@pytest.mark.parametrize("way", AWAITED)
async def test_an_awaited_call_takes_the_rung(way: str) -> None:
    at = on_high()

    async def ask(state: Any) -> State:
        await AWAITED[way](at.chat)
        return {"answer": "done"}

    assert (await at.graph(ask).ainvoke(ASKED))["answer"] == "done"
    assert set(at.rungs) == {"high"}
    assert {one.parent for one in at.kept.parts} == {at.kept.nodes[0].step_id}


@pytest.mark.parametrize("way", FORMS)
@pytest.mark.parametrize(
    ("schema", "wanted"), [(Sum, Sum(total=204)), (TypedSum, {"total": 204}), (JSON_SUM, {"total": 204})]
)
def test_structured_output_takes_the_rung_and_tells_the_backend_its_schema(schema: Any, wanted: Any, way: str) -> None:
    at = on_high([reply('{"total": 204}')])
    chat = at.chat.with_structured_output(schema)
    assert run(at.graph(both(lambda: chat.invoke("sum"), lambda: chat.ainvoke("sum"), way)), way) == wanted
    schema_sent = at.backend.calls[0].response_schema
    assert at.rungs == ["high"]
    assert schema_sent is not None
    assert schema_sent["properties"]["total"]["type"] == "integer"


def test_structured_output_with_its_raw_message_tells_why_it_could_not_be_read() -> None:
    at = on_high([reply('{"total": 204}'), reply("no idea")])
    chat = at.chat.with_structured_output(Sum, include_raw=True)
    graph = at.graph(lambda state: {"log": [chat.invoke("sum"), chat.invoke("sum")]})
    good, bad = graph.invoke(ASKED)["log"]
    assert (good["parsed"], good["parsing_error"], good["raw"].content) == (Sum(total=204), None, '{"total": 204}')
    assert (bad["parsed"], bad["raw"].content) == (None, "no idea")
    assert bad["parsing_error"] is not None


def both(call: Any, acall: Any, way: str) -> Any:
    """A node that logs what the call gives."""

    async def awaited(state: Any) -> State:
        return {"log": [await acall()]}

    return awaited if way == "async" else lambda state: {"log": [call()]}


def run(graph: Any, way: str, state: Any = ASKED) -> Any:
    ended = asyncio.run(graph.ainvoke(state)) if way == "async" else graph.invoke(state)
    return ended["log"][-1]


def agents_script(call: Call) -> Reply:
    """Calls the tool `delegate` once; the model inside of it, and the agent afterwards, name their rung."""
    if call.tools and call.messages[-1].get("role") != "tool":
        return reply("", tool_calls=(ToolCall(id="c1", name="delegate", arguments='{"task": "sum"}'),))
    return named(call)


@pytest.mark.parametrize("way", FORMS)
def test_a_nested_agent_and_a_model_inside_its_tool_take_the_rung(way: str) -> None:
    at = on_high(agents_script)

    @tool
    def delegate(task: str) -> str:
        """Asks a model."""
        return f"inner {at.chat.invoke(task).content}"

    agent: Any = create_agent(at.chat, [delegate])
    asked = {"messages": [HumanMessage("go")]}
    graph = at.graph(both(lambda: agent.invoke(asked), lambda: agent.ainvoke(asked), way))
    messages = run(graph, way)["messages"]
    assert [one.content for one in messages[2:]] == ["inner high", "high"]
    assert at.rungs == ["high"] * 3
    assert len(at.kept.nodes) == 1
    assert len(at.kept.parts) == 3


@pytest.mark.parametrize("way", FORMS)
def test_a_compiled_graph_as_a_node_is_one_step(way: str) -> None:
    at = on_high()
    inner: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    inner.add_node("first", lambda state: {"log": [at.chat.invoke("a").content]})
    inner.add_node("second", lambda state: {"log": [at.chat.invoke("b").content]})
    inner.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    graph = at.graph(inner.compile())
    ended = asyncio.run(graph.ainvoke(ASKED)) if way == "async" else graph.invoke(ASKED)
    assert ended["log"] == ["high", "high"]
    assert [one.node for one in at.kept.nodes] == ["ask"]
    assert {one.parent for one in at.kept.parts} == {at.kept.nodes[0].step_id}


def test_a_governed_graph_as_a_node_of_an_ungoverned_one_is_governed_node_by_node() -> None:
    at = desk(named, steps=pinned(first="low", second="high"))
    inner: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    inner.add_node("first", lambda state: {"log": [at.chat.invoke("a").content]})
    inner.add_node("second", lambda state: {"log": [at.chat.invoke("b").content]})
    inner.add_edge(START, "first").add_edge("first", "second").add_edge("second", END)
    from governor_langgraph.graph import govern

    outer = one_node(govern(inner.compile(), at.governor)).compile()
    assert outer.invoke(ASKED)["log"] == ["low", "high"]
    assert [one.node for one in at.kept.nodes] == ["first", "second"]


def test_a_chain_as_a_node_takes_the_rung() -> None:
    at = on_high()
    chain: Any = RunnableLambda(lambda _: "What is 12 * 17?") | at.chat | (lambda message: {"answer": message.content})
    assert at.graph(chain).invoke(ASKED)["answer"] == "high"
    assert [one.node for one in at.kept.nodes] == ["ask"]


def test_a_plain_thread_pool_loses_the_node_but_not_the_governor() -> None:
    """Python copies no context into such threads: the call is a step of its own, still under the policy."""
    at = on_high()

    def ask(state: Any) -> State:
        with ThreadPoolExecutor(1) as threads:
            return {"answer": str(threads.submit(at.chat.invoke, "hi").result().content)}

    assert at.graph(ask).invoke(ASKED)["answer"] == "low"
    assert [(one.node, one.parent) for one in at.kept.outcomes] == [("default", "")]


def test_a_governed_chat_model_outside_of_graphs_is_a_step_of_its_own() -> None:
    at = desk(named)
    message = GovernedChat(governor=at.governor, node="reply", session="s").invoke("hi")
    assert message.content == "low"
    assert json.loads(json.dumps(message.response_metadata["governor"])) == {
        "step": at.kept.outcomes[0].step_id,
        "status": "unverified",
        "rung": "low",
        "attempts": 1,
        "tokens": 25,
        "micro_usd": 30,
        "answer_tokens": 5,
    }
    assert (at.kept.outcomes[0].node, at.kept.outcomes[0].session) == ("reply", "s")
