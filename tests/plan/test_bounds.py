from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from governor.plan.bounds import FIXED_TOKENS, MEDIA_TOKENS, MESSAGE_TOKENS, bound, over
from governor.records import Amount, Call, Limit, Price, Rung, Usage

prices = st.floats(0, 100, allow_nan=False)
rungs = st.builds(
    Rung,
    id=st.just("r"),
    model=st.just("m"),
    thinking_tokens=st.integers(0, 32_000),
    answer_tokens=st.integers(1, 8_000),
    timeout=st.floats(0.1, 600),
    price=st.builds(
        Price, input=prices, output=prices, cached_input=st.none() | prices, cache_write=st.none() | prices
    ),
    instruction=st.none() | st.text(max_size=50),
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=200)}),
    min_size=1,
    max_size=4,
).map(tuple)


def call(rung: Rung, **changes: Any) -> Call:
    given_messages = changes.pop("messages", ({"role": "user", "content": "hi"},))
    return Call(step_id="s", rung=rung, messages=given_messages, timeout=rung.timeout, **changes)


@given(rungs, messages, st.data())
def test_no_usage_within_the_token_bounds_costs_more_than_the_bound(
    rung: Rung, texts: Any, data: st.DataObject
) -> None:
    most = bound(call(rung, messages=texts))
    asked = data.draw(st.integers(0, most.tokens - rung.max_tokens))
    cached = data.draw(st.integers(0, asked))
    kept = data.draw(st.integers(0, asked - cached))
    written = data.draw(st.integers(0, rung.max_tokens))
    used = Usage(asked, written, cached_tokens=cached, written_tokens=kept)
    assert used.total_tokens <= most.tokens
    assert rung.price.micros(used) <= most.micros


@given(messages)
def test_input_is_at_most_bytes_and_marks(texts: Any) -> None:
    rung = Rung(id="r", model="m")
    size = sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in texts)
    given = bound(call(rung, messages=texts)).tokens - rung.max_tokens
    assert given == size + MESSAGE_TOKENS * len(texts) + FIXED_TOKENS


def test_tools_schema_instruction_and_prefix_count() -> None:
    rung = Rung(id="r", model="m", answer_tokens=100, thinking_tokens=400)
    tool = {"type": "function", "function": {"name": "look_up", "description": "größer"}}
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    plain = bound(call(rung)).tokens
    assert bound(call(rung, tools=(tool,))).tokens >= plain + len(json.dumps(tool, ensure_ascii=False).encode())
    assert bound(call(rung, response_schema=schema)).tokens >= plain + len(json.dumps(schema))
    spoken = Rung(id="r", model="m", answer_tokens=100, thinking_tokens=400, instruction="Think step by step.")
    assert bound(call(spoken)).tokens >= plain + len("Think step by step.")
    assert bound(call(rung, prefix="half a thought")).tokens == plain + len("half a thought") - 400


def test_parts_and_tool_calls_are_seen() -> None:
    rung = Rung(id="r", model="m")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    parts = ({"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]},)
    assert bound(call(rung, messages=parts)).tokens > MEDIA_TOKENS


def test_pictures_inside_of_other_parts_count_as_well() -> None:
    rung = Rung(id="r", model="m")
    pictures: Any = [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}] * 9
    deep: Any = pictures
    for _ in range(100):
        deep = [{"type": "document", "source": {"type": "content", "content": deep}}]
    for content in (
        [{"type": "document", "source": {"type": "content", "content": pictures}}],
        [{"type": "tool_result", "tool_use_id": "t", "content": pictures}],
        [{"type": "search_result", "source": "https://example.org", "content": pictures}],
        deep,
    ):
        asked: Any = ({"role": "user", "content": content},)
        assert bound(call(rung, messages=asked)).input > len(pictures) * MEDIA_TOKENS
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": "x" * 500}}]}
    assert bound(call(rung, messages=(called,))).tokens > 500 + rung.max_tokens


def test_a_call_is_one_call_and_its_time_is_rounded_up() -> None:
    most = bound(replace(call(Rung(id="r", model="m", samples=5)), timeout=1.0005))
    assert (most.calls, most.millis) == (1, 1001)


def test_over_names_the_dimension() -> None:
    assert over(Amount(tokens=10, micros=5), Limit(scope="call", micros=4)) == "up to 5 micros where 4 are allowed"
    assert over(Amount(tokens=10, micros=5), Limit(scope="call", tokens=10)) == ""
    assert "millis" in over(Amount(millis=2), Amount(tokens=9, micros=9, millis=1, calls=9))
