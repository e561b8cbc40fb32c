"""Guardrails beside Governor: they mask what every attempt is sent, and screen the answer that ships."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from governor_litellm.guards import as_sent
from tests.governor_litellm.proxy_app import LADDER, ProxyUnderTest
from tests.governor_litellm.test_proxy_books import Logged, logged
from tests.governor_litellm.test_proxy_further import VERIFIED, asking
from tests.governor_litellm.test_proxy_hostile import PATHS
from tests.governor_litellm.upstream import STRONG, WEAK

__all__ = ["logged"]
pytestmark = pytest.mark.asyncio(loop_scope="session")
BRIEF = "Be brief."
INSTRUCTED = LADDER.replace("timeout: 20", f"timeout: 20, instruction: {BRIEF}", 1)
SECRET, MASK = "Ada Lovelace", "<PERSON>"
Guarding = Callable[..., Any]


@pytest.fixture
def guarding(proxy: ProxyUnderTest) -> Iterator[Guarding]:
    """Puts a guardrail behind Governor, with these hooks."""
    import litellm
    from litellm.integrations.custom_guardrail import CustomGuardrail

    added: list[Any] = []

    def add(event: str, **hooks: Any) -> Any:
        kind: Any = type("Guard", (CustomGuardrail,), hooks)
        added.append(kind(guardrail_name="guard", default_on=True, event_hook=event))
        litellm.logging_callback_manager.add_litellm_callback(added[-1])
        return added[-1]

    yield add
    litellm.callbacks[:] = [one for one in litellm.callbacks if one not in added]


async def masked(self: Any, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
    """Puts other content in the place of what it finds, as LiteLLM's own do on some routes."""
    for name in {"messages", "input", "instructions", "system"} & data.keys():
        data[name] = json.loads(json.dumps(data[name]).replace(SECRET, MASK))
    return data


@pytest.mark.parametrize("ladder", [LADDER, INSTRUCTED])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_what_a_guardrail_masks_is_masked_in_every_attempt(
    proxy: ProxyUnderTest, guarding: Guarding, wire: str, stream: bool, ladder: str
) -> None:
    guarding("pre_call", async_pre_call_hook=masked)
    proxy.default(proxy.policy(VERIFIED, ladder=ladder))
    answered = await proxy.post(PATHS[wire], asking(wire, f"Who is {SECRET}?", stream=stream))
    assert answered.status_code == 200, answered.text
    first, second = map(json.dumps, proxy.upstream.seen)
    assert MASK in first
    assert MASK in second
    assert SECRET not in first + second
    assert (BRIEF in first, BRIEF in second) == (ladder == INSTRUCTED, False)


def screening(texts: list[str], blocked: str) -> Any:
    async def screen(self: Any, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        from fastapi import HTTPException

        held = response if isinstance(response, dict) else response.model_dump()
        texts.append(next(text for text in (WEAK, STRONG) if text in json.dumps(held)))
        if texts[-1] == blocked:
            raise HTTPException(400, "a guardrail says no")

    return screen


@pytest.mark.parametrize("wire", PATHS)
async def test_a_guardrail_sees_the_answer_that_ships(proxy: ProxyUnderTest, guarding: Guarding, wire: str) -> None:
    texts: list[str] = []
    guarding("post_call", async_post_call_success_hook=screening(texts, "nothing"))
    proxy.default(proxy.policy(VERIFIED))
    answered = await proxy.post(PATHS[wire], asking(wire, "What is it?"))
    assert answered.status_code == 200, answered.text
    assert STRONG in answered.text
    assert texts == [WEAK, STRONG]
    assert answered.headers["x-governor-attempts"] == "2"


@pytest.mark.parametrize("wire", PATHS)
async def test_what_a_guardrail_refuses_is_an_error_and_settled(
    proxy: ProxyUnderTest, guarding: Guarding, wire: str
) -> None:
    guarding("post_call", async_post_call_success_hook=screening([], STRONG))
    app = proxy.policy(VERIFIED)
    proxy.default(app)
    answered = await proxy.post(PATHS[wire], asking(wire, "What is it?"))
    assert answered.status_code == 400
    assert STRONG not in answered.text
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (2, 0)


async def test_an_answer_that_was_screened_is_not_screened_again(proxy: ProxyUnderTest, guarding: Guarding) -> None:
    texts: list[str] = []
    guarding("post_call", async_post_call_success_hook=screening(texts, "nothing"))
    proxy.default(proxy.policy("dial: 1\nbudget: {app: {per: total, usd: 1}}\n"))
    await proxy.chat()
    assert texts == [WEAK]


async def test_a_guardrail_may_change_the_answer_that_ships(
    proxy: ProxyUnderTest, guarding: Guarding, logged: Logged
) -> None:
    async def veil(self: Any, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        response.choices[0].message.content = response.choices[0].message.content.replace("is it", MASK)
        return response

    guarding("post_call", async_post_call_success_hook=veil)
    proxy.default(proxy.policy(VERIFIED))
    answered = await proxy.chat()
    assert answered.json()["choices"][0]["message"]["content"] == f"42 {MASK}"
    assert answered.json()["usage"]["total_tokens"] == 80, "all attempts"
    assert len(await logged.of(2)) == 2


async def test_content_that_nobody_changed_is_the_clients_own() -> None:
    kept = {"messages": [{"role": "user", "content": SECRET}], "tools": [], "user": "u"}
    assert as_sent(kept, {**kept, "model": "small"}, BRIEF) is kept
    said = [{"role": "system", "content": f"Be kind.\n\n{BRIEF}"}, *kept["messages"]]
    sent = as_sent(kept, {**kept, "messages": said}, BRIEF)
    assert sent["messages"] == [{"role": "system", "content": "Be kind."}, *kept["messages"]]
    parts = [{"type": "text", "text": "Be kind."}, {"type": "text", "text": BRIEF}]
    assert as_sent({"system": parts[:1]}, {"system": parts}, BRIEF) == {"system": parts[:1]}
    assert as_sent({}, {"instructions": BRIEF}, BRIEF) == {}
