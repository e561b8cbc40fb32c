from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

import pytest

from governor_litellm.proxy import serving_router
from tests.governor_litellm.proxy_app import ASK, LADDER, ProxyUnderTest, known
from tests.governor_litellm.shown import events, said
from tests.governor_litellm.upstream import STRONG, TELLS, WEAK

pytestmark = pytest.mark.asyncio(loop_scope="session")
WIRES = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
VERIFIED = "verify: {regex: '42'}\nbudget: {app: {per: total, usd: 1}}\n"
COUNTED = "budget: {app: {per: total, usd: 1}}\n"


def body(path: str, text: str = "What is it?", **more: Any) -> dict[str, Any]:
    asked = {"model": "small", "stream": True, **more}
    if path.endswith("responses"):
        return {**asked, "input": text}
    if path.endswith("messages"):
        asked = {"max_tokens": 4000, "model": "claude", **asked} | {"model": more.get("model", "claude")}
    return {**asked, "messages": [{"role": "user", "content": text}]}


LADDERS = {
    "/v1/chat/completions": ("small", "large"),
    "/v1/responses": ("small", "large"),
    "/v1/messages": ("claude", "opus"),
}


def ladder(path: str) -> str:
    weak, strong = LADDERS[path]
    return (
        f"ladder:\n  - {{id: weak, model: {weak}, answer_tokens: 100, timeout: 20, price: {{input: 1, output: 2}}}}\n"
        f"  - {{id: strong, model: {strong}, answer_tokens: 200, timeout: 20, price: {{input: 5, output: 10}}}}\n"
        + known(weak, strong)
    )


@pytest.mark.parametrize("path", WIRES)
async def test_a_stream_without_a_verifier_passes_as_it_is(proxy: ProxyUnderTest, path: str) -> None:
    model = LADDERS[path][0]
    bare = await proxy.post(path, body(path, model=model))
    app = proxy.policy(COUNTED, ladder=ladder(path).splitlines(keepends=True)[0] + ladder(path).splitlines()[1] + "\n")
    proxy.default(app)
    answered = await proxy.post(path, body(path, model=model))
    assert answered.status_code == 200, answered.text
    assert said(path, answered.text) == said(path, bare.text) == WEAK
    assert len(events(answered.text)) == len(events(bare.text))
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.tokens, spent.calls) == (30, 1), "booked from the stream's last chunk"
    assert answered.headers["x-governor-status"] == "streaming"


@pytest.mark.parametrize("path", WIRES)
async def test_a_rejected_stream_is_never_seen(proxy: ProxyUnderTest, path: str) -> None:
    app = proxy.policy(VERIFIED, ladder=ladder(path))
    proxy.default(app)
    answered = await proxy.post(path, body(path, model=LADDERS[path][0]))
    assert answered.status_code == 200, answered.text
    assert said(path, answered.text) == STRONG
    assert "41" not in said(path, answered.text)
    assert len(proxy.upstream.seen) == 2
    assert proxy.balance(f"app:{app}").spent.calls == 2
    kinds = [one.get("type") for one in events(answered.text)]
    if path.endswith("messages"):
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    elif path.endswith("responses"):
        assert kinds[-1] == "response.completed"
        assert events(answered.text)[-1]["response"]["usage"]["output_tokens"] == 40
    else:
        assert [one["choices"][0].get("finish_reason") for one in events(answered.text)][-1] == "stop"


async def test_the_usage_of_a_held_stream_is_that_of_all_attempts(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(VERIFIED))
    answered = await proxy.chat(stream=True, stream_options={"include_usage": True})
    told = [one["usage"] for one in events(answered.text) if one.get("usage")]
    assert [(one["prompt_tokens"], one["completion_tokens"], one["total_tokens"]) for one in told] == [(40, 40, 80)]


async def test_an_accepted_stream_is_released_as_it_was(proxy: ProxyUnderTest) -> None:
    bare = await proxy.chat(stream=True, model="large")
    proxy.default(proxy.policy(VERIFIED))
    answered = await proxy.chat(stream=True, messages=[*ASK, {"role": "user", "content": "x"}], model="large")
    assert said("chat", answered.text) == said("chat", bare.text) == STRONG


async def test_tool_calls_stream(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(VERIFIED.replace("regex: '42'", "regex: '.*'")))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    asked = [{"role": "user", "content": "usetool"}]
    answered = await proxy.chat(stream=True, messages=asked, tools=[tool])
    calls = [
        call
        for one in events(answered.text)
        if one["choices"]
        for call in one["choices"][0]["delta"].get("tool_calls") or ()
    ]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("weather", '{"city": "Oslo"}')
    ]


async def test_a_held_stream_that_breaks_off_is_mended(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(VERIFIED)
    proxy.default(app)
    answered = await proxy.chat(stream=True, messages=[{"role": "user", "content": "cut onlyweak"}])
    assert said("chat", answered.text) == STRONG
    await proxy.idle()
    assert proxy.balance(f"app:{app}").reserved.calls == 0


async def test_a_shown_stream_that_breaks_off_is_settled(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(COUNTED)
    proxy.default(app)
    answered = await proxy.chat(stream=True, messages=[{"role": "user", "content": "cut"}])
    assert answered.status_code in (200, 500, 503)
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (1, 0)
    assert len(proxy.upstream.seen) == 1, "text that was shown can't be taken back"


async def test_a_reader_that_goes_away_is_booked_for_what_it_saw(proxy: ProxyUnderTest) -> None:
    """Through the router and the hook itself: an ASGI transport gives a response only once it is whole."""
    app = proxy.policy(COUNTED, ladder=known("small", "large") + LADDER)
    proxy.default(app)
    data = arrived("slow")
    hook = proxy.governor
    await hook.async_pre_call_hook(Nobody(), None, data, "acompletion")
    kwargs = {key: data[key] for key in ("model", "messages", "max_tokens", "metadata")}
    response = await serving_router().acompletion(**kwargs, stream=True, stream_options={"include_usage": True})
    seen = 0
    async with aclosing(hook.async_post_call_streaming_iterator_hook(Nobody(), response, data)) as stream:
        async for _ in stream:
            seen += 1
            if seen == 8:
                break
    await response.aclose()  # as the proxy does when its reader is gone
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert balance.reserved.calls == 0
    assert balance.spent.calls == 1
    assert 0 < balance.spent.answer < 100, "what was streamed, in bytes, and not the whole bound"
    for _ in range(100):
        if proxy.upstream.cut_off:
            break
        await asyncio.sleep(0.02)
    assert proxy.upstream.cut_off == 1, "the upstream request was ended"


NEWER = pytest.mark.skipif(tuple(map(int, version("litellm").split(".")[:2])) < (1, 106), reason="LiteLLM before 1.106")
"""An older one hides how a stream ended, what a stream of messages is made of, and who logs that."""

MADE_UP = [
    (WIRES[0], "gpt", "nousage", 100),
    (WIRES[0], "gpt", "unfinished", 100),
    (WIRES[0], "small", "nousage", len(f"{WEAK} ")),
    pytest.param(WIRES[0], "small", "unfinished", 100, marks=NEWER),
    (WIRES[0], "thinker", "nousage", len(f"{WEAK} ")),
    pytest.param(WIRES[2], "thinker", "nousage", len(f"{WEAK} "), marks=NEWER),
    pytest.param(WIRES[2], "thinker", "unfinished", 100, marks=NEWER),
]


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("path", "model", "word", "most"), MADE_UP)
async def test_what_litellm_makes_up_of_a_stream_is_not_what_its_server_counted(
    proxy: ProxyUnderTest, path: str, model: str, word: str, most: int, told: bool
) -> None:
    """At its bound, or where it can't have thought in secret by its bytes; a stream without an end always."""
    rung = f"ladder: [{{id: a, model: {model}, answer_tokens: 100, timeout: 20, price: {{input: 1, output: 2}}}}]\n"
    app = proxy.policy(COUNTED, ladder=rung + known(model))
    proxy.default(app)
    more = {"stream_options": {"include_usage": True}} if told and path == WIRES[0] else {}
    answered = await proxy.post(path, body(path, word, model=model, **more))
    assert said(path, answered.text) == WEAK, answered.text
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.answer == most


@NEWER
async def test_a_held_stream_without_an_end_is_mended(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(f"dial: 0.9\n{VERIFIED}")
    proxy.default(app)
    answered = await proxy.chat(stream=True, messages=[{"role": "user", "content": "tellsfine unfinished onlyweak"}])
    assert said("chat", answered.text) == STRONG
    asked = [sent["model"] for sent in proxy.upstream.seen]
    assert (asked[0], asked[-1]) == ("small", "large")
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.calls == len(asked)


async def test_a_request_that_gets_lost_is_settled_and_said(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(COUNTED)
    proxy.default(app)
    data = arrived("x") | {"litellm_logging_obj": Nobody()}
    before = proxy.governor.watch.missed["async_post_call_success_hook"]
    await proxy.governor.async_pre_call_hook(Nobody(), None, data, "acompletion")
    assert proxy.balance(f"app:{app}").reserved.calls == 1
    data.clear()
    await proxy.idle()
    assert proxy.balance(f"app:{app}").reserved.calls == 0
    assert proxy.governor.watch.missed["async_post_call_success_hook"] == before + 1
    proxy.governor.watch.missed.clear()


async def test_concurrent_requests_never_pass_a_limit(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: total, calls: 7}}\n")
    proxy.default(app)
    answers = await asyncio.gather(*(proxy.chat(stream=number % 2 == 0) for number in range(24)))
    await proxy.idle()
    served = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 402, 429}
    assert len(served) == len(proxy.upstream.seen) == proxy.balance(f"app:{app}").spent.calls == 7
    for answer in answers:
        assert answer.status_code != 429 or int(answer.headers["retry-after"]) > 0


def arrived(text: str) -> dict[str, Any]:
    """What the proxy hands to its hooks."""
    asked = {"model": "small", "messages": [{"role": "user", "content": text}], "stream": True}
    url = "http://proxy/v1/chat/completions"
    return {**asked, "metadata": {}, "proxy_server_request": {"url": url, "headers": {}, "body": dict(asked)}}


class Nobody:
    """A key that is bound to nothing."""


@pytest.mark.parametrize("stream", ["pass", "buffer", "speculate"])
async def test_a_stream_that_never_pauses_ends_with_its_calls_time_all_the_same(
    proxy: ProxyUnderTest, stream: str
) -> None:
    rung = "ladder: [{id: a, model: small, answer_tokens: 400, timeout: 0.4, price: {input: 1, output: 2}}]\n"
    checks = "verify: {contains: {text: is, absent: [bad]}}\n"
    app = proxy.policy(f"stream: {stream}\n{checks}{COUNTED}", ladder=rung)
    proxy.default(app)
    answered = await proxy.post(WIRES[0], body(WIRES[0], "tellsfine slow"), **{"x-litellm-stream-timeout": "99999"})
    told = answered.text
    if stream == "buffer":
        assert answered.status_code in (408, 503, 504) or "504" in told, (answered.status_code, told)
    else:
        assert "no whole answer within 0.4 s" in told
        assert '"504"' in told, told[-300:]
    assert "w49" not in answered.text, "that comes after more than a second"
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (2 if stream == "buffer" else 1, 0), (
        "unseen, it is tried again"
    )


async def test_a_stream_that_is_read_is_not_lost_however_long_it_takes(
    proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shadow nothing may end it; with a patience of next to nothing it would have been given up long ago."""
    monkeypatch.setattr("governor_litellm.flight.PATIENCE", 0.01)
    rung = "ladder: [{id: a, model: small, answer_tokens: 400, timeout: 0.05, price: {input: 1, output: 2}}]\n"
    app = proxy.policy(f"mode: shadow\n{COUNTED}", ladder=rung)
    proxy.default(app)
    answered = await proxy.post(WIRES[0], body(WIRES[0], "slow", stream_options={"include_usage": True}))
    assert "w49" in answered.text
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.tokens == 30, "booked by its usage, not at its bound"


async def test_usage_that_comes_in_two_pieces_is_that_of_all_attempts(proxy: ProxyUnderTest) -> None:
    path = "/v1/messages"
    app = proxy.policy(VERIFIED, ladder=ladder(path))
    proxy.default(app)
    answered = await proxy.post(path, body(path, "halves"))
    assert said(path, answered.text) == STRONG
    told = [one["usage"]["output_tokens"] for one in events(answered.text) if one["type"] == "message_delta"]
    await proxy.idle()
    assert told == [proxy.balance(f"app:{app}").spent.answer]


@pytest.mark.parametrize("stream", ["buffer", "speculate"])
@pytest.mark.parametrize("word", ["afterwards", "afterwards nousage"])
async def test_a_held_stream_that_fails_after_its_whole_answer_is_one(
    proxy: ProxyUnderTest, word: str, stream: str
) -> None:
    """Its usage is told all the same: what was counted, or booked of it."""
    checks = "dial: 0.9\nverify: {contains: {text: is, absent: [bad]}}\n"
    app = proxy.policy(f"stream: {stream}\n{checks}{COUNTED}", ladder=LADDER + known("small", "large"))
    proxy.default(app)
    asked = [{"role": "user", "content": f"tellsfine {word}"}]
    answered = await proxy.chat(stream=True, messages=asked, stream_options={"include_usage": True})
    assert answered.status_code == 200, answered.text
    assert said("chat", answered.text) == TELLS["tellsfine"]
    await proxy.idle()
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.calls, spent.tokens == 30) == (1, word == "afterwards")
    found = events(answered.text)
    assert [one["usage"]["total_tokens"] for one in found if one.get("usage")] == [spent.tokens]
    assert not any("error" in one for one in found)


@pytest.mark.parametrize("text", ["What is it?", "caches"])
async def test_a_held_stream_of_messages_tells_the_input_of_all_attempts_too(proxy: ProxyUnderTest, text: str) -> None:
    """Its start has told that of the accepted one; a client takes the last number, as of a whole answer."""
    path = "/v1/messages"
    proxy.default(proxy.policy(VERIFIED, ladder=ladder(path)))
    whole = (await proxy.post(path, body(path, text, stream=False))).json()["usage"]
    found = events((await proxy.post(path, body(path, text))).text)
    (last,) = (one["usage"] for one in found if one["type"] == "message_delta")
    started = next(one["message"]["usage"] for one in found if one["type"] == "message_start")
    assert {name: tokens for name, tokens in (started | last).items() if tokens} == whole
    assert (len(proxy.upstream.seen), whole["input_tokens"]) == (4, 40)


@pytest.mark.parametrize("path", WIRES)
@pytest.mark.parametrize("stream", ["pass", "buffer", "speculate"])
async def test_a_stream_that_ran_out_of_time_gives_its_keys_slot_back(
    proxy: ProxyUnderTest, path: str, stream: str
) -> None:
    rung = "ladder: [{id: a, model: small, answer_tokens: 400, timeout: 0.2, price: {input: 1, output: 2}}]\n"
    proxy.default(proxy.policy(f"stream: {stream}\nbacktrack: {{max_attempts: 1}}\nverify: complete\n", ladder=rung))
    first = await proxy.post(path, body(path, "tellsfine slow", model="small"), key="sk-one")
    assert "to say" not in first.text
    await proxy.idle()
    for _ in range(100):
        if (answered := await proxy.chat("sk-one")).status_code == 200:
            return
        assert answered.status_code == 429, answered.text
        await asyncio.sleep(0.05)
    raise AssertionError("the slot is still held")
