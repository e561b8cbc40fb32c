"""Streams under stop rules without a proxy: however a stream is cut into pieces, what a client gets of it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.plan.dialects import dialect_for
from governor.records import Call, Rung, Usage
from governor.stops.settings import Stops
from governor_litellm.watching import Watching, all_told, shown_at_most
from governor_litellm.wires.items import Items
from governor_litellm.wires.messages import MessagesWire
from governor_litellm.wires.sse import Events
from tests.governor_litellm.upstream import pieces

STREAM = "".join(pieces("/v1/messages", {"model": "claude", "messages": "ponders loops"})).encode()
CLAUDE = dialect_for("claude-sonnet-4-5", None)


RULES = Stops(repeat=4)


def call(stops: Stops | None = RULES, thinking_tokens: int = 0) -> Call:
    rung = Rung(id="r", model="claude", answer_tokens=400, thinking_tokens=thinking_tokens, stops=stops)
    return Call(step_id="s", rung=rung, messages=({"role": "user", "content": "Why?"},))


def seen(parts: list[bytes], watching: Watching) -> bytes:
    """What the client gets of a stream that comes in these pieces."""
    got = b""
    for part in parts:
        got += watching.take(part)
        if watching.rule:
            break
    return got + b"".join(watching.ending(watching.reply().usage, told=False))


@given(st.lists(st.integers(1, len(STREAM) - 1), unique=True, max_size=60))
def test_a_message_that_is_ended_is_whole_wherever_its_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[start:end] for start, end in pairwise(edges)]
    watching = Watching(MessagesWire(), call(), CLAUDE, None)
    feed = Events()
    found = list(feed.feed(seen(parts, watching)))
    assert feed.waiting == 0
    kinds = [event["type"] for event in found]
    assert (kinds[0], kinds[-1], kinds.count("message_stop")) == ("message_start", "message_stop", 1)
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    reply = watching.reply()
    assert (reply.stopped, reply.finish_reason) == ("repeat", "stuck")
    text = "".join(event["delta"].get("text", "") for event in found if event["type"] == "content_block_delta")
    assert reply.text == text
    assert reply.usage_known


def test_without_a_rule_the_bytes_stay_as_they_came() -> None:
    watching = Watching(MessagesWire(), call(stops=None), CLAUDE, None)
    assert seen([STREAM[:700], STREAM[700:]], watching) == STREAM
    assert (watching.reply().stopped, watching.reply().finish_reason) == ("", "stop")


class Upstream:
    """A stream of LiteLLM's own, as far as can be told from its class."""

    __module__ = "litellm.router"


async def guarded() -> AsyncIterator[bytes]:
    """What a guardrail makes of a stream."""
    yield STREAM


@pytest.mark.parametrize(
    ("source", "part", "stands"), [(Upstream(), 1.0, True), (Upstream(), 0.9, False), (guarded(), 1.0, False)]
)
def test_only_a_whole_answer_that_no_guardrail_may_have_refused_stands_where_its_stream_fails(
    source: Any, part: float, stands: bool
) -> None:
    watching = Watching(MessagesWire(), call(stops=None), CLAUDE, source)
    watching.take(STREAM[: round(part * len(STREAM))])
    assert watching.stands() is stands


def test_a_thought_that_is_hidden_can_not_be_bounded_by_what_was_shown() -> None:
    assert shown_at_most(call(), CLAUDE, 7) == Usage(len("Why?") + 16 + 64, 7)
    assert shown_at_most(call(), CLAUDE, 9000) == Usage(len("Why?") + 16 + 64, 400)
    assert shown_at_most(call(thinking_tokens=2000), CLAUDE, 7) is None
    assert shown_at_most(call(), CLAUDE, None) is None
    assert shown_at_most(call(), dialect_for("azure/gpt-5"), 0) is None, "of an unknown model nobody knows"
    assert shown_at_most(call(), dialect_for("azure/gpt-4o", "plain"), 0) == Usage(len("Why?") + 16 + 64, 0)


def test_every_holder_of_an_upstream_is_closed_even_if_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    async def well() -> None:
        closed.append("response")

    async def badly() -> None:
        closed.append("stream")
        raise OSError("no")

    source = SimpleNamespace(aclose=badly, response=SimpleNamespace(aclose=well))
    watching = Watching(MessagesWire(), call(), CLAUDE, source)
    asyncio.run(watching.close())
    assert closed == [], "no rule has ended it"
    watching.take(STREAM)
    asyncio.run(watching.close())
    assert closed == ["stream", "response"]
    assert "could not be closed" in caplog.text


async def test_a_proxy_that_stops_waits_until_litellm_knows_of_a_stream_that_was_cut() -> None:
    known: list[Any] = []

    async def slowly(response: Any, **_: Any) -> None:
        await asyncio.sleep(0.05)
        known.append(response)

    account = SimpleNamespace(model="claude", dispatch_success_handlers=slowly)
    watching = Watching(MessagesWire(), call(), CLAUDE, SimpleNamespace(logging_obj=account))
    watching.take(STREAM)
    watching.log(watching.reply())
    assert not known, "nobody waits for it else"
    await all_told(10.0)
    assert len(known) == 1


@pytest.mark.parametrize(("kind", "given"), [("function_call", "arguments"), ("custom_tool_call", "input")])
def test_a_tool_call_that_is_open_is_closed_with_what_came_of_it(kind: str, given: str) -> None:
    items = Items()
    item = {"type": kind, "id": "fc", "name": "f", given: "", "status": "in_progress"}
    items.take("response.output_item.added", {"output_index": 0, "item": item, "sequence_number": 4})
    items.take(f"response.{kind}_{given}.delta", {"output_index": 0, "delta": '{"a"', "sequence_number": 5})
    told, done = items.closing()
    assert (told["type"], told[given]) == (f"response.{kind}_{given}.done", '{"a"')
    assert (done["item"]["status"], done["item"][given]) == ("incomplete", '{"a"')
    assert (told["sequence_number"], done["sequence_number"], items.next_number()) == (6, 7, 8)
    assert [one["status"] for one in items.output] == ["incomplete"]


def test_what_has_ended_is_not_closed_again() -> None:
    items, place = Items(), {"output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "all"}
    message = {"type": "message", "id": "m", "status": "in_progress", "content": []}
    items.take("response.output_item.added", {"output_index": 0, "item": message})
    items.take("response.content_part.added", {**place, "part": {**part, "text": ""}})
    items.take("response.output_text.delta", {**place, "delta": "all"})
    items.take("response.content_part.done", {**place, "part": part})
    assert [one["type"] for one in items.closing()] == ["response.output_item.done"]
    done = {**message, "status": "completed", "content": [part]}
    items.take("response.output_item.done", {"output_index": 0, "item": done})
    assert list(items.closing()) == []
    assert items.output == [done]
