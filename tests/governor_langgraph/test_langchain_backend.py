from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
)
from governor.policy import Policy, policy_from
from governor.protocols import Delta
from governor.records import Call, Reply, Usage
from governor.testing import ScriptedBackend
from governor_langgraph.langchain_backend import LangChainBackend
from governor_langgraph.middleware import GovernorMiddleware
from tests.governor_langgraph.agent_parts import KEY, asked, lookup, own_model, shown
from tests.governor_litellm.stub import Answer, StubServer, chat, chunk, error, sse, usage_chunk

RULES = policy_from(
    {
        "version": 1,
        "models": {"openai/small": {"wire": "plain"}, "openai/gpt-5": {}},
        "ladder": [
            {"id": "low", "model": "openai/small", "answer_tokens": 64, "temperature": 0.25},
            {"id": "high", "model": "openai/gpt-5", "effort": "high", "thinking_tokens": 500, "answer_tokens": 64},
        ],
        "verify": {"contains": "2"},
        "backtrack": {"modes": ["fresh"]},
        "dial": 0.5,
    }
)
Do = Callable[[LangChainBackend, Call], Reply]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


def model(server: StubServer, name: str = "m") -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def backend(server: StubServer, **more: Any) -> LangChainBackend:
    return LangChainBackend(RULES, {"openai/small": model(server), "openai/gpt-5": model(server, "n")}, **more)


def call(rung: str = "low", **more: Any) -> Call:
    return Call(step_id="s", rung=RULES.rungs[rung], messages=({"role": "user", "content": "hi"},), **more)


def read(pieces: Any) -> Reply:
    last = list(pieces)[-1]
    assert isinstance(last, Reply)
    return last


async def aread(pieces: Any) -> Reply:
    return read([one async for one in pieces])


WAYS: dict[str, Do] = {
    "call": lambda models, one: models.call(one),
    "acall": lambda models, one: asyncio.run(models.acall(one)),
    "stream": lambda models, one: read(models.stream(one)),
    "astream": lambda models, one: asyncio.run(aread(models.astream(one))),
}


@pytest.fixture(params=WAYS)
def do(request: pytest.FixtureRequest) -> Do:
    return WAYS[request.param]


@pytest.fixture(params=["call", "acall"])
def whole(request: pytest.FixtureRequest) -> Do:
    return WAYS[request.param]


@pytest.fixture(params=["stream", "astream"])
def streamed(request: pytest.FixtureRequest) -> Do:
    return WAYS[request.param]


def test_a_call_is_answered_by_the_model_of_its_rung(server: StubServer, whole: Do) -> None:
    reply = whole(backend(server), call("high", seed=7))
    assert (reply.text, reply.finish_reason) == ("ok", "stop")
    assert reply.usage == Usage(7, 5, 3, 2)
    assert reply.usage_known
    assert (server.body["model"], server.body["reasoning_effort"], server.body["seed"]) == ("n", "high", 7)
    assert server.body["max_completion_tokens"] == 564


def test_a_stream_tells_its_pieces_and_its_usage(server: StubServer, streamed: Do) -> None:
    server.then(
        sse(chunk({"role": "assistant", "content": "two "}), chunk({"content": "million"}, "stop"), usage_chunk())
    )
    reply = streamed(backend(server), call())
    assert (reply.text, reply.usage) == ("two million", Usage(7, 5, 3, 2))
    assert server.body["stream_options"] == {"include_usage": True}
    assert server.body["temperature"] == 0.25


def test_pieces_come_before_the_reply(server: StubServer) -> None:
    server.then(
        sse(chunk({"role": "assistant", "content": "two "}), chunk({"content": "million"}, "stop"), usage_chunk())
    )
    pieces = list(backend(server).stream(call()))
    assert [one.text for one in pieces if isinstance(one, Delta) and one.text] == ["two ", "million"]


def test_tools_schema_and_instruction_reach_the_model(server: StubServer, whole: Do) -> None:
    tools = ({"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}},)
    arguments = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    server.then(chat(None, tool_calls=arguments, finish_reason="tool_calls"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    reply = whole(backend(server), call(tools=tools, tool_choice="required", response_schema=schema))
    assert [(one.name, one.arguments) for one in reply.tool_calls] == [("f", '{"a": 1}')]
    assert server.body["tools"][0]["function"]["name"] == "f"
    assert server.body["tool_choice"] == "required"
    assert server.body["response_format"]["json_schema"]["schema"]["properties"] == {"a": {"type": "integer"}}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(401), BackendAuthError),
        (error(400), BackendRequestError),
        (error(418), BackendRequestError),
        (error(429), BackendRateLimitError),
        (error(503), BackendUnavailableError),
    ],
)
def test_errors_of_a_provider_are_of_governors_kinds(
    server: StubServer, do: Do, answer: Answer, kind: type[BackendError]
) -> None:
    server.then(answer)
    with pytest.raises(BackendError) as raised:
        do(backend(server), call())
    assert type(raised.value) is kind
    assert raised.value.model == "openai/small"


def test_a_model_that_hangs_is_given_up_at_the_calls_time_limit(server: StubServer, do: Do) -> None:
    server.then(Answer(hang=30))
    with pytest.raises(BackendTimeoutError):
        do(backend(server), call(timeout=0.2))


def test_a_server_that_is_gone_is_unavailable(do: Do) -> None:
    with StubServer() as gone:
        models = backend(gone)
    with pytest.raises(BackendUnavailableError):
        do(models, call())


def test_a_stream_without_an_answer_can_not_be_read(streamed: Do) -> None:
    class Silent(ChatOpenAI):
        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            yield from ()

        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for one in list[Any]():
                yield one

    silent = Silent(model="m", api_key=KEY)
    with pytest.raises((BackendReplyError, ValueError), match=r"without an answer|No generation"):
        streamed(LangChainBackend(RULES, {"openai/small": silent}), call())


def test_an_error_of_the_models_own_code_is_no_backends(do: Do) -> None:
    class Wrong(ChatOpenAI):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError

        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError

        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for one in [1 // 0]:
                yield one

    wrong = Wrong(model="m", api_key=KEY)
    with pytest.raises(ZeroDivisionError):
        do(LangChainBackend(RULES, {"openai/small": wrong}), call())


def test_models_that_are_not_given_have_the_backends_of_their_names(do: Do) -> None:
    others = ScriptedBackend(["from elsewhere"], continues={"low"})
    models = LangChainBackend(RULES, {}, others)
    assert do(models, call()).text == "from elsewhere"
    assert models.continues(RULES.rungs["low"])
    models.close()
    assert others.closed


def test_given_models_are_not_gone_on_from(server: StubServer) -> None:
    models = backend(server, others=ScriptedBackend([], continues={"low"}))
    assert not models.continues(RULES.rungs["low"])


def agent(server: StubServer, rules: Policy = RULES, **more: Any) -> Any:
    models = {"openai/small": model(server), "openai/gpt-5": model(server, "n")}
    return create_agent(own_model(), middleware=[GovernorMiddleware(rules, models=models)], **more)


def test_an_agent_climbs_the_ladder_on_models_of_its_own(server: StubServer) -> None:
    server.then(chat("no idea"), chat("2 million"))
    counter = UsageMetadataCallbackHandler()
    final = agent(server, tools=[lookup]).invoke(asked(), {"callbacks": [counter]})
    assert final["messages"][-1].content == "2 million"
    assert [(one.body["model"], one.body.get("reasoning_effort")) for one in server.seen] == [
        ("m", None),
        ("n", "high"),
    ]
    assert sum(one["total_tokens"] for one in counter.usage_metadata.values()) == 2 * 12


def test_what_they_stream_is_shown_once_and_only_when_accepted(server: StubServer) -> None:
    no, yes = (sse(chunk({"role": "assistant", "content": text}, "stop"), usage_chunk()) for text in ("no", "2 m"))
    server.then(no, yes)
    pieces = list(agent(server, tools=[lookup]).stream(asked(), stream_mode="messages"))
    assert "".join(text for _, text in shown(pieces)) == "2 m"
    assert all(isinstance(one, AIMessageChunk) for one, _ in pieces)


def test_a_schema_of_an_agent_reaches_them(server: StubServer) -> None:
    schema = {"title": "N", "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    server.then(chat('{"n": 2}'))
    final = agent(server, tools=[], response_format=ProviderStrategy(schema)).invoke(asked())
    assert final["structured_response"] == {"n": 2}
    assert server.body["response_format"]["json_schema"]["schema"]["required"] == ["n"]
