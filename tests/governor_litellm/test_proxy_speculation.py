"""Streams that are shown a sentence at a time, as long as their verifier has no doubt."""

from __future__ import annotations

from typing import Any

import pytest

from governor.records import Outcome
from governor_litellm.flight import Flight
from tests.governor_litellm.arrivals import streamed
from tests.governor_litellm.proxy_app import ProxyUnderTest
from tests.governor_litellm.shown import events, said, words
from tests.governor_litellm.test_proxy_stops import CHAT, GIVEN, LIMITS, MESSAGES, RESPONSES, cut_off, outcomes, reason
from tests.governor_litellm.test_proxy_streams import LADDERS, WIRES, body, ladder
from tests.governor_litellm.upstream import STRONG, TELLS, WEAK

__all__ = ["outcomes"]
pytestmark = pytest.mark.asyncio(loop_scope="session")
CHECKS = "verify: [{regex: '42'}, {contains: {text: is, absent: [bad]}}]\nbudget: {app: {per: total, usd: 1}}\n"
SPECULATE = CHECKS + "stream: speculate\n"
FIRST = "All is well."
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def asking(path: str, text: str, **more: Any) -> dict[str, Any]:
    options = {"stream_options": {"include_usage": True}} if path == CHAT else {}
    return body(path, text, model=LADDERS[path][0], **options, **more)


def output(path: str, found: list[dict[str, Any]]) -> int:
    """The output tokens that a client is told in the end."""
    if path == RESPONSES:
        return int(found[-1]["response"]["usage"]["output_tokens"])
    if path == MESSAGES:
        return int(next(one["usage"]["output_tokens"] for one in found if one["type"] == "message_delta"))
    return int(next(one["usage"]["completion_tokens"] for one in found if one.get("usage")))


def whole(path: str, text: str) -> bool:
    """Whether a stream begins once, and ends as its format wants it."""
    kinds = [str(one.get("type")) for one in events(text)]
    if path == MESSAGES:
        opened, closed = kinds.count("content_block_start"), kinds.count("content_block_stop")
        return (kinds.count("message_start"), kinds[-1], opened) == (1, "message_stop", closed)
    if path == RESPONSES:
        return kinds.count("response.created") == 1 and kinds[-1] in ("response.completed", "response.incomplete")
    words = [choice.get("finish_reason") for one in events(text) for choice in one["choices"]]
    return len([word for word in words if word]) == 1 and text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("path", WIRES)
async def test_sentences_are_shown_before_the_stream_ends(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    came = await streamed(proxy, path, asking(path, "tellsfine slow"))
    assert said(path, came.early).startswith(FIRST)
    assert said(path, came.text).startswith(TELLS["tellsfine"])
    assert whole(path, came.text)
    assert outcomes[0].status == "accepted"
    assert len(proxy.upstream.seen) == 1
    assert output(path, events(came.text)) == 10
    assert proxy.balance(f"app:{app}").spent.tokens == 30


@pytest.mark.parametrize("path", WIRES)
async def test_what_was_held_back_is_what_the_model_sent(proxy: ProxyUnderTest, path: str) -> None:
    with proxy.without_hook():
        bare = await proxy.post(path, asking(path, "tellsfine"))
    proxy.default(proxy.policy(SPECULATE, ladder=ladder(path)))
    came = await proxy.post(path, asking(path, "tellsfine"))
    assert [one.get("type") for one in events(came.text)] == [one.get("type") for one in events(bare.text)]
    assert said(path, came.text) == said(path, bare.text) == TELLS["tellsfine"]


@pytest.mark.parametrize("path", WIRES)
async def test_a_doubt_before_anything_was_shown_gives_way_to_another_attempt(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    came = await streamed(proxy, path, asking(path, "tellsearly slow onlyweak"))
    assert said(path, came.text).startswith(STRONG)
    assert "bad" not in words(came.text)
    assert whole(path, came.text)
    assert await cut_off(proxy), "the first attempt's upstream was closed"
    (outcome,) = outcomes
    assert [one.failure for one in outcome.attempts] == ["format", ""]
    assert outcome.status == "accepted"
    first, second = (one.reply for one in outcome.attempts)
    assert first is not None
    assert second is not None
    assert (first.finish_reason, first.text) == ("doubted", "This is bad. ")
    assert first.usage.output_tokens == len(first.text), "no more than what was read"
    spent = proxy.balance(f"app:{app}").spent
    made = len(first.text) + second.usage.output_tokens
    assert (spent.calls, spent.tokens - spent.input) == (2, made)
    assert output(path, events(came.text)) == made


@pytest.mark.parametrize("path", WIRES)
async def test_a_doubt_after_something_was_shown_ends_the_stream(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    came = await streamed(proxy, path, asking(path, "tellslate slow"))
    assert said(path, came.text) == FIRST
    assert "bad" not in words(came.text)
    assert whole(path, came.text)
    assert reason(path, events(came.text)) == LIMITS[path]
    assert len(proxy.upstream.seen) == 1, "no other answer is paid for"
    assert await cut_off(proxy)
    (outcome,) = outcomes
    assert outcome.status == "best_so_far"
    assert outcome.attempts[0].rejected
    assert "can't be taken back" in outcome.reason
    spent, read = proxy.balance(f"app:{app}").spent, "All is well. It is bad though. "
    assert (spent.input, spent.answer, spent.calls) == (len("tellslate slow") + GIVEN, len(read), 1)
    assert output(path, events(came.text)) == len(read)


@pytest.mark.parametrize("path", WIRES)
async def test_events_that_come_together_are_told_apart(proxy: ProxyUnderTest, path: str) -> None:
    proxy.default(proxy.policy(SPECULATE, ladder=ladder(path)))
    came = await streamed(proxy, path, asking(path, "tellslate merged onlyweak"))
    assert said(path, came.text) == FIRST
    assert "bad" not in words(came.text)
    assert whole(path, came.text)


@pytest.mark.parametrize("path", WIRES)
async def test_a_last_sentence_that_is_doubted_stays_back(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    came = await streamed(proxy, path, asking(path, "tellsend"))
    assert said(path, came.text) == FIRST
    assert "bad" not in words(came.text)
    assert whole(path, came.text)
    assert proxy.balance(f"app:{app}").spent.tokens == 30, "it was whole, and is booked as what it came to"
    assert (outcomes[0].status, outcomes[0].attempts[0].rejected) == ("best_so_far", True)


@pytest.mark.parametrize("path", WIRES)
async def test_a_whole_answer_that_is_rejected_was_shown(
    proxy: ProxyUnderTest, outcomes: list[Outcome], path: str
) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    came = await streamed(proxy, path, asking(path, "tellswrong"))
    assert said(path, came.text) == TELLS["tellswrong"], "nothing better can follow it"
    assert whole(path, came.text)
    assert len(proxy.upstream.seen) == 1
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.calls, spent.tokens) == (1, 30)
    assert (outcomes[0].status, outcomes[0].attempts[0].rejected) == ("best_so_far", True)


async def test_an_answer_without_a_whole_sentence_is_held(proxy: ProxyUnderTest, outcomes: list[Outcome]) -> None:
    proxy.default(proxy.policy(SPECULATE))
    came = await streamed(proxy, CHAT, asking(CHAT, "x"))
    assert said(CHAT, came.text) == STRONG
    assert WEAK not in came.text
    assert [one.rung.id for one in outcomes[0].attempts] == ["weak", "strong"]


async def test_a_doubt_without_a_higher_rung_is_cut_and_shown_as_the_best(
    proxy: ProxyUnderTest, outcomes: list[Outcome]
) -> None:
    proxy.default(proxy.policy(SPECULATE, ladder="".join(ladder(CHAT).splitlines(keepends=True)[:2])))
    came = await streamed(proxy, CHAT, asking(CHAT, "tellsearly"))
    assert said(CHAT, came.text) == "This is bad."
    assert reason(CHAT, events(came.text)) == "length"
    assert whole(CHAT, came.text)
    assert outcomes[0].status == "best_so_far"


async def test_tool_calls_wait_for_the_end(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(SPECULATE))
    came = await streamed(proxy, CHAT, asking(CHAT, "tellsfine usetool slow", tools=[TOOL]))
    assert said(CHAT, came.early).startswith(FIRST)
    assert "weather" not in came.early
    assert "weather" in came.text


@pytest.mark.parametrize("path", WIRES)
async def test_thoughts_go_with_the_text_that_follows(proxy: ProxyUnderTest, path: str) -> None:
    proxy.default(proxy.policy(SPECULATE, ladder=ladder(path)))
    came = await streamed(proxy, path, asking(path, "ponders tellsfine slow"))
    first = next(text for text, _ in came.pieces)
    before = came.text[: came.text.index("well")]
    assert "t0." in before
    assert "t59." in before
    assert said(path, came.early).startswith(FIRST)
    assert came.pieces[0][1] == 0, first
    await proxy.idle()
    doubted = await streamed(proxy, path, asking(path, "ponders tellsearly slow"))
    assert "t0." not in doubted.text, "no thought of an attempt that gave way"
    assert said(path, doubted.text).startswith(STRONG)


@pytest.mark.parametrize("path", WIRES)
async def test_a_client_that_goes_away_is_settled(proxy: ProxyUnderTest, path: str) -> None:
    app = proxy.policy(SPECULATE, ladder=ladder(path))
    proxy.default(app)
    await streamed(proxy, path, asking(path, "tellsfine slow"), leave=lambda text: "well" in text)
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (1, 0)
    assert len(FIRST) < balance.spent.answer < 100
    assert len(proxy.upstream.seen) == 1


async def test_a_shown_stream_that_breaks_off_is_followed_by_nothing(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(SPECULATE)
    proxy.default(app)
    came = await streamed(proxy, CHAT, asking(CHAT, "tellsfine breaks slow"))
    found = events(came.text)
    shown = [choice["delta"].get("content") or "" for one in found for choice in one.get("choices", ())]
    assert "".join(shown) == "All is well. It comes to 42. "
    assert "error" in found[-1], "it did not end well"
    assert len(proxy.upstream.seen) == 1
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (1, 0)


async def test_verifiers_that_foresee_nothing_hold_the_stream(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy("verify: {regex: '42'}\nstream: speculate\n"))
    came = await streamed(proxy, CHAT, asking(CHAT, "tellswrong"))
    assert said(CHAT, came.text).startswith(STRONG)
    assert "well" not in words(came.text)


async def test_several_samples_are_held(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(SPECULATE, ladder=ladder(CHAT).replace("timeout: 20", "timeout: 20, samples: 2", 1)))
    came = await streamed(proxy, CHAT, asking(CHAT, "tellsfine slow"))
    assert not came.early
    assert said(CHAT, came.text).startswith(FIRST)


async def test_nothing_more_is_made_of_an_answer_that_may_have_been_shown(
    proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    start = Flight.start

    def noted(flight: Flight) -> None:
        seen.append(set(flight.request.terms.modes))
        start(flight)

    monkeypatch.setattr(Flight, "start", noted)
    proxy.default(proxy.policy(SPECULATE))
    await streamed(proxy, CHAT, asking(CHAT, "x"))
    await proxy.chat()
    assert seen[0] == {"continue", "more", "feedback", "fresh"}
    assert seen[1] - seen[0] == {"again", "agree", "compare", "verify"}, "not of what is no stream"


async def test_in_shadow_it_passes(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(SPECULATE + "mode: shadow\n"))
    came = await streamed(proxy, CHAT, asking(CHAT, "tellslate"))
    assert said(CHAT, came.text) == TELLS["tellslate"]


async def test_the_proxy_may_speculate_for_policies_that_do_not_say(proxy: ProxyUnderTest) -> None:
    kept = proxy.governor.desk.settings
    proxy.default(proxy.policy(CHECKS))
    settings = proxy.governor.desk.settings
    proxy.governor.desk.settings = type(settings)(
        policies=settings.policies, default=settings.default, unknown=settings.unknown, stream="speculate"
    )
    try:
        came = await streamed(proxy, CHAT, asking(CHAT, "tellsfine slow"))
    finally:
        proxy.governor.desk.settings = kept
    assert said(CHAT, came.early).startswith(FIRST)


@pytest.mark.parametrize("text", ["tellslate", "tellswrong", "tellsend"])
async def test_what_was_shown_goes_out_to_its_end_where_no_answer_may_ship(proxy: ProxyUnderTest, text: str) -> None:
    spent = "budget: {step: {calls: 1}, on_exhausted: refuse}\n"
    proxy.default(proxy.policy(SPECULATE.replace("budget: {app: {per: total, usd: 1}}\n", spent), ladder=ladder(CHAT)))
    answered = await proxy.post(CHAT, asking(CHAT, text))
    assert said(CHAT, answered.text).startswith(FIRST)
    assert whole(CHAT, answered.text), answered.text[-400:]
    assert "error" not in answered.text
