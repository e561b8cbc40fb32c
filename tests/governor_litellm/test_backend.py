from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from governor.errors import (
    BackendAuthError,
    BackendReplyError,
    BackendRequestError,
    MissingExtraError,
    PolicyError,
)
from governor.protocols import Backend, Delta
from governor.records import Call, Reply, Rung, ToolCall, Usage
from governor_litellm import LiteLLMBackend
from governor_litellm.backend import sdk
from tests.governor_litellm.stub import Answer, StubServer, chat, chunk, sse, usage_chunk

MODEL = "openai/m"
VLLM = "hosted_vllm/m"
KNOWN = Usage(input_tokens=7, output_tokens=5, thinking_tokens=3, cached_tokens=2)


def backend(server: StubServer, model: str = MODEL, **options: Any) -> LiteLLMBackend:
    options = {"wire": "plain", "api_base": server.url, **options}
    return LiteLLMBackend({model: options})


def call(model: str = MODEL, rung: Mapping[str, Any] | None = None, **fields: Any) -> Call:
    fields = {"messages": ({"role": "user", "content": "hi"},), "timeout": 10.0, **fields}
    return Call(step_id="s", rung=Rung(id="r", model=model, **(rung or {})), **fields)


def test_it_is_a_backend(server: StubServer) -> None:
    typed: Backend = backend(server)
    assert typed.call(call()).text == "ok"
    typed.close()


async def test_a_reply_is_read_whole_in_both_colours(server: StubServer) -> None:
    tool = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}
    logprobs = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    answer = chat("yes", reasoning_content="hm", tool_calls=[tool], logprobs=logprobs, finish_reason="length")
    server.then(answer, answer)
    ours = backend(server)
    for reply in (ours.call(call(logprobs=True)), await ours.acall(call(logprobs=True))):
        assert (reply.text, reply.thinking, reply.usage, reply.usage_known) == ("yes", "hm", KNOWN, True)
        assert reply.tool_calls == (ToolCall(id="t1", name="add", arguments='{"a": 1'),)
        assert reply.logprobs == (-0.5,)
        assert reply.seconds > 0
    assert server.body["logprobs"] is True


def test_a_cut_reply_says_length(server: StubServer) -> None:
    server.then(chat("one,", finish_reason="length"))
    assert backend(server).call(call()).truncated


def test_what_the_call_asks_for_is_sent(server: StubServer) -> None:
    tools = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = call(rung={"instruction": "Be brief.", "answer_tokens": 33}, tools=tools, response_schema=schema, seed=4)
    backend(server, extra_body={"vllm_xargs": {"stop": 1}}).call(asked)
    body = server.body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["tools"] == list(tools)
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert (body["seed"], body["max_tokens"], body["vllm_xargs"]) == (4, 33, {"stop": 1})
    assert "logprobs" not in body


def test_usage_that_is_missing_is_unknown(server: StubServer) -> None:
    server.then(chat("ok", usage=None))
    reply = backend(server).call(call())
    assert (reply.usage, reply.usage_known) == (Usage(), False)


STREAM = sse(
    chunk({"role": "assistant", "reasoning_content": "hm"}),
    chunk({"content": "on"}, logprobs={"content": [{"token": "on", "logprob": -0.1, "top_logprobs": []}]}),
    chunk({"content": "e"}),
    chunk({}, "stop"),
    usage_chunk(),
)


async def test_a_stream_yields_deltas_and_then_the_reply(server: StubServer) -> None:
    server.then(STREAM, STREAM)
    ours = backend(server)
    for seen in (list(ours.stream(call())), [item async for item in ours.astream(call())]):
        *deltas, reply = seen
        assert deltas == [Delta("", "hm"), Delta("on"), Delta("e")]
        assert isinstance(reply, Reply)
        assert (reply.text, reply.thinking, reply.finish_reason, reply.usage) == ("one", "hm", "stop", KNOWN)
        assert reply.logprobs == (-0.1,)
    assert server.body["stream_options"] == {"include_usage": True}


def counted(delta: dict[str, Any], tokens: int) -> dict[str, Any]:
    return chunk(delta) | {"usage": {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}}


async def test_vllm_counts_its_streams(server: StubServer) -> None:
    tool = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    events = [counted({"content": "one"}, 2), counted({"content": " two"}, 4), counted({"tool_calls": [tool]}, 9)]
    answer = sse(*events, chunk({}, "stop"), usage_chunk())
    server.then(answer, answer)
    ours = backend(server, VLLM, wire="hosted-vllm")
    asked = call(model=VLLM)
    assert ours.counts(asked.rung)
    for seen in (list(ours.stream(asked)), [item async for item in ours.astream(asked)]):
        assert [(one.text, one.usage) for one in seen[:-1]] == [
            ("one", Usage(7, 2)),
            (" two", Usage(7, 4)),
            ("", Usage(7, 9)),
        ]
    assert server.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("ticks", range(6))
async def test_a_cancellation_that_meets_a_chunk_is_not_lost(ticks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[object] = asyncio.Queue()

    async def endless() -> AsyncIterator[object]:
        while True:
            yield await chunks.get()

    async def answered(attempt: object, *, stream: bool) -> AsyncIterator[object]:
        return endless()

    def later(turns: int) -> None:
        if turns:
            loop.call_soon(later, turns - 1)
        else:
            task.cancel()

    async def consume() -> list[object]:
        return [item async for item in ours.astream(call(timeout=2))]

    ours = LiteLLMBackend({MODEL: {"wire": "plain", "api_base": "http://127.0.0.1:1"}})
    monkeypatch.setattr(ours, "_asend", answered)
    monkeypatch.setattr("governor_litellm.reply.Assembly.add", lambda self, chunk, stream: ())
    task = asyncio.create_task(consume())
    loop.call_later(0.01, chunks.put_nowait, object())
    loop.call_later(0.01, later, ticks)
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_streamed_tool_call_is_put_together(server: StubServer) -> None:
    first = {"index": 0, "id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    server.then(sse(chunk({"tool_calls": [first]}), chunk({"tool_calls": [rest]}), chunk({}, "tool_calls")))
    *deltas, reply = backend(server).stream(call())
    assert deltas == []
    assert isinstance(reply, Reply)
    assert reply.tool_calls == (ToolCall(id="t1", name="add", arguments='{"a": 1}'),)
    assert reply.usage_known is False


@pytest.mark.parametrize(
    "broken",
    [
        sse(chunk({"content": "a"}), done=False, cut=True),
        sse(chunk({"content": "a"}), done=False),
        sse(chunk({"content": "a"})),
        sse(chunk({"content": "a"}), "{garbage"),
        sse(chunk({"content": "a"}), {"error": {"message": "boom", "code": 500}}),
    ],
    ids=["cut", "ended", "no finish reason", "garbage", "error event"],
)
async def test_a_broken_stream_is_an_error_and_is_not_sent_again(server: StubServer, broken: Answer) -> None:
    server.then(broken, broken)
    ours = backend(server)
    seen: list[Delta | Reply] = []
    with pytest.raises(BackendReplyError):
        seen.extend(ours.stream(call()))
    with pytest.raises(BackendReplyError):
        seen.extend([item async for item in ours.astream(call())])
    assert not any(isinstance(item, Reply) for item in seen)
    assert len(server.seen) == 2


def test_a_prefix_is_continued_and_never_repeated(server: StubServer) -> None:
    server.then(chat("one, two"), sse(chunk({"content": "one"}), chunk({"content": ", two"}), chunk({}, "stop")))
    ours = backend(server, wire="llama-cpp-plain")
    assert ours.continues(Rung(id="r", model=MODEL))
    assert ours.call(call(prefix="one, ")).text == "two"
    assert server.body["messages"][-1] == {"role": "assistant", "content": "one, "}
    *deltas, reply = ours.stream(call(prefix="one, "))
    assert deltas == [Delta("two")]
    assert isinstance(reply, Reply)
    assert reply.text == "two"


def test_vllm_is_told_to_continue_the_last_message(server: StubServer) -> None:
    backend(server, wire="hosted-vllm").call(call(prefix="one, "))
    assert server.body["continue_final_message"] is True
    assert server.body["add_generation_prompt"] is False


def test_what_can_t_be_sent_as_asked_is_refused_unsent(server: StubServer) -> None:
    for wrong in (call(rung={"effort": "low"}), call(prefix="one")):
        with pytest.raises(BackendRequestError) as caught:
            backend(server).call(wrong)
        assert caught.value.sent is False
    assert backend(server).continues(Rung(id="r", model=MODEL)) is False
    assert server.seen == []


def test_the_key_comes_from_the_stated_variable(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "quite-secret-value")
    backend(server, api_key_env="MY_KEY").call(call())
    assert server.seen[0].headers["authorization"] == "Bearer quite-secret-value"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(BackendAuthError, match="MY_KEY") as caught:
        backend(server, api_key_env="MY_KEY").call(call())
    assert caught.value.sent is False
    assert len(server.seen) == 1


def test_wrong_options_are_refused() -> None:
    with pytest.raises(PolicyError, match="unknown option 'base'"):
        LiteLLMBackend({MODEL: {"base": "x"}})
    with pytest.raises(PolicyError, match="unknown dialect 'vlm'"):
        LiteLLMBackend({MODEL: {"wire": "vlm"}}).continues(Rung(id="r", model=MODEL))


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compute-governor\[litellm\]'"):
        sdk.__wrapped__()
