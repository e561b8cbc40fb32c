"""The further calls of a request: each asks its rung's own model, as the client asked the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governor_litellm.flight import Flight
from governor_litellm.models import NO_FALLBACKS
from governor_litellm.proxy import serving_router
from tests.governor_litellm.proxy_app import LADDER, ProxyUnderTest
from tests.governor_litellm.test_proxy_hostile import PATHS, body

pytestmark = pytest.mark.asyncio(loop_scope="session")
BOUNDED = "budget: {app: {per: total, usd: 1}}\n"
VERIFIED = f"verify: {{regex: '42'}}\n{BOUNDED}"
UPSIDE_DOWN = """\
ladder:
  - {id: first, model: large, answer_tokens: 100, timeout: 20, price: {input: 1, output: 2}}
  - {id: second, model: small, answer_tokens: 200, timeout: 20, price: {input: 5, output: 10}}
"""


def asking(wire: str, text: str, **more: Any) -> dict[str, Any]:
    said: Mapping[str, Any] = (
        {"input": text} if wire == "responses" else {"messages": [{"role": "user", "content": text}]}
    )
    return {**body(wire), **said, **more}


@pytest.fixture
def fallbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's own, which LiteLLM keeps in its router."""
    monkeypatch.setattr(serving_router(), "fallbacks", [{"small": ["large"]}])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_no_fallback_of_the_operators_answers_for_a_rung(
    proxy: ProxyUnderTest, fallbacks: None, wire: str, stream: bool
) -> None:
    proxy.default(proxy.policy(f"dial: 1\n{BOUNDED}"))
    answered = await proxy.post(PATHS[wire], asking(wire, "fail500 onlyweak", stream=stream))
    assert answered.status_code == 500
    assert [sent["model"] for sent in proxy.upstream.seen] == ["small"]
    assert not NO_FALLBACKS.keys() & proxy.upstream.seen[0].keys()


@pytest.mark.parametrize("wire", PATHS)
async def test_no_fallback_answers_for_a_further_rung(proxy: ProxyUnderTest, fallbacks: None, wire: str) -> None:
    proxy.default(proxy.policy(f"dial: 0.5\nverify: {{regex: '43'}}\n{BOUNDED}", ladder=UPSIDE_DOWN))
    answered = await proxy.post(PATHS[wire], asking(wire, "fail500 onlyweak", model="large"))
    assert "small" in [sent["model"] for sent in proxy.upstream.seen], "the further rung was asked"
    assert len(proxy.upstream.seen) == int(answered.headers["x-governor-attempts"])
    assert not any(NO_FALLBACKS.keys() & sent.keys() for sent in proxy.upstream.seen)


async def test_no_fallback_answers_for_a_judge(proxy: ProxyUnderTest, fallbacks: None) -> None:
    proxy.default(proxy.policy(f"verify: {{judge: second}}\n{BOUNDED}", ladder=UPSIDE_DOWN))
    await proxy.post(PATHS["chat"], asking("chat", "fail500 onlyweak", model="large"))
    answered, *judged = [sent["model"] for sent in proxy.upstream.seen]
    assert (answered, set(judged)) == ("large", {"small"})


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("policy", [f"mode: shadow\n{BOUNDED}", "dial: 1\nbudget: {app: {per: total, calls: 9}}\n"])
async def test_where_nothing_holds_money_fallbacks_stay(
    proxy: ProxyUnderTest, fallbacks: None, wire: str, policy: str
) -> None:
    proxy.default(proxy.policy(policy))
    answered = await proxy.post(PATHS[wire], asking(wire, "fail500 onlyweak"))
    assert answered.status_code == 200, answered.text
    assert [sent["model"] for sent in proxy.upstream.seen] == ["small", "large"]


CLAUDES = LADDER.replace("small", "claude").replace("large", "opus")
BETA = "context-1m-2025-08-07"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", ["chat", "messages"])
async def test_every_attempt_has_what_the_client_says_of_the_providers_features(
    proxy: ProxyUnderTest, wire: str, stream: bool
) -> None:
    proxy.default(proxy.policy(VERIFIED, ladder=CLAUDES))
    asked = body(wire, model="claude", stream=stream)
    answered = await proxy.post(PATHS[wire], asked, **{"anthropic-beta": BETA})
    assert answered.status_code == 200, answered.text
    said = [BETA in sent.get("anthropic-beta", "") for sent in proxy.upstream.headers]
    assert said == [True, True]


@pytest.mark.parametrize("wire", PATHS)
async def test_every_attempt_has_the_headers_that_the_operator_passes_on(
    proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    from litellm.proxy import proxy_server

    monkeypatch.setitem(proxy_server.general_settings, "forward_client_headers_to_llm_api", True)
    proxy.default(proxy.policy(VERIFIED))
    await proxy.post(PATHS[wire], body(wire), **{"x-trace": "a1"})
    assert [sent.get("x-trace") for sent in proxy.upstream.headers] == ["a1", "a1"]


async def test_a_header_is_noted_nowhere(
    proxy: ProxyUnderTest, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, shown, start = proxy.governor.desk, list[str](), Flight.start

    def started(flight: Flight) -> None:
        shown.append(repr(flight.request))
        start(flight)

    monkeypatch.setattr(Flight, "start", started)
    caplog.set_level("DEBUG", "governor")
    desk.settings = replace(desk.settings, records=tmp_path)
    app = proxy.policy(VERIFIED, ladder=CLAUDES)
    proxy.default(app)
    await proxy.post(PATHS["messages"], body("messages", model="claude"), **{"anthropic-beta": BETA})
    noted = (tmp_path / f"{app}.jsonl").read_text()
    assert shown
    assert BETA not in f"{noted}{caplog.text}{shown}"


THRICE = LADDER.splitlines(keepends=True)[0] + LADDER.splitlines(keepends=True)[1].replace("20,", "20, samples: 3,")


@pytest.fixture
def caching(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `litellm_settings: {cache: true}` sets up."""
    import litellm
    from litellm.caching.caching import Cache
    from litellm.types.caching import LiteLLMCacheType

    types: Any = ["acompletion", "aresponses", "anthropic_messages"]
    monkeypatch.setattr(litellm, "cache", Cache(type=LiteLLMCacheType.LOCAL, supported_call_types=types))
    monkeypatch.setattr(serving_router(), "cache_responses", True)


@pytest.mark.parametrize("wire", PATHS)
async def test_no_sample_is_read_from_litellms_cache(proxy: ProxyUnderTest, caching: None, wire: str) -> None:
    proxy.default(proxy.policy(BOUNDED, ladder=THRICE))
    for calls in (2, 3):  # the third sample could not change the vote
        answered = await proxy.post(PATHS[wire], asking(wire, f"What is it? {wire}"))
        assert answered.status_code == 200, answered.text
        assert len(proxy.upstream.seen) == calls, "the first call may be answered out of it"
    assert not any(name in sent for sent in proxy.upstream.seen for name in ("cache", "caching"))


async def test_no_judge_is_read_from_litellms_cache(proxy: ProxyUnderTest, caching: None) -> None:
    proxy.default(proxy.policy(f"verify: {{judge: strong}}\n{BOUNDED}"))
    await proxy.chat(messages=[{"role": "user", "content": "What is judged?"}])
    before = [sent["model"] for sent in proxy.upstream.seen].count("large")
    await proxy.chat(messages=[{"role": "user", "content": "What is judged?"}])
    assert [sent["model"] for sent in proxy.upstream.seen].count("large") == 2 * before
