"""What SmolLM2 is too small for: needs the two Qwen sizes in GOVERNOR_MODELS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from governor_local import LocalBackend
from tests.governor_local.calls import ask
from tests.governor_local.conftest import present

AT_HAND = "GOVERNOR_MODELS" in os.environ and present("qwen-0.5b") and present("qwen-1.5b")
pytestmark = [
    pytest.mark.model,
    pytest.mark.qwen,
    pytest.mark.skipif(not AT_HAND, reason="GOVERNOR_MODELS is not set to a folder with the two Qwen sizes"),
]


@pytest.fixture(scope="module")
def qwen() -> Iterator[LocalBackend]:
    running = LocalBackend(threads=1, slots=1)
    yield running
    running.close()


def test_a_tool_call_is_read_from_the_stream(qwen: LocalBackend) -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    weather = {"type": "function", "function": {"name": "get_weather", "parameters": city}}
    # The opening mark is given: the coder models write the bare JSON of a call, which the server takes for text.
    call = ask("Weather in Paris?", tools=(weather,), prefix="<tool_call>\n", rung={"model": "local/qwen-0.5b"})
    reply = qwen.call(call)
    assert reply.finish_reason == "tool_calls"
    (tool,) = reply.tool_calls
    assert tool.id
    assert (tool.name, json.loads(tool.arguments)) == ("get_weather", {"city": "Paris"})


@pytest.mark.parametrize("model", ["local/qwen-0.5b", "local/qwen-1.5b"])
def test_a_sum_is_right_and_a_cut_answer_goes_on(qwen: LocalBackend, model: str) -> None:
    prompt, rung = (
        "Tom has 7 apples and buys 5 more. How many apples has he? Answer in one short sentence.",
        {"model": model},
    )
    whole = qwen.call(ask(prompt, tokens=60, rung=rung))
    start = qwen.call(ask(prompt, tokens=10, rung=rung))
    rest = qwen.call(ask(prompt, tokens=50, rung=rung, prefix=start.text))
    assert "12" in whole.text
    assert start.text + rest.text == whole.text
