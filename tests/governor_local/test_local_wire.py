from __future__ import annotations

from typing import Any

import pytest

from governor.errors import BackendReplyError, BackendRequestError, BackendUnavailableError
from governor.protocols import Delta
from governor.records import ToolCall, Usage
from governor_local.wire import Transcript, request_of
from tests.governor_local.calls import ask


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_thinking_and_answer_together_are_the_output_limit() -> None:
    body = request_of(ask("Hi", tokens=30, thinking=70))
    assert (body["max_tokens"], body["thinking_budget_tokens"]) == (100, 70)
    assert body["chat_template_kwargs"] == {"enable_thinking": True}


def test_no_thinking_switches_it_off_and_sends_no_budget() -> None:
    body = request_of(ask("Hi"))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "thinking_budget_tokens" not in body  # the server reads 0 as "no budget"


def test_effort_reaches_templates_that_know_it() -> None:
    assert request_of(ask("Hi", rung={"effort": "low"}))["chat_template_kwargs"]["reasoning_effort"] == "low"
    assert "reasoning_effort" not in request_of(ask("Hi", rung={"effort": "none"}))["chat_template_kwargs"]


def test_the_model_is_greedy_unless_a_temperature_is_stated() -> None:
    assert request_of(ask("Hi"))["temperature"] == 0.0
    assert request_of(ask("Hi", rung={"temperature": 0.7}))["temperature"] == 0.7


def test_a_seed_fits_the_servers_32_bits() -> None:
    assert [request_of(ask("Hi", seed=seed))["seed"] for seed in (7, 2**32 + 7)] == [7, 7]
    assert "seed" not in request_of(ask("Hi", sample=2))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([], "Be brief."),
        ([{"role": "system", "content": "You are kind."}], "You are kind.\n\nBe brief."),
    ],
)
def test_the_instruction_goes_to_the_system_message(first: list[dict[str, Any]], expected: str) -> None:
    call = ask("Hi", rung={"instruction": "Be brief."})
    messages = request_of(type(call)(step_id="s", rung=call.rung, messages=(*first, *call.messages)))["messages"]
    assert messages == [{"role": "system", "content": expected}, {"role": "user", "content": "Hi"}]
    assert call.messages == ({"role": "user", "content": "Hi"},)


def test_an_answer_is_gone_on_from_with_the_answers_tokens() -> None:
    body = request_of(ask("Hi", tokens=30, thinking=70, prefix="Hello th"))
    assert body["messages"][-1] == {"role": "assistant", "content": "Hello th"}
    assert (body["max_tokens"], "thinking_budget_tokens" in body) == (30, False)


@pytest.mark.parametrize(
    ("prefix", "thought", "answer", "limit"),
    [("<think>\nLet me", "Let me", "", 100), ("<think>\nDone.</think>\n\nSo it", "Done.", "So it", 30)],
)
def test_a_thought_is_gone_on_from_as_a_thought(prefix: str, thought: str, answer: str, limit: int) -> None:
    body = request_of(ask("Hi", tokens=30, thinking=70, prefix=prefix))
    assert body["messages"][-1] == {"role": "assistant", "content": answer, "reasoning_content": thought}
    assert body["max_tokens"] == limit


def test_tools_and_schema_are_sent_as_openai_has_them() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert request_of(ask("Hi", tools=(tool,)))["tools"] == [tool]
    format_ = request_of(ask("Hi", response_schema={"type": "object"}))["response_format"]
    assert format_["json_schema"]["schema"] == {"type": "object"}


def test_chunks_add_up_to_a_reply() -> None:
    transcript = Transcript(ask("Hi"))
    assert transcript.feed({**chunk(role="assistant"), "prompt_progress": {"processed": 5, "cache": 3}}) is None
    thought = transcript.feed({**chunk(reasoning_content="hm"), "timings": {"predicted_n": 2}})
    assert thought == Delta(thinking="hm", usage=Usage(5, 2, 2, 3))
    answer = transcript.feed({**chunk(content="4"), "timings": {"predicted_n": 4}})
    assert answer == Delta("4", usage=Usage(5, 4, 2, 3))
    assert transcript.usage == Usage(5, 4, 2, 3)
    transcript.feed(chunk("stop"))
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
    transcript.feed({"choices": [], "usage": usage})
    reply = transcript.reply(1.5)
    assert (reply.text, reply.thinking, reply.finish_reason, reply.seconds) == ("4", "hm", "stop", 1.5)
    assert reply.usage == Usage(7, 5, 2, 3)
    assert reply.logprobs is None


def test_tool_calls_come_in_pieces() -> None:
    transcript = Transcript(ask("Hi"))
    for index, name, arguments in ((0, "add", ""), (1, "sub", "{}"), (0, "", '{"a"'), (0, "", ":1}")):
        part = {"index": index, "id": f"c{index}", "function": {"name": name, "arguments": arguments}}
        transcript.feed(chunk(tool_calls=[part]))
    transcript.feed(chunk("tool_calls"))
    assert transcript.reply(0).tool_calls == (
        ToolCall(id="c0", name="add", arguments='{"a":1}'),
        ToolCall(id="c1", name="sub", arguments="{}"),
    )


def test_a_stream_without_an_end_is_no_reply() -> None:
    transcript = Transcript(ask("Hi"))
    transcript.feed({**chunk(content="4"), "timings": {"predicted_n": 1}})
    with pytest.raises(BackendReplyError, match="broke off after 1 tokens") as caught:
        transcript.reply(2.0)
    assert caught.value.usage == Usage(0, 1)


def test_the_servers_faults_are_told_by_kind() -> None:
    with pytest.raises(BackendRequestError, match="no such") as refused:
        Transcript(ask("Hi")).feed({"error": {"code": 400, "message": "no such", "type": "invalid_request_error"}})
    assert not refused.value.sent
    with pytest.raises(BackendUnavailableError, match="boom"):
        Transcript(ask("Hi")).feed({"error": {"code": 500, "message": "boom"}})
    begun = Transcript(ask("Hi"))
    begun.feed({**chunk(content="<tool"), "timings": {"predicted_n": 1}})
    with pytest.raises(BackendReplyError, match="does not match"):
        begun.feed({"error": {"code": 500, "message": "the output does not match the format"}})
