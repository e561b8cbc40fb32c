"""Stop rules on the proxy's streams: how a client's stream ends, what is booked, and what the loop makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
import pytest

from governor.records import Outcome
from governor_litellm.flight import Flight
from governor_litellm.proxy import serving_router
from tests.governor_litellm.arrivals import Arrivals, streamed
from tests.governor_litellm.proxy_app import ProxyUnderTest, known
from tests.governor_litellm.shown import events, said
from tests.governor_litellm.test_proxy_streams import COUNTED, LADDERS, VERIFIED, WIRES, Nobody, arrived, body
from tests.governor_litellm.upstream import LOOP, STRONG, WEAK

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHAT, RESPONSES, MESSAGES = WIRES
STOPS = "stops: {repeat: 4}\n"
GIVEN = 16 + 64
"""Tokens that are held for a message beside its bytes."""
A = TypeVar("A", httpx.Response, Arrivals)
LIMITS = {CHAT: "length", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}


def ladder(*models: str, **more: Any) -> str:
    """Rungs of these models, each dearer than the one before."""
    extra = "".join(f", {name}: {value}" for name, value in more.items())
    rungs = (
        f"  - {{id: {model}, model: {model}, answer_tokens: 400, timeout: 20{extra},"
        f" price: {{input: {price}, output: {2 * price}}}}}\n"
        for price, model in zip((1, 20), models, strict=False)
    )
    return "ladder:\n" + "".join(rungs) + known(*models)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """How every flight ends."""
    seen: list[Outcome] = []
    ended = Flight._ended

    def noted(flight: Flight, task: asyncio.Task[Outcome]) -> None:
        seen.append(task.result())
        ended(flight, task)

    monkeypatch.setattr(Flight, "_ended", noted)
    return seen


def reason(path: str, found: list[dict[str, Any]]) -> Any:
    """Why a stream ended, in its format's own word."""
    if path == RESPONSES:
        return found[-1]["response"]["incomplete_details"]["reason"]
    if path == MESSAGES:
        return next(one["delta"]["stop_reason"] for one in found if one["type"] == "message_delta")
    return next(word for one in found for choice in one["choices"] if (word := choice.get("finish_reason")))


def told(path: str, found: list[dict[str, Any]]) -> tuple[int, ...]:
    """The usage that a client is told: input, where its format repeats that, and output."""
    if path == RESPONSES:
        usage = found[-1]["response"]["usage"]
        return usage["input_tokens"], usage["output_tokens"]
    if path == MESSAGES:
        return (next(one["usage"]["output_tokens"] for one in found if one["type"] == "message_delta"),)
    (usage,) = [one["usage"] for one in found if one.get("usage")]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def cut_off(proxy: ProxyUnderTest) -> bool:
    for _ in range(100):
        if proxy.upstream.cut_off:
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("path", WIRES)
async def test_a_stuck_stream_that_passes_is_ended_and_booked(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    model = LADDERS[path][0]
    app = proxy.policy(COUNTED + STOPS, ladder=ladder(model))
    proxy.default(app)
    asked = {"stream_options": {"include_usage": True}} if path == CHAT else {}
    answered = await proxy.post(path, body(path, "loops slow", model=model, **asked))
    assert answered.status_code == 200, answered.text
    found, shown = events(answered.text), said(path, answered.text) + " "
    assert (LOOP * 40).startswith(shown)
    assert 3 * len(LOOP) < len(shown) < 9 * len(LOOP)
    assert reason(path, found) == LIMITS[path]
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.input, spent.answer, spent.calls) == (len("loops slow") + GIVEN, len(shown), 1)
    assert told(path, found) == (spent.input, spent.answer)[-len(told(path, found)) :]
    assert await cut_off(proxy), "the upstream request was ended"
    (outcome,) = outcomes
    (attempt,) = outcome.attempts
    assert attempt.reply is not None
    assert (attempt.reply.stopped, attempt.failure, attempt.shippable) == ("repeat", "stuck", False)


@pytest.mark.parametrize("path", WIRES)
async def test_a_key_with_one_slot_has_it_again_after_a_stream_was_ended(proxy: ProxyUnderTest, path: str) -> None:
    model = LADDERS[path][0]
    proxy.default(proxy.policy(COUNTED + STOPS, ladder=ladder(model)))
    for _ in range(3):
        answered = await admitted(lambda: proxy.post(path, body(path, "loops slow", model=model), key="sk-one"))
        assert answered.status_code == 200, answered.text
        assert reason(path, events(answered.text)) == LIMITS[path]


@pytest.mark.parametrize("model", ["claude", "small"])
async def test_the_same_of_messages_whether_or_not_litellm_logs_them(proxy: ProxyUnderTest, model: str) -> None:
    proxy.default(proxy.policy(COUNTED + STOPS, ladder=ladder(model)))
    for _ in range(2):
        answered = await admitted(lambda: proxy.post(MESSAGES, body(MESSAGES, "loops slow", model=model), key="sk-one"))
        assert answered.status_code == 200, answered.text


@pytest.mark.parametrize("path", WIRES)
async def test_a_key_with_one_slot_has_it_again_after_its_client_has_left(proxy: ProxyUnderTest, path: str) -> None:
    model = LADDERS[path][0]
    proxy.default(proxy.policy(COUNTED, ladder=ladder(model)))
    asked = body(path, "slow", model=model)
    for _ in range(3):
        came = await admitted(lambda: streamed(proxy, path, asked, leave=bool, key="sk-one"))
        assert came.status_code == 200, came.text
        await proxy.idle()


async def admitted(ask: Callable[[], Awaitable[A]]) -> A:
    """The answer, once the key's one slot is free for it: LiteLLM sees to that behind the client.

    Asked for itself: whatever else were asked to find out would hold the slot next.
    """
    async with asyncio.timeout(10):
        while (answer := await ask()).status_code == 429:  # noqa: ASYNC110 - LiteLLM tells nobody
            await asyncio.sleep(0.1)
    return answer


async def test_a_response_that_is_ended_is_closed_from_the_inside_out(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(STOPS, ladder=ladder("small")))
    found = events((await proxy.post(RESPONSES, body(RESPONSES, "loops"))).text)
    shown = "".join(one["delta"] for one in found if one["type"] == "response.output_text.delta")
    *_, text, part, item, end = found
    assert (text["type"], text["text"]) == ("response.output_text.done", shown)
    assert (part["type"], part["part"]["text"]) == ("response.content_part.done", shown)
    assert (item["type"], item["item"]["status"]) == ("response.output_item.done", "incomplete")
    assert (end["type"], end["response"]["status"]) == ("response.incomplete", "incomplete")
    assert end["response"]["output"][0]["content"][0]["text"] == shown
    numbers = [one["sequence_number"] for one in (text, part, item, end)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("path", WIRES)
async def test_a_stuck_stream_that_is_held_is_never_seen(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(VERIFIED.replace("'42'", "'.'") + STOPS + "dial: 0.9\n", ladder=ladder(*LADDERS[path]))
    proxy.default(app)
    answered = await proxy.post(path, body(path, "loops", model=LADDERS[path][0]))
    assert said(path, answered.text) == STRONG
    (outcome,) = outcomes
    stopped = [(one.reply.stopped, one.failure) for one in outcome.attempts if one.reply is not None]
    assert stopped == [("repeat", "stuck"), ("", "")]
    assert proxy.balance(f"app:{app}").spent.calls == 2


async def test_further_calls_are_watched_too(proxy: ProxyUnderTest, outcomes: list[Outcome]) -> None:
    app = proxy.policy(VERIFIED + STOPS + "dial: 0.9\n", ladder=ladder("small", "thinker"))
    proxy.default(app)
    loops = [{"role": "user", "content": "loops slow"}]
    answered = await proxy.chat(stream=True, messages=loops, stream_options={"include_usage": True})
    (outcome,) = outcomes
    replies = [(one.rung.model, one.reply.stopped, one.failure) for one in outcome.attempts if one.reply is not None]
    assert replies == [("small", "repeat", "stuck"), ("thinker", "repeat", "stuck")]
    assert len(proxy.upstream.seen) == 2
    assert outcome.status == "best_so_far"
    found = events(answered.text)
    assert reason(CHAT, found) == "length", "the best of what came, and how it ended"
    assert (LOOP * 40).startswith(said(CHAT, answered.text))
    assert told(CHAT, found) == (outcome.usage.input_tokens, outcome.usage.output_tokens)
    spent = proxy.balance(f"app:{app}").spent
    assert spent.tokens == outcome.usage.total_tokens
    assert await cut_off(proxy)


@pytest.mark.parametrize("path", WIRES)
async def test_a_thought_over_its_budget_is_ended(proxy: ProxyUnderTest, outcomes: list[Outcome], path: str) -> None:
    model = LADDERS[path][0]
    proxy.default(proxy.policy(COUNTED + "stops: {budget: 20}\ndial: 0.9\n", ladder=ladder(*LADDERS[path])))
    answered = await proxy.post(path, body(path, "ponders slow", model=model))
    found = events(answered.text)
    assert reason(path, found) == LIMITS[path]
    assert not said(path, answered.text)
    reply = outcomes[0].attempts[0].reply
    assert reply is not None
    assert (reply.stopped, reply.finish_reason) == ("budget", "length")
    assert 10 < len(reply.thinking.split()) < 40
    assert len(proxy.upstream.seen) == 1, "the client has the stream: nothing may follow it"
    if path == MESSAGES:
        assert [one["index"] for one in found if one["type"] == "content_block_stop"] == [0]
    if path == RESPONSES:
        kinds = [one["type"].removeprefix("response.") for one in found[-4:]]
        assert kinds == ["reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done", "incomplete"]


async def test_a_server_that_counts_is_booked_to_the_token(proxy: ProxyUnderTest, outcomes: list[Outcome]) -> None:
    app = proxy.policy(COUNTED + "stops: {budget: 20}\n", ladder=ladder("thinker", thinking_tokens=300))
    proxy.default(app)
    answered = await proxy.chat(stream=True, model="thinker", messages=[{"role": "user", "content": "ponders"}])
    thoughts = [one["choices"][0]["delta"].get("reasoning_content") for one in events(answered.text)]
    number = len([one for one in thoughts if one])
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.input, spent.tokens) == (20, 20 + number)
    assert number in (20, 21), "as the rule says, or a token late"
    assert not any("usage" in one for one in events(answered.text)), "the client did not ask"
    assert outcomes[0].attempts[0].usage.output_tokens == number


@pytest.mark.parametrize("asked", [0, 1])
async def test_log_probabilities_are_asked_for_and_shown_to_nobody_else(proxy: ProxyUnderTest, asked: int) -> None:
    proxy.default(proxy.policy(COUNTED + "stops: {margin: 0.1}\n", ladder=ladder("thinker", thinking_tokens=300)))
    own = {"logprobs": True, "top_logprobs": asked} if asked else {}
    answered = await proxy.post(CHAT, body(CHAT, "ponders", model="thinker", **own))
    (sent,) = proxy.upstream.seen
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 20)
    choices = [choice for one in events(answered.text) for choice in one["choices"]]
    thoughts = [one["delta"]["reasoning_content"] for one in choices if one["delta"].get("reasoning_content")]
    assert thoughts == ["t0. ", "t1. "], "sure at its first stop, and a token late"
    shown = [one["logprobs"]["content"][0] for one in choices if one.get("logprobs")]
    assert [len(one["top_logprobs"]) for one in shown] == [1, 1] * asked


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
async def test_formats_without_log_probabilities_are_not_asked_for_any(proxy: ProxyUnderTest, path: str) -> None:
    model = LADDERS[path][0]
    proxy.default(proxy.policy(COUNTED + "stops: {margin: 0.1}\n", ladder=ladder(model)))
    answered = await proxy.post(path, body(path, model=model))
    assert said(path, answered.text) == WEAK
    assert "logprobs" not in proxy.upstream.seen[0]


async def test_what_is_not_streamed_can_be_stuck_but_not_ended(proxy: ProxyUnderTest, outcomes: list[Outcome]) -> None:
    app = proxy.policy(COUNTED + "stops: {repeat: 4, budget: 1}\ndial: 0.9\n", ladder=ladder("small", "large"))
    proxy.default(app)
    answered = await proxy.chat(messages=[{"role": "user", "content": "loops"}])
    assert answered.json()["choices"][0]["message"]["content"] == STRONG
    first, second = (attempt.reply for attempt in outcomes[0].attempts)
    assert first is not None
    assert second is not None
    assert (first.stopped, first.finish_reason, second.stopped) == ("repeat", "stuck", "")
    assert first.text == LOOP * 40, "whole, and paid for"
    assert proxy.balance(f"app:{app}").spent.calls == 2


async def test_a_rung_without_rules_is_left_alone(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(COUNTED, ladder=ladder("thinker", thinking_tokens=300)))
    answered = await proxy.chat(stream=True, model="thinker", messages=[{"role": "user", "content": "loops"}])
    assert said(CHAT, answered.text) == (LOOP * 40).strip()
    (sent,) = proxy.upstream.seen
    assert "logprobs" not in sent
    assert "continuous_usage_stats" not in sent["stream_options"]


async def test_in_shadow_no_rule_acts(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(COUNTED + STOPS + "mode: shadow\n", ladder=ladder("small")))
    answered = await proxy.chat(stream=True, messages=[{"role": "user", "content": "loops"}])
    assert said(CHAT, answered.text) == (LOOP * 40).strip()


async def test_tool_calls_stream_under_rules(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(COUNTED + "stops: {repeat: 4, margin: 0.1, budget: 5}\n", ladder=ladder("small")))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    answered = await proxy.chat(stream=True, messages=[{"role": "user", "content": "usetool"}], tools=[tool])
    found = [choice for one in events(answered.text) for choice in one["choices"]]
    calls = [call["function"] for one in found for call in one["delta"].get("tool_calls") or ()]
    assert [(call["name"], call["arguments"]) for call in calls] == [("weather", '{"city": "Oslo"}')]
    assert found[-1]["finish_reason"] == "tool_calls"


async def test_a_reader_that_goes_away_after_the_end_changes_nothing(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(COUNTED + STOPS, ladder=ladder("small"))
    proxy.default(app)
    data, hook = arrived("loops slow"), proxy.governor
    await hook.async_pre_call_hook(Nobody(), None, data, "acompletion")
    kwargs = {key: data[key] for key in ("model", "messages", "max_tokens", "metadata")}
    response = await serving_router().acompletion(**kwargs, stream=True, stream_options={"include_usage": True})
    seen = ""
    async with aclosing(hook.async_post_call_streaming_iterator_hook(Nobody(), response, data)) as stream:
        async for chunk in stream:
            seen += chunk.choices[0].delta.content or ""
            if chunk.choices[0].finish_reason:
                break
    await response.aclose()
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.answer, balance.spent.calls, balance.reserved.calls) == (len(seen), 1, 0)
