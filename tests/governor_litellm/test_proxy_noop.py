"""Under a policy that changes nothing, what clients and models get is what they get without Governor, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.governor_litellm.proxy_app import ASK, MASTER, ProxyUnderTest

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
FLAT = {"type": "function", **FUNCTION}
CLAUDES = {"name": "weather", "input_schema": FUNCTION["parameters"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
CALLED = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "wet"},
]
IMAGE = [
    {"type": "text", "text": "what?"},
    {"type": "image_url", "image_url": {"url": "https://example.invalid/a.png"}},
]


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def chat(**more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"model": "small", "messages": ASK, **more}


def responses(**more: Any) -> tuple[str, dict[str, Any]]:
    return RESPONSES, {"model": "small", "input": "What?", **more}


def messages(**more: Any) -> tuple[str, dict[str, Any]]:
    return MESSAGES, {"model": "claude", "max_tokens": 100, "messages": ASK, **more}


TABLE: Mapping[str, tuple[str, dict[str, Any]]] = {
    "chat": chat(),
    "chat limit": chat(max_tokens=5),
    "chat newer limit": chat(max_completion_tokens=5),
    "chat sampling": chat(temperature=0.3, top_p=0.5, seed=7),
    "chat stop": chat(stop=["x"], presence_penalty=0.1, frequency_penalty=0.2),
    "chat user": chat(user="u-1"),
    "chat metadata": chat(metadata={"trace": "t", "tags": ["a"]}),
    "chat extra body": chat(custom_field={"a": 1}),
    "chat system": chat(messages=[{"role": "system", "content": "Be brief."}, *ASK]),
    "chat developer": chat(messages=[{"role": "developer", "content": "Be brief."}, *ASK]),
    "chat turns": chat(messages=[*ASK, {"role": "assistant", "content": "41"}, *ASK]),
    "chat parts": chat(messages=user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])),
    "chat image": chat(messages=user(IMAGE)),
    "chat unicode": chat(messages=user("żółć \U0001f600 \u2028")),
    "chat long": chat(messages=user("word " * 5000)),
    "chat choices": chat(n=3),
    "chat logprobs": chat(logprobs=True, top_logprobs=2),
    "chat tools": chat(tools=[TOOL]),
    "chat tool called": chat(messages=user("usetool"), tools=[TOOL], tool_choice="required"),
    "chat tool results": chat(messages=CALLED, tools=[TOOL]),
    "chat schema": chat(response_format=SCHEMA),
    "chat json": chat(response_format={"type": "json_object"}),
    "chat large": chat(model="large"),
    "chat effort": chat(model="thinker", reasoning_effort="low"),
    "chat claude": chat(model="claude"),
    "chat stream": chat(stream=True),
    "chat stream usage": chat(stream=True, stream_options={"include_usage": True}),
    "chat stream tools": chat(stream=True, messages=user("usetool"), tools=[TOOL]),
    "chat stream long": chat(stream=True, messages=user("slow")),
    "chat stream claude": chat(stream=True, model="claude"),
    "chat without usage": chat(messages=user("nousage")),
    "chat unknown model": chat(model="nowhere"),
    "chat no messages": (CHAT, {"model": "small"}),
    "chat bad messages": chat(messages="x"),
    "chat upstream 400": chat(messages=user("fail400")),
    "chat upstream 429": chat(messages=user("fail429")),
    "chat upstream 500": chat(messages=user("fail500")),
    "responses": responses(),
    "responses items": responses(input=[{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]),
    "responses instructions": responses(instructions="Be brief.", max_output_tokens=50, temperature=0.2),
    "responses tools": responses(input="usetool", tools=[FLAT]),
    "responses effort": responses(model="gpt", reasoning={"effort": "low"}),
    "responses stream": responses(stream=True),
    "responses upstream 400": responses(input="fail400"),
    "messages": messages(),
    "messages system": messages(system="Be brief.", temperature=0.3, stop_sequences=["x"]),
    "messages tools": messages(messages=user("usetool"), tools=[CLAUDES]),
    "messages thinking": messages(max_tokens=3000, thinking={"type": "enabled", "budget_tokens": 1024}),
    "messages stream": messages(stream=True),
    "messages stream tools": messages(messages=user("usetool"), tools=[CLAUDES], stream=True),
    "messages of openai": messages(model="small"),
    "messages without a limit": (MESSAGES, {"model": "claude", "messages": ASK}),
    "completions": ("/v1/completions", {"model": "small", "prompt": "x"}),
    "embeddings of no model": ("/v1/embeddings", {"model": "nowhere", "input": "x"}),
    "moderation of no model": ("/v1/moderations", {"model": "nowhere", "input": "x"}),
}
CHANGING = re.compile(
    r'"(?:id|response_id|item_id|previous_response_id|litellm_call_id|system_fingerprint)": ?"[^"]*"'
    r'|"(?:created|created_at|completed_at)": ?[\d.]+|chatcmpl-[\w-]+|resp_[\w=+/-]+|call_id=[\w-]+'
)


def constant(text: str) -> str:
    """What a client gets, without ids and times."""
    return CHANGING.sub("*", text)


assert len(TABLE) >= 40


@pytest.mark.parametrize("name", TABLE)
async def test_nothing_changes_under_a_shadow_policy(proxy: ProxyUnderTest, name: str) -> None:
    path, asked = TABLE[name]
    with proxy.without_hook():
        bare = await proxy.post(path, asked)
    bare_sent = json.dumps(proxy.upstream.seen)
    proxy.upstream.reset()
    app = proxy.policy("mode: shadow\nverify: {regex: 'never'}\nbudget: {app: {per: day, usd: 0.000001}}\n")
    proxy.default(app)
    shadowed = await proxy.post(path, asked)
    assert shadowed.status_code == bare.status_code
    assert constant(shadowed.text) == constant(bare.text)
    assert json.dumps(proxy.upstream.seen) == bare_sent
    assert shadowed.headers["content-type"] == bare.headers["content-type"]
    await proxy.idle()
    proxy.remove(app)


async def test_the_list_of_models_is_the_proxys_own(proxy: ProxyUnderTest) -> None:
    answered = await proxy.client.get("/v1/models", headers={"authorization": f"Bearer {MASTER}"})
    assert {model["id"] for model in answered.json()["data"]} >= {"small", "large", "claude"}
