"""What LiteLLM itself logs and books, and what Governor writes down."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governor.plan.dialects import dialect_for
from governor.records import Call, Rung
from governor_litellm.wires.messages import MessagesWire
from tests.governor_litellm.proxy_app import LADDER, ProxyUnderTest
from tests.governor_litellm.shown import said
from tests.governor_litellm.test_proxy_stops import MESSAGES, RESPONSES
from tests.governor_litellm.test_proxy_stops import ladder as rungs
from tests.governor_litellm.test_proxy_streams import NEWER, body
from tests.governor_litellm.upstream import STRONG, WEAK

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHAT = "/v1/chat/completions"
VERIFIED = "verify: {regex: '42'}\nbudget: {app: {per: total, usd: 1}}\n"


class Logged:
    """The calls that LiteLLM logged as successful."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def of(self, number: int) -> list[tuple[str, int, str]]:
        """Model, tokens and key of each, once so many were logged; a little longer, so that more would show."""
        for _ in range(250):
            if len(self._routed()) >= number:
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        return self._routed()

    def _routed(self) -> list[tuple[str, int, str]]:
        """Those of the proxy: LiteLLM logs late, and other tests of this process use it as a library."""
        routed = [one for one in self.calls if one["model_group"]]
        return [(one["model_group"], one["total_tokens"], one["metadata"]["user_api_key_hash"]) for one in routed]


@pytest.fixture
def logged() -> Iterator[Logged]:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    seen = Logged()

    class Listener(CustomLogger):  # type: ignore[misc]  # mypy is told to skip litellm: too large to follow
        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            seen.calls.append(kwargs["standard_logging_object"])

    listener = Listener()
    litellm.logging_callback_manager.add_litellm_callback(listener)
    yield seen
    for callbacks in (litellm.callbacks, litellm._async_success_callback, litellm.success_callback):
        callbacks[:] = [one for one in callbacks if one is not listener]


@pytest.mark.parametrize("stream", [False, True])
async def test_litellm_logs_every_attempt_once_at_its_own_price(
    proxy: ProxyUnderTest, logged: Logged, stream: bool
) -> None:
    proxy.default(proxy.policy(VERIFIED))
    answered = await proxy.chat(stream=stream)
    assert answered.status_code == 200
    calls = await logged.of(2)
    assert sorted(call[:2] for call in calls) == [("large", 50), ("small", 30)]
    assert len({key for _, _, key in calls}) == 1, "all on the client's key"


@pytest.mark.parametrize(("path", "model"), [(CHAT, "small"), (RESPONSES, "small"), (MESSAGES, "small"), (CHAT, "gpt")])
async def test_litellm_logs_a_stream_that_a_rule_ended_as_governor_books_it(
    proxy: ProxyUnderTest, logged: Logged, path: str, model: str
) -> None:
    """Where thought may be hidden (gpt), that is the call's bound."""
    app = proxy.policy("stops: {repeat: 4}\nbudget: {app: {per: total, usd: 1}}\n", ladder=rungs(model))
    proxy.default(app)
    await proxy.post(path, body(path, "loops slow", model=model))
    ((group, tokens, _),) = await logged.of(1)
    assert (group, tokens) == (model, proxy.balance(f"app:{app}").spent.tokens)


async def test_litellm_logs_a_stream_of_messages_itself_where_it_counts_it(
    proxy: ProxyUnderTest, logged: Logged
) -> None:
    proxy.default(proxy.policy("stops: {repeat: 4}\n", ladder=rungs("claude")))
    await proxy.post(MESSAGES, body(MESSAGES, "loops slow", model="claude"))
    ((group, tokens, _),) = await logged.of(1)
    assert (group, tokens > 20) == ("claude", True)
    await asyncio.sleep(0.5)
    assert len(await logged.of(1)) == 1, "it was not told once more"


@pytest.mark.parametrize("path", [CHAT, pytest.param(MESSAGES, marks=NEWER)])
async def test_litellm_logs_an_attempt_that_was_ended_behind_another(
    proxy: ProxyUnderTest, logged: Logged, path: str
) -> None:
    stuck = VERIFIED.replace("'42'", "'.'") + "stops: {repeat: 4}\ndial: 0.9\n"
    app = proxy.policy(stuck, ladder=rungs("small", "thinker"))
    proxy.default(app)
    await proxy.post(path, body(path, "loops slow", model="small"))
    calls = await logged.of(2)
    assert {group for group, _, _ in calls} == {"small", "thinker"}, "both went round in circles"
    assert sum(tokens for _, tokens, _ in calls) == proxy.balance(f"app:{app}").spent.tokens
    assert len({key for _, _, key in calls}) == 1


async def test_a_stream_that_may_pass_is_not_verified(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(VERIFIED))
    desk = proxy.governor.desk
    before = desk.settings
    desk.settings = replace(before, stream="pass")
    answered = await proxy.chat(stream=True)
    desk.settings = before
    assert said(CHAT, answered.text) == WEAK
    assert len(proxy.upstream.seen) == 1


async def test_a_policy_says_so_for_its_own_streams(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(f"stream: pass\n{VERIFIED}"))
    answered = await proxy.chat(stream=True)
    assert said(CHAT, answered.text) == WEAK
    whole = await proxy.chat()
    shown = whole.json()["choices"][0]["message"]["content"]
    assert shown == STRONG, "what is no stream is verified all the same"
    desk = proxy.governor.desk
    before = desk.settings
    proxy.default(proxy.policy(f"stream: buffer\n{VERIFIED}"))
    desk.settings = replace(desk.settings, stream="pass")
    answered = await proxy.chat(stream=True)
    desk.settings = before
    assert said(CHAT, answered.text) == STRONG


async def test_records_hold_decisions_and_no_text_or_key(proxy: ProxyUnderTest, tmp_path: Path) -> None:
    desk = proxy.governor.desk
    before = desk.settings
    desk.settings = replace(before, records=tmp_path / "records")
    app = proxy.policy(VERIFIED)
    proxy.default(app)
    desk.settings = replace(desk.settings, records=None)
    await proxy.chat("sk-none", messages=[{"role": "user", "content": "my secret is hunter2\r\nx-evil: 1"}])
    text = (tmp_path / "records" / f"{app}.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) >= 3, "two attempts and an outcome"
    for secret in ("hunter2", "sk-none", WEAK, "x-evil"):
        assert secret not in text


@pytest.fixture
def untold(proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """A LiteLLM that does not tell when it asks a deployment; the hooks that are missed."""

    async def skipped(kwargs: Any, call_type: Any) -> Any:
        return kwargs

    monkeypatch.setattr("litellm.utils.async_pre_call_deployment_hook", skipped)
    missed = Counter[str]()
    monkeypatch.setattr(proxy.governor.watch, "missed", missed)
    return missed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_where_nothing_tells_that_a_model_was_asked_a_call_that_fails_counts_as_sent(
    proxy: ProxyUnderTest, untold: Counter[str], mode: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = proxy.policy(f"mode: {mode}\nbudget: {{app: {{per: total, calls: 50}}}}\n")
    proxy.default(app)
    assert (await proxy.chat(stream=stream)).status_code == 200
    await proxy.idle()
    assert untold == {"async_pre_call_deployment_hook": 1}
    assert "did not call async_pre_call_deployment_hook" in caplog.text
    before = proxy.balance(f"app:{app}").spent
    failed = await proxy.chat(stream=stream, messages=[{"role": "user", "content": "fail500"}])
    assert failed.status_code == 500
    await proxy.idle()
    spent = proxy.balance(f"app:{app}").spent
    assert (before.calls, spent.calls) == (1, 2)
    assert spent.tokens > before.tokens, "it is booked at its bound"


async def test_a_flight_that_was_open_before_counts_as_sent_too(proxy: ProxyUnderTest, untold: Counter[str]) -> None:
    app = proxy.policy("budget: {app: {per: total, calls: 50}}\n", ladder=LADDER.replace("timeout: 20", "timeout: 2"))
    proxy.default(app)
    proxy.upstream.hang = 60
    slow = asyncio.create_task(proxy.chat(messages=[{"role": "user", "content": "hang"}]))
    for _ in range(6_000):
        if proxy.upstream.seen:
            break
        await asyncio.sleep(0.01)
    assert len(proxy.governor.desk.flights) == 1
    assert (await proxy.chat()).status_code == 200
    assert (await slow).status_code != 200
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.calls == 2
    assert untold == {"async_pre_call_deployment_hook": 1}, "told once: the other was never answered"


async def test_retries_of_litellm_are_counted_once(proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.proxy.proxy_server import llm_router

    monkeypatch.setattr(llm_router, "num_retries", 1)
    app = proxy.policy("budget: {app: {per: total, calls: 50}}\n")
    proxy.default(app)
    answered = await proxy.chat(messages=[{"role": "user", "content": "fail500"}])
    assert answered.status_code == 500
    assert len(proxy.upstream.seen) >= 2
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.calls == 1


CACHING = """\
ladder:
  - {id: one, model: claude, answer_tokens: 100, timeout: 20,
     price: {input: 100, output: 200, cached_input: 10, cache_write: 125}}
"""


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {}),
        (CHAT, {"stream": True}),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/messages", {}),
        ("/v1/messages", {"stream": True}),
        ("/v1/responses", {}),
        ("/v1/responses", {"stream": True}),
    ],
)
async def test_what_is_written_to_a_prompt_cache_is_booked_at_its_own_price(
    proxy: ProxyUnderTest, path: str, more: dict[str, Any]
) -> None:
    """Anthropic's price list: writing costs 1.25 times the input, reading a tenth."""
    app = proxy.policy("budget: {app: {per: total, usd: 1}}\n", ladder=CACHING)
    proxy.default(app)
    asked = {**body(path, "caches", model="claude"), "stream": False, "max_tokens": 90, **more}
    answered = await proxy.post(path, asked)
    assert answered.status_code == 200, answered.text
    await proxy.idle()
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.input, spent.micros) == (54, 20 * 100 + 30 * 125 + 4 * 10 + (spent.tokens - 54) * 200)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_what_compaction_cost_is_booked(proxy: ProxyUnderTest, path: str, stream: bool) -> None:
    """Anthropic: `usage` itself leaves it out; what is billed is the sum of its iterations."""
    app = proxy.policy("budget: {app: {per: total, calls: 9}}\n", ladder=CACHING)
    proxy.default(app)
    answered = await proxy.post(path, {**body(path, "compacts", model="claude"), "stream": stream, "max_tokens": 90})
    assert answered.status_code == 200, answered.text
    await proxy.idle()
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.input, spent.tokens) == (2000 + 50 + 20, 2070 + 300 + 10)
    assert spent.micros == 2020 * 100 + 50 * 10 + 310 * 200


@pytest.mark.parametrize(
    ("said", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("model_context_window_exceeded", "length"), ("new", "new")],
)
async def test_why_a_message_ended_is_known(said: str, finish: str) -> None:
    raw = {"content": [{"type": "text", "text": "41"}], "stop_reason": said}
    call = Call(step_id="s", rung=Rung(id="r", model="m"), messages=())
    assert MessagesWire().reply(raw, call, dialect_for("anthropic/claude-opus-4-5")).finish_reason == finish


async def test_iterations_are_not_told_beside_the_usage_of_all_attempts(proxy: ProxyUnderTest) -> None:
    """A client that adds them up as its bill is told to would count an attempt twice."""
    second = "  - {id: two, model: opus, answer_tokens: 200, timeout: 20, price: {input: 500, output: 900}}\n"
    proxy.default(proxy.policy("verify: {regex: '42'}\n", ladder=CACHING + second))
    answered = await proxy.post(MESSAGES, {**body(MESSAGES, "compacts", model="claude"), "stream": False})
    assert answered.json()["usage"]["input_tokens"] == 2 * 2020, answered.text
    assert "iterations" not in answered.json()["usage"]
