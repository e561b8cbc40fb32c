"""What the formats' readers make of answers, without a proxy."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from governor.plan.dialects import dialect_for
from governor.records import Call, Rung
from governor_litellm.reply import Evidence
from governor_litellm.watching import Watching, shown_at_most
from governor_litellm.wires.chat import ChatWire
from governor_litellm.wires.responses import ResponsesWire
from tests.governor_litellm.upstream import CALLED

CALL = Call(
    step_id="s",
    rung=Rung(id="r", model="small", answer_tokens=400),
    messages=({"role": "user", "content": "Why?"},),
)
PLAIN = dialect_for("small", "plain")
ITEMS = {kind: {"type": kind, "id": "ct_1", "call_id": "c1", **given} for kind, given in CALLED.items()}
WEATHER = {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"city": "Oslo"}'}
WEATHER_CALL = ("weather", '{"city": "Oslo"}')
HOSTED = (
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "c", "outputs": None},
    {"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": "{}", "server_label": "s", "output": "x"},
    {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"},
)


@pytest.mark.parametrize(
    ("output", "called"),
    [
        ([WEATHER], [WEATHER_CALL]),
        ([ITEMS["custom_tool_call"]], [("shell", "ls -l")]),
        ([ITEMS["local_shell_call"]], [("local_shell", '{"type": "exec", "command": ["ls"], "env": {}}')]),
        ([ITEMS["apply_patch_call"]], [("apply_patch", '{"type": "delete_file", "path": "x"}')]),
        ([{**ITEMS["computer_call"], "action": None, "actions": []}, WEATHER], [("computer", "[]"), WEATHER_CALL]),
        ([ITEMS["shell_call"], {"type": "shell_call_output", "call_id": "c1", "output": []}], []),
        ([*HOSTED], []),
    ],
)
def test_what_the_client_is_to_run_is_a_tool_call(output: list[Any], called: list[tuple[str, str]]) -> None:
    reply = ResponsesWire().reply({"status": "completed", "output": output}, CALL, PLAIN)
    assert [(one.name, one.arguments) for one in reply.tool_calls] == called
    assert reply.finish_reason == ("tool_calls" if called else "stop")


SAID = SimpleNamespace(choices=[SimpleNamespace(finish_reason=None)])
ENDED = SimpleNamespace(choices=[SimpleNamespace(finish_reason="stop")])
TOLD = SimpleNamespace(choices=[], usage=SimpleNamespace(prompt_tokens=20))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SimpleNamespace(chunks=[SAID, ENDED, TOLD]), Evidence(finished=True, counted=True)),
        (SimpleNamespace(chunks=[SAID, ENDED]), Evidence(finished=True, counted=False)),
        (SimpleNamespace(chunks=[SAID], received_finish_reason="stop"), Evidence(finished=True, counted=False)),
        (SimpleNamespace(chunks=None, completion_stream=SimpleNamespace(chunks=[TOLD, ENDED])), Evidence(True, True)),
        (
            SimpleNamespace(
                _billing_source=SimpleNamespace(litellm_custom_stream_wrapper=SimpleNamespace(chunks=[ENDED]))
            ),
            Evidence(finished=True, counted=False),
        ),
        (SimpleNamespace(chunks=[ENDED], custom_llm_provider="cached_response"), None),
        (SimpleNamespace(chunks=[SAID], fallback_headers_adopted=True), None),
        (SimpleNamespace(chunks=[b"event: message_stop"]), None),
        (object(), None),
        (None, None),
    ],
)
def test_what_a_server_said_is_read_where_litellm_keeps_it(source: Any, said: Evidence | None) -> None:
    assert Evidence.within(source) == said


PICTURE = {"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,AAAA"}}
GIVEN = '{"city": "Oslo"}'


@pytest.mark.parametrize(
    ("pieces", "most"),
    [
        ([{"content": "all "}, {"content": "is"}], 6),
        ([{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": GIVEN}}]}], 17),
        ([{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": GIVEN}}], 17),
        ([{"refusal": "I can "}, {"refusal": "not"}], 9),
        ([{"provider_specific_fields": {"refusal": "I can not"}}], 9),
        ([{"content": "See: ", "images": [PICTURE]}, {"content": "all"}], None),
        ([{"content": "all"}, {"audio": {"id": "a", "data": "AAAA"}}], None),
    ],
)
def test_a_chat_that_is_left_is_bounded_by_all_that_was_shown_of_it(pieces: list[Any], most: int | None) -> None:
    from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

    watching = Watching(ChatWire(), CALL, PLAIN, None)
    for piece in pieces:
        watching.take(ModelResponseStream(choices=[StreamingChoices(delta=Delta(**piece))]))
    assert watching.shown == most
    told = shown_at_most(CALL, PLAIN, watching.shown)
    assert (told and told.output_tokens) == most, "else it is booked at its bound"


@pytest.mark.parametrize(("kind", "counts"), [("function_call", False), ("shell_call", True)])
def test_an_item_of_a_response_that_comes_whole_is_counted(kind: str, counts: bool) -> None:
    item = {**ITEMS, "function_call": WEATHER}[kind]
    watching = Watching(ResponsesWire(), CALL, PLAIN, None)
    watching.take(SimpleNamespace(type="response.output_item.done", output_index=0, item=item))
    assert watching.shown == (len(json.dumps(item)) if counts else 0)
