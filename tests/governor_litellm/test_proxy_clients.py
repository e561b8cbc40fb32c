"""The official clients, on streams that Governor ended: what they make of the closing events that it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from governor.records import Outcome
from tests.governor_litellm.proxy_app import ProxyUnderTest
from tests.governor_litellm.test_proxy_stops import CHAT, MESSAGES, RESPONSES, STOPS, outcomes
from tests.governor_litellm.test_proxy_stops import ladder as rungs
from tests.governor_litellm.test_proxy_streams import COUNTED, LADDERS, WIRES
from tests.governor_litellm.test_proxy_streams import ladder as two_rungs
from tests.governor_litellm.upstream import LOOP, TELLS

__all__ = ["outcomes"]
pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Read:
    """What a client's own reader of streams put together: text, why it ended, and the output tokens it was told."""

    text: str
    reason: str
    tokens: int


async def by_openai(proxy: ProxyUnderTest, path: str, said: str) -> Read:
    openai = pytest.importorskip("openai")
    client = openai.AsyncOpenAI(base_url="http://proxy/v1", api_key="sk-none", http_client=proxy.client, max_retries=0)
    if path == RESPONSES:
        async with client.responses.stream(model="small", input=said) as stream:
            end = [event async for event in stream][-1]
        assert end.type == "response.incomplete"
        answer = end.response
        return Read(answer.output_text, answer.incomplete_details.reason, answer.usage.output_tokens)
    asked: Any = [{"role": "user", "content": said}]
    options: Any = {"include_usage": True}
    with pytest.raises(openai.LengthFinishReasonError) as told:  # how this client tells of every limit
        async with client.chat.completions.stream(model="small", messages=asked, stream_options=options) as stream:
            await stream.get_final_completion()
    whole = told.value.completion
    (choice,) = whole.choices
    return Read(choice.message.content, choice.finish_reason, whole.usage.completion_tokens)


async def by_anthropic(proxy: ProxyUnderTest, path: str, said: str) -> Read:
    anthropic = pytest.importorskip("anthropic")
    from litellm.proxy.proxy_server import app

    asked: Any = [{"role": "user", "content": said}]
    http = import_module(anthropic.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])  # httpx, or httpx2
    async with http.AsyncClient(transport=http.ASGITransport(app=app)) as transport:
        client = anthropic.AsyncAnthropic(
            base_url="http://proxy", api_key="sk-none", http_client=transport, max_retries=0
        )
        async with client.messages.stream(model="claude", max_tokens=4000, messages=asked) as stream:
            message = await stream.get_final_message()
    (block,) = message.content
    return Read(block.text, message.stop_reason, message.usage.output_tokens)


READERS: dict[str, Callable[..., Any]] = {CHAT: by_openai, RESPONSES: by_openai, MESSAGES: by_anthropic}
ENDS = {CHAT: "length", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}


@pytest.mark.parametrize("path", WIRES)
async def test_a_stream_that_a_rule_ended(proxy: ProxyUnderTest, outcomes: list[Outcome], path: str) -> None:
    proxy.default(proxy.policy(COUNTED + STOPS, ladder=rungs(LADDERS[path][0])))
    read = await READERS[path](proxy, path, "loops slow")
    await proxy.idle()
    assert read.reason == ENDS[path]
    assert (LOOP * 40).startswith(read.text)
    assert 3 * len(LOOP) < len(read.text) < 9 * len(LOOP)
    (outcome,) = outcomes
    assert read.tokens == outcome.spent.answer > 0


@pytest.mark.parametrize("path", WIRES)
async def test_a_stream_whose_answer_was_doubted_when_it_had_begun(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    checks = "verify: [{regex: '42'}, {contains: {text: is, absent: [bad]}}]\nstream: speculate\n"
    proxy.default(proxy.policy(COUNTED + checks, ladder=two_rungs(path)))
    read = await READERS[path](proxy, path, "tellslate slow")
    await proxy.idle()
    assert read.reason == ENDS[path]
    assert TELLS["tellslate"].startswith(read.text)
    assert read.text.strip() == "All is well."
    (outcome,) = outcomes
    assert read.tokens == outcome.spent.answer > 0
