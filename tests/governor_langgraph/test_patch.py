"""Chat models that know nothing of Governor, patched: their requests as a provider gets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, SecretStr

from governor import Governor
from governor.errors import NoAnswerError, UngovernedModelError
from governor.policy import policy_from
from governor.testing import ScriptedBackend
from governor_langgraph.graph import GovernedGraph, govern
from governor_langgraph.patch import patch, unpatch

LADDER = [
    {"id": "low", "model": "openai/gpt-5-nano", "effort": "low", "answer_tokens": 100},
    {"id": "high", "model": "openai/gpt-5", "effort": "high", "answer_tokens": 300},
]


class Provider:
    """Answers as OpenAI does, and keeps each request's body."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no", "type": "x", "code": "x"}})
        text = "42" if body.get("reasoning_effort") == "high" else "dunno"
        if "response_format" in body:
            text = '{"number": 42}' if text == "42" else '{"number": 0}'
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx.Response(
            200,
            json={
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            },
        )

    def chat(self, **options: Any) -> ChatOpenAI:
        transport = httpx.MockTransport(self)
        return ChatOpenAI(
            model="gpt-5",
            api_key=SecretStr("none"),
            max_retries=0,
            http_client=httpx.Client(transport=transport),
            http_async_client=httpx.AsyncClient(transport=transport),
            **options,
        )


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    yield
    unpatch()


def governor(**keys: Any) -> Governor:
    verify = {"regex": "42"}
    keys = {"verify": verify, "budget": {"session": {"tokens": 100_000}}, **keys}
    policy = policy_from({"version": 1, "app": "test", "dial": 0.6, "ladder": LADDER, **keys})
    return Governor(policy, backend=ScriptedBackend([]))


def graph_of(ask: Any, governed: Governor, **options: Any) -> GovernedGraph:
    builder = StateGraph(MessagesState)
    builder.add_node("solve", ask)
    builder.add_edge(START, "solve")
    return govern(builder.compile(), governed, patch=True, **options)


def asks(model: ChatOpenAI) -> Any:
    """A node that asks the model."""

    def solve(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return solve


def asked(graph: GovernedGraph, run: str = "sync") -> Any:
    state = {"messages": [("user", "What is 6 * 7?")]}
    config: Any = {"configurable": {"thread_id": "t"}}
    return graph.invoke(state, config) if run == "sync" else asyncio.run(graph.ainvoke(state, config))


@pytest.mark.parametrize("run", ["sync", "async"])
def test_each_request_carries_the_rung_of_the_node(provider: Provider, run: str) -> None:
    model = provider.chat()

    def solve(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def asolve(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    one = governor()
    answer = asked(graph_of(solve if run == "sync" else asolve, one), run)["messages"][-1]
    assert answer.content == "42"
    told = [(body["model"], body["reasoning_effort"], body["max_completion_tokens"]) for body in provider.asked]
    assert told == [("gpt-5-nano", "low", 100), ("gpt-5", "high", 300)]
    assert one.ledger.balance("session:test/t").spent.tokens == 30


def test_tools_chains_batches_and_streams_keep_their_shape(provider: Provider) -> None:
    model = provider.chat()

    def tool(city: str) -> str:
        """The weather."""
        return city

    def solve(state: MessagesState) -> Any:
        chain = ChatPromptTemplate.from_messages([("human", "{text}")]) | model.bind_tools([tool])
        first = chain.invoke({"text": "one"})
        batch = model.batch(["two", "three"])
        (piece,) = model.stream("four")
        return {"messages": [*batch, first, AIMessage(str(piece.content))]}

    one = governor(verify=None)
    asked(graph_of(solve, one))
    assert [body["messages"][-1]["content"] for body in provider.asked[1:]] in (
        ["two", "three", "four"],
        ["three", "two", "four"],
    )
    assert provider.asked[0]["tools"][0]["function"]["name"] == "tool"
    assert {body["reasoning_effort"] for body in provider.asked} == {"low"}
    assert one.ledger.balance("session:test/t").spent.calls == 4


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of langchain-openai 1.1, without us too
def test_structured_output_is_read_by_the_model_s_own_parser(provider: Provider) -> None:
    class Answer(BaseModel):
        number: int

    model = provider.chat().with_structured_output(Answer)

    def solve(state: MessagesState) -> Any:
        found = model.invoke(state["messages"])
        assert isinstance(found, Answer)
        return {"messages": [AIMessage(str(found.number))]}

    assert asked(graph_of(solve, governor()))["messages"][-1].content == "42"
    assert [body["reasoning_effort"] for body in provider.asked] == ["low", "high"]


def test_a_budget_refuses_before_the_request_is_sent(provider: Provider) -> None:
    model = provider.chat()
    one = governor(budget={"session": {"tokens": 20}}, verify=None)
    with pytest.raises(NoAnswerError) as refused:
        asked(graph_of(asks(model), one))
    assert refused.value.outcome.refusal is not None
    assert provider.asked == []


def test_a_provider_s_fault_is_a_failed_attempt(provider: Provider) -> None:
    model = provider.chat()
    provider.status = 401
    with pytest.raises(NoAnswerError, match="BackendAuthError"):
        asked(graph_of(asks(model), governor()))


def test_another_provider_s_rung_is_refused(provider: Provider) -> None:
    model = provider.chat()
    ladder = [{"id": "only", "model": "anthropic/claude", "answer_tokens": 100}]
    with pytest.raises(UngovernedModelError, match=r"ChatOpenAI.*'anthropic/claude'"):
        asked(graph_of(asks(model), governor(ladder=ladder)))


def test_outside_of_governed_nodes_a_patched_model_is_as_before(provider: Provider) -> None:
    patch()
    patch()
    assert provider.chat(max_completion_tokens=7).invoke("hello").content == "dunno"
    assert [piece.content for piece in [provider.chat().invoke("hello")]] == ["dunno"]
    assert "reasoning_effort" not in provider.asked[0]
    assert provider.asked[0]["max_completion_tokens"] == 7
    unpatch()
    unpatch()


def test_without_the_patch_the_node_is_refused(provider: Provider) -> None:
    model = provider.chat()
    builder = StateGraph(MessagesState)
    builder.add_node("solve", asks(model))
    builder.add_edge(START, "solve")
    with pytest.raises(UngovernedModelError, match="patch=True"):
        asked(govern(builder.compile(), governor()))
    assert provider.asked == []


def test_in_shadow_the_request_is_what_it_was(provider: Provider) -> None:
    model = provider.chat()
    one = governor(mode="shadow")
    asked(graph_of(asks(model), one))
    (body,) = provider.asked
    assert body["model"] == "gpt-5"
    assert "reasoning_effort" not in body
    assert one.ledger.balance("session:test/t").spent.tokens == 15
