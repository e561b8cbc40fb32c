"""Two real proxies, one real Redis, a real model, and the official clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from governor.ledger import open_ledger
from governor.records import Amount
from tests.governor_litellm.model_servers import llama_server, tool_server
from tests.governor_litellm.proxy_app import AUTH, MASTER
from tests.governor_litellm.proxy_process import proxy_process, ready
from tests.redis_servers import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(180)]
CONFIG = """\
model_list:
  - {{model_name: small, litellm_params: {{model: openai/smollm2, api_base: "{llama}/v1", api_key: k}}}}
  - {{model_name: large, litellm_params: {{model: openai/smollm2, api_base: "{llama}/v1", api_key: k}}}}
  - {{model_name: caller, litellm_params: {{model: openai/caller, api_base: "{tools}/v1", api_key: k}}}}
litellm_settings: {{num_retries: 0, use_chat_completions_url_for_anthropic_messages: true}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{custom_auth: keys_of_tests.check}}
"""
SHORT = "  - {id: short, model: small, answer_tokens: 3, temperature: 0, timeout: 60, price: {input: 1, output: 2}}\n"
WHOLE = "  - {id: whole, model: large, answer_tokens: 60, temperature: 0, timeout: 60, price: {input: 5, output: 10}}\n"
CALLS = "  - {id: calls, model: caller, answer_tokens: 90, temperature: 0, timeout: 60, price: {input: 1, output: 1}}\n"
POLICIES = {
    "mended": f"ladder:\n{SHORT}{WHOLE}verify: {{regex: Paris}}\nbudget: {{app: {{per: total, usd: 1}}}}\n",
    "streamed": f"ladder:\n{WHOLE}budget: {{app: {{per: total, usd: 1}}}}\n",
    "tools": f"ladder:\n{CALLS}budget: {{app: {{per: total, usd: 1}}}}\n",
    "capped": f"ladder:\n{WHOLE}budget: {{app: {{per: total, calls: 9}}}}\n",
}
ASK: Any = [{"role": "user", "content": "Name the capital of France."}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": CITY}}
DIGIT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]}


@dataclass(frozen=True)
class Fleet:
    """Two proxies of one configuration."""

    urls: tuple[str, str]
    ledger: str

    def spent(self, app: str) -> Amount:
        """What the ledger holds, once nothing is open any more."""
        headers, ends = {"authorization": f"Bearer {MASTER}"}, time.monotonic() + 30
        for url in self.urls:
            while (told := httpx.get(f"{url}/governor/status", headers=headers).json())["flights"]:
                assert time.monotonic() < ends, told
                time.sleep(0.05)
            assert told["missed_hooks"] == {}
        with closing(open_ledger(self.ledger)) as ledger:
            balance = ledger.balance(f"app:{app}")
        assert (balance.reserved, balance.overshoot) == (Amount(), Amount())
        return balance.spent


@pytest.fixture(scope="module")
def fleet(smollm2: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    pytest.importorskip("litellm_enterprise", reason="the proxy needs the extra 'proxy'")
    pytest.importorskip("xllamacpp", reason="the model needs the extra 'local'")
    folder = tmp_path_factory.mktemp("fleet")
    ledger = f"{redis_server.uri}?tenant={folder.name}"
    (folder / "policies").mkdir()
    for app, text in POLICIES.items():
        (folder / "policies" / f"{app}.yaml").write_text(f"version: 1\napp: {app}\nledger: {ledger}\n{text}")
    keys = {f"sk-{app}": {"metadata": {"app": app}} for app in POLICIES}
    (folder / "keys_of_tests.py").write_text(AUTH.format(master=MASTER, keys=keys))
    with ExitStack() as stack:
        llama, tools = stack.enter_context(llama_server(smollm2)), stack.enter_context(tool_server(str(smollm2)))
        (folder / "litellm.yaml").write_text(CONFIG.format(llama=llama, tools=tools))
        logs = folder / "one.log", folder / "two.log"
        starting = [proxy_process(folder, log, LITELLM_MASTER_KEY=MASTER) for log in logs]
        one, two = (stack.enter_context(proxy) for proxy in starting)
        for url, log in zip((one, two), logs, strict=True):
            ready(url, log)
        yield Fleet((one, two), ledger)


def told(headers: Any) -> tuple[int, int]:
    """Tokens and micro-USD of one response."""
    return int(headers["x-governor-tokens"]), int(headers["x-governor-micro-usd"])


def test_the_ledger_holds_what_the_responses_told(fleet: Fleet) -> None:
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    url, seen = fleet.urls[0], list[tuple[int, int]]()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-mended", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="small", messages=ASK)
        answered = raw.parse()
        assert "Paris" in answered.choices[0].message.content
        assert (raw.headers["x-governor-rung"], raw.headers["x-governor-attempts"]) == ("whole", "2")
        seen.append(told(raw.headers))
        assert answered.usage.total_tokens == seen[-1][0]
        raw = client.responses.with_raw_response.create(model="small", input=ASK[0]["content"])
        assert "Paris" in raw.parse().output_text
        seen.append(told(raw.headers))
        assert raw.parse().usage.total_tokens == seen[-1][0]
    with anthropic.Anthropic(base_url=url, api_key="sk-mended", max_retries=0) as client:
        raw = client.messages.with_raw_response.create(model="small", max_tokens=90, messages=ASK)
        assert "Paris" in raw.parse().content[0].text
        seen.append(told(raw.headers))
    spent = fleet.spent("mended")
    assert (spent.tokens, spent.micros) == (sum(tokens for tokens, _ in seen), sum(micros for _, micros in seen))


def test_streams_are_booked_as_their_last_chunk_says(fleet: Fleet) -> None:
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    url, tokens = fleet.urls[1], 0
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-streamed", max_retries=0) as client:
        pieces = client.chat.completions.create(
            model="large", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(pieces)
        assert "Paris" in "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        assert sum(1 for one in chunks if one.choices and one.choices[0].delta.content) > 2, "as it came"
        tokens += chunks[-1].usage.total_tokens
        final = list(client.responses.create(model="large", input=ASK[0]["content"], stream=True))[-1].response
        assert "Paris" in final.output_text
        tokens += final.usage.total_tokens
    with anthropic.Anthropic(base_url=url, api_key="sk-streamed", max_retries=0) as client:
        with client.messages.stream(model="large", max_tokens=90, messages=ASK) as stream:
            assert "Paris" in stream.get_final_text()
            usage = stream.get_final_message().usage
        tokens += usage.input_tokens + usage.output_tokens + (usage.cache_read_input_tokens or 0)
    assert fleet.spent("streamed").tokens == tokens


async def test_async_clients_call_tools_and_keep_to_schemas(fleet: Fleet) -> None:
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    url, tokens = fleet.urls[0], 0
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-tools", max_retries=0) as client:
        ask = {"model": "caller", "messages": WEATHER, "tools": [TOOL], "tool_choice": "required"}
        called = await client.chat.completions.create(**ask)
        (call,) = called.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"city"}
        tokens += called.usage.total_tokens
        stream = await client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        deltas = [one for chunk in chunks for choice in chunk.choices for one in choice.delta.tool_calls or ()]
        assert "".join(one.function.arguments or "" for one in deltas) == call.function.arguments
        tokens += chunks[-1].usage.total_tokens
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-tools", max_retries=0) as client:
        tool: Any = {"name": "weather", "description": "Tells it.", "input_schema": CITY}
        answered = await client.messages.create(
            model="caller", max_tokens=90, messages=WEATHER, tools=[tool], tool_choice={"type": "any"}
        )
        (used,) = [block for block in answered.content if block.type == "tool_use"]
        assert (used.name, used.input) == ("weather", json.loads(call.function.arguments))
        tokens += answered.usage.input_tokens + answered.usage.output_tokens
    assert fleet.spent("tools").tokens == tokens


async def test_structured_output_is_what_the_schema_says(fleet: Fleet) -> None:
    openai = pytest.importorskip("openai")
    before = fleet.spent("streamed").tokens
    schema: Any = {"type": "json_schema", "json_schema": {"name": "digit", "schema": DIGIT}}
    async with openai.AsyncOpenAI(base_url=f"{fleet.urls[0]}/v1", api_key="sk-streamed", max_retries=0) as client:
        shaped = await client.chat.completions.create(model="large", messages=ASK, response_format=schema)
    assert json.loads(shaped.choices[0].message.content)["n"] in range(10)
    assert fleet.spent("streamed").tokens == before + shaped.usage.total_tokens


async def test_two_proxies_share_one_cap(fleet: Fleet) -> None:
    """Six requests to each: neither passes nine by itself."""
    headers = {"authorization": "Bearer sk-capped"}
    asked = {"model": "large", "messages": ASK, "max_tokens": 8}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        urls = [f"{url}/v1/chat/completions" for url in fleet.urls] * 6
        answers = await asyncio.gather(*(client.post(url, json=asked) for url in urls))
    served = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 402, 429}
    assert len(served) == 9
    spent = fleet.spent("capped")
    assert spent.calls == 9
    assert spent.tokens == sum(answer.json()["usage"]["total_tokens"] for answer in served)
