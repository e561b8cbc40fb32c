"""Ways past what is held for a request: each is closed, and a client's own smaller limit is kept wherever it stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from governor.plan.bounds import MEDIA_TOKENS, bound
from governor.records import Call, Rung
from governor_litellm import evasions
from governor_litellm.evasions import CHOICES, OUTPUT, applied, closed, unweighed, weighed
from governor_litellm.wires import WIRES, UnreadableError
from tests.governor_litellm.arrivals import streamed
from tests.governor_litellm.proxy_app import ASK, LADDER, ProxyUnderTest, known
from tests.governor_litellm.test_proxy_books import Logged, logged
from tests.governor_litellm.test_proxy_hostile import PATHS, body

__all__ = ["logged"]
pytestmark = pytest.mark.asyncio(loop_scope="session")
BOUNDED = "budget: {app: {per: total, usd: 1}}\n"
COUNTED = "budget: {app: {per: total, calls: 50}}\n"
MOST = 100
"""Output tokens of the only rung that is asked."""

LARGE = 99_999
SAID_TWICE: tuple[Mapping[str, Any], ...] = (
    {"extra_body": {"max_tokens": LARGE}},
    {"extra_body": {"max_completion_tokens": LARGE, "max_output_tokens": LARGE}},
    {"extra_body": {"n_predict": LARGE, "options": {"num_predict": LARGE, "best_of": 1}}},
    {"extra_body": {"generationConfig": {"maxOutputTokens": LARGE, "candidateCount": 1}}},
    {"n_predict": LARGE},
    {"max_new_tokens": LARGE, "options": {"num_predict": LARGE}},
    {"additional_drop_params": ["max_tokens", "max_completion_tokens", "max_output_tokens"]},
    {"additional_drop_params": [".max_tokens", "..max_tokens", "max_completion_tokens[", "[max_output_tokens]."]},
    {"options": {"options": {"num_predict": 1}}},
)
SEVERAL: tuple[Mapping[str, Any], ...] = (
    {"extra_body": {"n": 8}},
    {"extra_body": {"best_of": 8}},
    {"best_of": 8},
    {"options": {"num_return_sequences": 8}},
)


def said(*parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field of a request that holds one message of these parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


URL = "https://example.org/a"
FILE = {"type": "document", "source": {"type": "file", "file_id": "file-0"}}
CLEARING = [{"type": "clear_tool_uses_20250919"}, {"type": "clear_thinking_20251015", "keep": "all"}]
COMPACTING = [{"type": "compaction", "compact_threshold": 50_000}]
WITHOUT_BOUND: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("responses", {"previous_response_id": "resp_0"}),
    ("responses", {"conversation": "conv_0"}),
    ("responses", {"prompt": {"id": "pmpt_0"}}),
    ("responses", {"tools": [{"type": "web_search"}]}),
    ("responses", {"tools": [{"type": "mcp", "server_label": "a", "server_url": "http://x"}]}),
    ("responses", {"extra_body": {"previous_response_id": "resp_0"}}),
    ("responses", {"input": [{"type": "item_reference", "id": "msg_0"}]}),
    ("responses", {"input": [{"id": "msg_0"}]}),
    ("responses", {"input": [{"type": "image_generation_call", "id": "ig_0"}]}),
    ("responses", {"input": [{"type": "file_search_call", "id": "fs_0", "queries": [], "results": None}]}),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": URL}]}]}),
    (
        "responses",
        {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "file-0"}]}]},
    ),
    ("chat", said({"type": "file", "file": {"file_id": "file-0"}})),
    ("chat", said({"type": "file", "file": {"file_data": f"{URL}.pdf"}})),
    ("chat", said({"type": "video_url", "video_url": {"url": URL}})),
    ("chat", said({"type": "image_url", "image_url": {"url": f"{URL}.mp4?t=1"}})),
    ("chat", said({"type": "image_url", "image_url": {"url": "gs://a/b", "format": "application/pdf"}})),
    ("messages", said({"type": "document", "source": {"type": "url", "url": URL}})),
    ("messages", said(FILE)),
    ("messages", said({"type": "document", "source": {"type": "content", "content": [FILE]}})),
    ("chat", said({"type": "tool_result", "tool_use_id": "t", "content": [FILE]})),
    ("chat", {"web_search_options": {}}),
    ("chat", {"tools": [{"urlContext": {}}]}),
    ("chat", {"prompt": {"id": "pmpt_0"}}),
    ("chat", {"extra_body": {"documents": [{"text": "What is it?"}]}}),
    ("chat", {"chat_template_kwargs": {"facts": "What is it? " * 100}}),
    ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("messages", {"mcp_servers": [{"type": "url", "url": "http://x", "name": "a"}]}),
    ("messages", {"context_management": {"edits": [*CLEARING, {"type": "compact_20260112"}]}}),
    ("messages", {"context_management": {"edits": CLEARING}, "extra_body": {"context_management": COMPACTING}}),
    ("messages", {"compaction": {"type": "summarize"}}),
    ("chat", {"context_management": COMPACTING}),
    ("chat", {"extra_body": {"context_management": COMPACTING}}),
    ("responses", {"context_management": COMPACTING}),
)


def named(names: frozenset[str], value: Any) -> Iterator[Any]:
    """All values under these names, at any depth."""
    if isinstance(value, Mapping):
        yield from (held for name, held in value.items() if name in names)
        for held in value.values():
            yield from named(names, held)


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("more", SAID_TWICE)
async def test_a_limit_that_is_said_again_elsewhere_lets_nothing_past_the_bound(
    proxy: ProxyUnderTest, wire: str, more: Mapping[str, Any]
) -> None:
    app = proxy.policy(BOUNDED)
    proxy.default(app)
    answered = await proxy.post(PATHS[wire], body(wire, **more))
    assert answered.status_code == 200, answered.text
    (sent,) = proxy.upstream.seen
    limits = [*named(OUTPUT, sent)]
    assert limits
    assert max(limits) <= MOST
    assert not [count for count in named(CHOICES, sent) if count != 1]
    await proxy.idle()
    assert proxy.balance(f"app:{app}").reserved.calls == 0


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("more", [{"extra_body": {"max_output_tokens": 17}}, {"n_predict": 17}])
async def test_a_smaller_limit_is_kept_wherever_it_stands(
    proxy: ProxyUnderTest, wire: str, more: Mapping[str, Any]
) -> None:
    proxy.default(proxy.policy(BOUNDED))
    await proxy.post(PATHS[wire], body(wire, **more))
    (sent,) = proxy.upstream.seen
    assert set(named(OUTPUT, sent)) == {17}


@pytest.mark.parametrize("more", SEVERAL)
async def test_several_answers_under_another_name_are_several(proxy: ProxyUnderTest, more: Mapping[str, Any]) -> None:
    proxy.default(proxy.policy(BOUNDED))
    answered = await proxy.chat(**more)
    assert (answered.status_code, proxy.upstream.seen) == (400, [])
    assert "ask for one choice" in answered.json()["error"]["message"]


async def test_messages_in_extra_body_are_those_that_are_weighed(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: total, input_tokens: 2000}}\n")
    proxy.default(app)
    long = [{"role": "user", "content": "What is it? " * 1000}]
    answered = await proxy.chat(extra_body={"messages": long})
    assert (answered.status_code, proxy.upstream.seen) == (402, []), "they would pass the budget"
    answered = await proxy.chat(extra_body={"messages": [*ASK, *ASK]})
    assert answered.status_code == 200
    (sent,) = proxy.upstream.seen
    assert len(sent["messages"]) == 2


OTHERS = {"fallbacks": [{"model": "large", "max_tokens": LARGE}]}


@pytest.mark.parametrize("more", [OTHERS, {"router_settings_override": OTHERS}])
async def test_another_choice_of_models_is_the_policys(proxy: ProxyUnderTest, more: dict[str, Any]) -> None:
    proxy.default(proxy.policy("dial: 1\n" + BOUNDED))
    answered = await proxy.chat(messages=[{"role": "user", "content": "fail500 onlyweak"}], **more)
    assert answered.status_code == 500
    assert {sent["model"] for sent in proxy.upstream.seen} == {"small"}


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize(
    ("more", "headers", "tries"),
    [
        ({}, {}, 2),
        ({"num_retries": 6}, {}, 2),
        ({}, {"x-litellm-num-retries": "6"}, 2),
        ({"num_retries": 0}, {}, 1),
        ({"max_retries": 6}, {}, 2),
        ({"retry_policy": {"InternalServerErrorRetries": 6}}, {}, 2),
        ({"model_group_retry_policy": {"small": {"InternalServerErrorRetries": 6}}}, {}, 2),
    ],
)
async def test_how_often_a_call_is_sent_again_is_the_operators(
    proxy: ProxyUnderTest,
    monkeypatch: pytest.MonkeyPatch,
    wire: str,
    more: dict[str, Any],
    headers: dict[str, str],
    tries: int,
) -> None:
    from litellm.proxy.proxy_server import llm_router

    monkeypatch.setattr(llm_router, "num_retries", 1)
    proxy.default(proxy.policy(BOUNDED))
    said = json.loads(json.dumps(body(wire, **more)).replace("What is it?", "fail500"))
    answered = await proxy.post(PATHS[wire], said, **headers)
    assert (answered.status_code, len(proxy.upstream.seen)) == (500, tries), answered.text


@pytest.mark.parametrize("wire", PATHS)
async def test_no_model_is_named_in_another_place(proxy: ProxyUnderTest, wire: str) -> None:
    proxy.default(proxy.policy("dial: 1\n" + BOUNDED))
    answered = await proxy.post(PATHS[wire], body(wire, extra_body={"model": "large", "models": ["large"]}))
    assert answered.status_code == 200, answered.text
    (sent,) = proxy.upstream.seen
    assert (sent["model"], "models" in sent) == ("small", False)


async def test_an_advisor_is_another_models_calls(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(COUNTED))
    tool = {"type": "advisor_20260301", "name": "advisor", "model": "large", "max_uses": 99}
    answered = await proxy.post(PATHS["messages"], body("messages", tools=[tool]))
    assert (answered.status_code, proxy.upstream.seen) == (400, [])
    assert "without an advisor" in answered.json()["error"]["message"]


async def test_that_no_thought_is_wanted_is_said_where_the_client_said_it(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(BOUNDED))
    await proxy.chat(extra_body={"thinking": {"type": "disabled"}, "max_tokens": 9})
    (sent,) = proxy.upstream.seen
    assert (sent["thinking"], sent["max_tokens"]) == ({"type": "disabled"}, 9)


async def test_what_only_needs_weighing_stays_where_it_is(proxy: ProxyUnderTest) -> None:
    """LiteLLM checks a request's own fields against what it knows of a model, and leaves `extra_body` alone."""
    proxy.default(proxy.policy("budget: {app: {per: total, input_tokens: 2000}}\n"))
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
    answered = await proxy.chat(extra_body={"response_format": schema})
    assert answered.status_code == 200, answered.text
    assert proxy.upstream.seen[0]["response_format"] == schema
    tools = [{"type": "function", "function": {"name": "f", "description": "What is it? " * 1000, "parameters": {}}}]
    answered = await proxy.chat(extra_body={"tools": tools})
    assert answered.status_code == 402, "they count"


@pytest.mark.parametrize(("tier", "sent"), [("priority", None), ("flex", "flex"), ({"a": 1}, None)])
async def test_a_dearer_service_is_not_asked_for(proxy: ProxyUnderTest, tier: Any, sent: str | None) -> None:
    proxy.default(proxy.policy(BOUNDED))
    said: tuple[dict[str, Any], ...] = ({"service_tier": tier}, {"extra_body": {"service_tier": tier}})
    for more in said:
        proxy.upstream.reset()
        answered = await proxy.chat(**more)
        assert answered.status_code == 200, answered.text
        assert proxy.upstream.seen[0].get("service_tier") == sent


@pytest.mark.parametrize("wire", PATHS)
async def test_a_dearer_place_is_refused_and_not_left_out(proxy: ProxyUnderTest, wire: str) -> None:
    """Who asks for a country may have to."""
    proxy.default(proxy.policy(BOUNDED))
    refused: tuple[dict[str, Any], ...] = (
        {"inference_geo": "us"},
        {"inference_geo": ["us"]},
        {"extra_body": {"inference_geo": "us"}},
        {"additionalModelRequestFields": {"inference_geo": "us"}},
    )
    for more in refused:
        answered = await proxy.post(PATHS[wire], body(wire, **more))
        assert (answered.status_code, proxy.upstream.seen) == (400, []), answered.text
        assert "inference_geo must be global" in answered.json()["error"]["message"]


async def test_every_place_is_a_place(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(BOUNDED, ladder=LADDER.replace("small", "claude")))
    answered = await proxy.post(PATHS["messages"], body("messages", inference_geo="global"))
    assert answered.status_code == 200, answered.text
    assert proxy.upstream.seen[0]["inference_geo"] == "global"


@pytest.mark.parametrize("model", ["small", "gpt"])
async def test_an_answer_is_not_predicted(proxy: ProxyUnderTest, model: str) -> None:
    """OpenAI: rejected tokens are billed as output; a model that thinks takes no prediction at all."""
    proxy.default(proxy.policy(BOUNDED, ladder=LADDER.replace("small", model)))
    predicted: dict[str, Any] = {"prediction": {"type": "content", "content": "What is it? " * 1000}}
    said: tuple[dict[str, Any], ...] = (predicted, {"extra_body": predicted})
    for more in said:
        proxy.upstream.reset()
        answered = await proxy.chat(**more)
        assert answered.status_code == 200, answered.text
        assert "prediction" not in proxy.upstream.seen[0]


async def test_nothing_is_taken_out_where_nothing_is_governed(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy("mode: shadow\n" + BOUNDED))
    answered = await proxy.chat(extra_body={"max_tokens": 12}, service_tier="priority", n_predict=5)
    assert answered.status_code == 200
    (sent,) = proxy.upstream.seen
    assert (sent["max_tokens"], sent["service_tier"], sent["n_predict"]) == (12, "priority", 5)


@pytest.mark.parametrize(("wire", "more"), WITHOUT_BOUND)
async def test_what_a_model_reads_beyond_the_request_has_no_bound(
    proxy: ProxyUnderTest, wire: str, more: Mapping[str, Any]
) -> None:
    for limits in ("app: {per: total, usd: 1}", "step: {input_tokens: 9000}", "call: {tokens: 9000}"):
        proxy.default(proxy.policy(f"budget: {{{limits}}}\n"))
        answered = await proxy.post(PATHS[wire], body(wire, **more))
        assert (answered.status_code, proxy.upstream.seen) == (400, []), answered.text
        assert "reads more than the request holds" in answered.json()["error"]["message"]


WITH_BOUND: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("acompletion", said({"type": "image_url", "image_url": {"url": URL}})),
    ("acompletion", said({"type": "image_url", "image_url": f"{URL}.png"})),
    ("acompletion", said({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}})),
    ("acompletion", said({"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}})),
    ("acompletion", said({"type": "input_audio", "input_audio": {"data": "JVBERi0=", "format": "wav"}})),
    ("anthropic_messages", said({"type": "image", "source": {"type": "file", "file_id": "file-0"}})),
    ("anthropic_messages", said({"type": "document", "source": {"type": "text", "data": f"note: {URL}"}})),
    ("anthropic_messages", said({"type": "search_result", "source": URL, "title": "a", "content": []})),
    ("anthropic_messages", said({"type": "tool_use", "id": "t", "name": "fetch", "input": {"url": URL}})),
    ("anthropic_messages", said({"type": "thinking", "thinking": URL, "signature": "x"})),
    (
        "aresponses",
        {
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_image", "file_id": "file-0"}]},
                {"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "file-0"}},
                {"type": "reasoning", "id": "rs_0", "summary": []},
            ]
        },
    ),
    (
        "aresponses",
        {
            "input": [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a", "annotations": [{"type": "url", "url": URL}]}],
                }
            ]
        },
    ),
)


@pytest.mark.parametrize(("call_type", "more"), WITH_BOUND)
async def test_pictures_and_what_a_request_holds_itself_have_a_bound(call_type: str, more: Mapping[str, Any]) -> None:
    asking = WIRES[call_type].asking({"model": "small", **more})
    assert asking is not None
    assert asking.unbounded == ""


async def test_a_screenshot_is_held_as_a_picture() -> None:
    picture = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": URL}}
    asking = WIRES["aresponses"].asking({"input": [picture]})
    assert asking is not None
    held = bound(Call(step_id="s", rung=Rung(id="r", model="m"), messages=asking.messages))
    assert held.input > MEDIA_TOKENS


async def test_pictures_in_a_document_are_held_as_pictures() -> None:
    pictures = [{"type": "image", "source": {"type": "url", "url": f"{URL}{place}.png"}} for place in range(90)]
    document = {"type": "document", "source": {"type": "content", "content": pictures}}
    asking = WIRES["anthropic_messages"].asking(said(document))
    assert asking is not None
    assert asking.unbounded == ""
    held = bound(Call(step_id="s", rung=Rung(id="r", model="m"), messages=asking.messages))
    assert held.input > 90 * MEDIA_TOKENS


class Counted(str):
    """A text that counts its letters as they are walked over."""

    __slots__ = ()
    walked = 0

    def __iter__(self) -> Iterator[str]:
        for letter in super().__iter__():
            Counted.walked += 1
            yield letter


@pytest.mark.parametrize("wire", sorted(WIRES))
async def test_a_long_text_is_not_walked_letter_by_letter(wire: str) -> None:
    text = Counted("so long that it would hold up everybody else " * 100)
    message, before = {"role": "user", "content": text}, Counted.walked
    asking = WIRES[wire].asking({"messages": [message], "input": [message], "system": text, "instructions": text})
    assert asking is not None
    assert asking.messages[-1]["content"] is text
    assert Counted.walked - before < len(text) / 10


@pytest.mark.parametrize(
    ("edits", "field"),
    [
        (None, ""),
        ([], ""),
        ({"edits": CLEARING}, ""),
        ({"edits": [{"type": "compact_20260112"}]}, "context_management"),
        ({"edits": {"type": "compact_20260112"}}, "context_management"),
        ({"edits": [*CLEARING, {"type": "one of next year"}]}, "context_management"),
        (COMPACTING, "context_management"),
        ("compaction", "context_management"),
    ],
)
async def test_only_edits_that_leave_something_out_have_a_bound(edits: Any, field: str) -> None:
    assert unweighed({"context_management": edits}) == field
    assert unweighed({"extra_body": {"context_management": edits}}) == field


async def test_coding_agents_may_clear_what_tools_told(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(BOUNDED, ladder=LADDER.replace("small", "claude")))
    edits = {"edits": CLEARING}
    answered = await proxy.post(PATHS["messages"], body("messages", context_management=edits))
    assert answered.status_code == 200, answered.text
    assert proxy.upstream.seen[0]["context_management"] == edits


async def test_where_no_budget_needs_its_bound_it_is_governed(proxy: ProxyUnderTest) -> None:
    app = proxy.policy(COUNTED)
    proxy.default(app)
    first = await proxy.post(PATHS["responses"], body("responses"))
    answered = await proxy.post(PATHS["responses"], body("responses", previous_response_id=first.json()["id"]))
    assert answered.status_code == 200, answered.text
    assert proxy.balance(f"app:{app}").spent.calls == 2
    assert proxy.upstream.seen[1]["previous_response_id"] == "resp_1"


async def test_functions_of_old_are_weighed_as_tools(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy("budget: {app: {per: total, input_tokens: 2000}}\n"))
    large = [{"name": "f", "description": "What is it? " * 1000, "parameters": {"type": "object", "properties": {}}}]
    answered = await proxy.chat(functions=large)
    assert (answered.status_code, proxy.upstream.seen) == (402, [])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/engines/assistant/chat/completions"])
async def test_every_attempt_is_on_the_clients_key_whatever_its_path(
    proxy: ProxyUnderTest, logged: Logged, path: str
) -> None:
    """LiteLLM keeps what it knows of a request in another place where the path holds certain words."""
    proxy.default(proxy.policy(f"verify: {{regex: '42'}}\n{BOUNDED}"))
    forged = {"user_api_key": "another", "user_api_key_team_id": "t1", "tags": ["theirs"]}
    answered = await proxy.post(path, {"model": "small", "messages": ASK, "metadata": forged})
    assert answered.status_code == 200, answered.text
    calls = await logged.of(2)
    assert {group for group, _, _ in calls} == {"small", "large"}
    own = hashlib.sha256(b"sk-none").hexdigest()
    assert {key for _, _, key in calls} == {own}


async def test_chats_that_are_answered_by_the_responses_api_are_left_alone(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(BOUNDED))
    answered = await proxy.post("/cursor/chat/completions", {"model": "small", "input": "What is it?"})
    assert (answered.status_code, proxy.upstream.seen) == (400, []), answered.text


async def test_a_run_is_its_tenants_own(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {run: {calls: 1}}\n", app="gamma")
    proxy.default(app)
    run = {"x-governor-run": "nightly"}
    assert (await proxy.chat(key="sk-team", headers=run)).status_code == 200
    assert (await proxy.chat(key="sk-team", headers=run)).status_code == 402
    assert (await proxy.chat(key="sk-none", headers=run)).status_code == 200, "another tenant's run of that name"
    proxy.remove(app)


async def test_a_key_that_litellm_does_not_hash_is_no_name_of_a_tenant(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {tenant: {per: total, calls: 5}}\n")
    proxy.default(app)
    assert (await proxy.chat(key="acme-7f3a")).status_code == 200
    assert proxy.balance(f"tenant:{app}/acme-7f3a").spent.calls == 0
    assert proxy.balance(f"tenant:{app}/{hashlib.sha256(b'acme-7f3a').hexdigest()}").spent.calls == 1


async def test_a_plain_request_is_not_changed() -> None:
    held: dict[str, Any] = {"model": "m", "metadata": {"max_tokens": 9}, "tools": [{"parameters": {"n": 1}}], "seed": 1}
    said: dict[str, dict[str, Any]] = {
        "acompletion": {"messages": ASK, "max_tokens": 5, "max_completion_tokens": 5, "n": 1},
        "aresponses": {"input": "x", "max_output_tokens": 5, "extra_body": {"top_k": 5}},
        "anthropic_messages": {"messages": ASK, "max_tokens": 5, "service_tier": "auto", "options": {"num_ctx": 9}},
    }
    for call_type, wire in WIRES.items():
        plain = held | said[call_type]
        assert applied(plain, closed(plain, wire)) == plain
        assert weighed(plain, wire) is plain
        assert unweighed(plain) == ""
    assert applied(held, {}) is held


@pytest.mark.parametrize(
    ("call_type", "more", "thinks"),
    [
        ("acompletion", {"reasoning_effort": "high", "thinking": {"type": "enabled"}}, False),
        ("acompletion", {"reasoning": {"effort": "high"}}, True),
        ("acompletion", {"include_reasoning": False}, True),
        ("acompletion", {"extra_body": {"reasoning": {"effort": "high", "exclude": True}}}, True),
        ("acompletion", {"extra_body": {"enable_thinking": True}}, True),
        ("acompletion", {"chat_template_kwargs": {"enable_thinking": True}}, True),
        ("acompletion", {"chat_template_kwargs": {"enable_thinking": False}}, False),
        ("acompletion", {"chat_template_kwargs": {"thinking": False}}, False),
        ("acompletion", {"reasoning": {"enabled": False}}, False),
        ("acompletion", {"extra_body": {"reasoning": {"effort": "none"}}}, False),
        ("acompletion", {"extra_body": {"thinking": {"type": "disabled"}, "top_k": 5}}, False),
        ("acompletion", {"extra_body": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 9}}}}, True),
        ("aresponses", {"reasoning": {"effort": "high", "summary": "auto"}}, False),
        ("aresponses", {"reasoning": {"enabled": True}}, True),
        ("anthropic_messages", {"thinking": {"type": "enabled", "budget_tokens": 5}}, False),
    ],
)
async def test_fields_that_may_make_a_model_think_are_known(
    call_type: str, more: Mapping[str, Any], thinks: bool
) -> None:
    assert evasions.thinks(more, WIRES[call_type]) is thinks


async def test_however_deep_a_field_lies_its_name_is_read() -> None:
    deep: dict[str, Any] = {"thinking_budget": 9}
    for _ in range(100_000):
        deep = {"a": deep}
    assert evasions.thinks({"extra_body": deep}, WIRES["acompletion"])


@pytest.mark.parametrize("wire", PATHS)
async def test_a_client_that_switches_thought_on_and_goes_pays_for_it(proxy: ProxyUnderTest, wire: str) -> None:
    for more, paid in (({}, False), ({"extra_body": {"reasoning": {"exclude": True}}}, True)):
        app = proxy.policy(BOUNDED, ladder=known("small", "large") + LADDER)
        proxy.default(app)
        said = json.loads(json.dumps(body(wire, stream=True, **more)).replace("What is it?", "slow"))
        await streamed(proxy, PATHS[wire], said, leave=bool)
        await proxy.idle()
        spent = proxy.balance(f"app:{app}").spent
        assert spent.calls == 1
        assert (spent.answer >= MOST - 10) is paid, "what was shown bounds it, or nothing does"


async def test_an_extra_body_that_is_none_is_told() -> None:
    with pytest.raises(UnreadableError, match="extra_body must be an object"):
        closed({"extra_body": "x"}, WIRES["acompletion"])


async def test_other_fields_of_a_clients_server_stay() -> None:
    extra = {"top_k": 5, "chat_template_kwargs": {"a": 1}, "options": {"num_ctx": 9, "num_predict": 3}}
    changes = closed({"messages": ASK, "extra_body": extra, "min_p": 0.1}, WIRES["acompletion"])
    kept = {"top_k": 5, "chat_template_kwargs": {"a": 1}, "options": {"num_ctx": 9}}
    assert changes == {"extra_body": kept, "max_tokens": 3}
