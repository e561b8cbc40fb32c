from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from governor.records import Amount
from tests.governor_litellm.proxy_app import ASK, LADDER, MASTER, ProxyUnderTest
from tests.governor_litellm.upstream import STRONG, WEAK

pytestmark = pytest.mark.asyncio(loop_scope="session")
VERIFIED = "verify: {regex: '42'}\nbudget: {app: {per: total, usd: 1}}\n"
WIRES = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def body(path: str, text: str = "What is it?", **more: Any) -> dict[str, Any]:
    if path.endswith("responses"):
        return {"model": "small", "input": text, **more}
    limit = {"max_tokens": 4000} if path.endswith("messages") else {}
    return {"model": "small", "messages": [{"role": "user", "content": text}], **limit, **more}


def text_of(path: str, answer: dict[str, Any]) -> str:
    if path.endswith("responses"):
        return str(answer["output"][0]["content"][0]["text"])
    if path.endswith("messages"):
        return str(answer["content"][0]["text"])
    return str(answer["choices"][0]["message"]["content"])


def totals(answer: dict[str, Any]) -> tuple[int, int]:
    usage = answer["usage"]
    return (
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
    )


async def test_without_a_policy_a_request_is_left_alone(proxy: ProxyUnderTest) -> None:
    answered = await proxy.chat(max_tokens=77)
    assert answered.json()["choices"][0]["message"]["content"] == WEAK
    assert proxy.upstream.seen == [{"model": "small", "messages": ASK, "max_tokens": 77}]
    assert not [name for name in answered.headers if name.startswith("x-governor")]


@pytest.mark.parametrize("path", WIRES)
async def test_a_rejected_answer_is_mended_on_the_same_wire(proxy: ProxyUnderTest, path: str) -> None:
    app = proxy.policy(VERIFIED)
    proxy.default(app)
    answered = await proxy.post(path, body(path))
    assert answered.status_code == 200, answered.text
    assert text_of(path, answered.json()) == STRONG
    assert totals(answered.json()) == (40, 40), "the usage of both attempts"
    assert [seen["model"] for seen in proxy.upstream.seen] == ["small", "large"]
    told = {name: answered.headers[f"x-governor-{name}"] for name in ("app", "rung", "attempts", "status", "tokens")}
    assert told == {"app": app, "rung": "strong", "attempts": "2", "status": "accepted", "tokens": "80"}
    spent = proxy.balance(f"app:{app}").spent
    assert (spent.tokens, spent.calls, spent.micros) == (80, 2, 20 + 20 + 100 + 300)
    assert answered.headers["x-governor-micro-usd"] == str(spent.micros)
    assert proxy.balance(f"app:{app}").reserved.calls == 0


@pytest.mark.parametrize("path", WIRES)
async def test_details_are_in_the_body_only_where_they_were_asked_for(proxy: ProxyUnderTest, path: str) -> None:
    proxy.default(proxy.policy(VERIFIED))
    assert "governor" not in (await proxy.post(path, body(path))).json()
    answered = await proxy.post(path, body(path), **{"x-governor-details": "1"})
    told = answered.json()["governor"]
    assert told["usage"] == {"input_tokens": 20, "output_tokens": 30}, "the accepted attempt's alone"
    assert [one["decision"] for one in told["attempts"]] == ["reject", "accept"]
    assert STRONG not in str(told)
    assert WEAK not in str(told)


async def test_what_a_rung_says_reaches_the_model(proxy: ProxyUnderTest) -> None:
    ladder = (
        "ladder: [{id: t, model: thinker, effort: high, thinking_tokens: 300, answer_tokens: 50, temperature: 0.6}]\n"
    )
    proxy.default(proxy.policy("", ladder=ladder))
    answered = await proxy.chat(reasoning_effort="xhigh", max_completion_tokens=9999, top_p=0.9)
    assert answered.json()["model"] == "small", "the client sees the name that it asked for"
    (seen,) = proxy.upstream.seen
    assert {key: seen[key] for key in seen if key not in ("messages", "stream")} == {
        "model": "thinker",
        "reasoning_effort": "high",
        "thinking_token_budget": 300,
        "max_tokens": 350,
        "temperature": 0.6,
        "top_p": 0.9,
    }


async def test_effort_reaches_the_other_wires(proxy: ProxyUnderTest) -> None:
    ladder = "ladder: [{id: g, model: gpt, effort: low, thinking_tokens: 300, answer_tokens: 50}]\n"
    proxy.default(proxy.policy("", ladder=ladder))
    for path in ("/v1/responses", "/v1/messages"):
        answered = await proxy.post(path, body(path))
        assert answered.status_code == 200, answered.text
        seen = proxy.upstream.seen.pop()
        assert (seen["model"], seen["reasoning"]["effort"], seen["max_output_tokens"]) == ("gpt-5-mini", "low", 350)


async def test_a_number_of_thinking_tokens_reaches_claude(proxy: ProxyUnderTest) -> None:
    ladder = "ladder: [{id: c, model: claude, thinking_tokens: 2000, answer_tokens: 500}]\n"
    proxy.default(proxy.policy("", ladder=ladder))
    answered = await proxy.post("/v1/messages", body("/v1/messages", temperature=0.2))
    assert answered.status_code == 200, answered.text
    seen = proxy.upstream.seen[-1]
    assert seen["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert seen["max_tokens"] == 2500
    assert "temperature" not in seen, "Claude refuses one while it thinks"


@pytest.mark.parametrize("limit", [33, 33.0])
async def test_the_clients_smaller_limits_are_kept(proxy: ProxyUnderTest, limit: float) -> None:
    proxy.default(proxy.policy(VERIFIED))
    for path, name in zip(WIRES, ("max_tokens", "max_output_tokens", "max_tokens"), strict=True):
        proxy.upstream.reset()
        assert (await proxy.post(path, body(path) | {name: limit})).status_code == 200
        limits = [seen.get("max_tokens", seen.get("max_output_tokens")) for seen in proxy.upstream.seen]
        assert limits == [33, 33]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_what_litellm_asks_for_at_least_is_held(proxy: ProxyUnderTest, path: str) -> None:
    tiny = "ladder: [{id: a, model: small, answer_tokens: 3, price: {input: 1, output: 2}}]\n"
    app = proxy.policy("budget: {app: {per: total, usd: 1}}\n", ladder=tiny)
    proxy.default(app)
    answered = await proxy.post(path, body(path))
    assert (answered.status_code, totals(answered.json())[1]) == (200, 10)
    assert proxy.upstream.seen[-1]["max_output_tokens"] == 16, "LiteLLM's own least"
    assert proxy.balance(f"app:{app}").overshoot == Amount()


async def test_an_instruction_joins_the_system_message(proxy: ProxyUnderTest) -> None:
    rungs = LADDER.replace("model: small,", "model: small, instruction: Be brief.,")
    rungs = rungs.replace("model: large,", "model: large, instruction: Be slow.,")
    proxy.default(proxy.policy(VERIFIED, ladder=rungs))
    system = {"role": "system", "content": "You count."}
    await proxy.chat(messages=[system, *ASK])
    told = [seen["messages"][0]["content"] for seen in proxy.upstream.seen]
    assert told == ["You count.\n\nBe brief.", "You count.\n\nBe slow."]
    await proxy.post("/v1/responses", body("/v1/responses", instructions="You count."))
    assert proxy.upstream.seen[-1]["instructions"] == "You count.\n\nBe slow."


async def test_tools_pass_through(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(""))
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    answered = await proxy.chat(messages=[{"role": "user", "content": "usetool"}], tools=[tool], tool_choice="auto")
    call = answered.json()["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert proxy.upstream.seen[-1]["tools"] == [tool]


async def test_what_can_not_be_governed_is_left_alone(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy("verify: {regex: '42'}\n"))
    assert len((await proxy.chat(n=2)).json()["choices"]) == 2
    assert proxy.upstream.seen == [{"model": "small", "messages": ASK, "n": 2}]


@pytest.mark.parametrize("path", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_spent_budget_is_a_clean_402(proxy: ProxyUnderTest, path: str, stream: bool) -> None:
    app = proxy.policy("budget: {app: {per: day, usd: 0.000001}}\n")
    proxy.default(app)
    answered = await proxy.post(path, body(path, stream=stream))
    error = answered.json()["error"]
    assert answered.status_code == 402
    assert "budget" in error["message"]
    assert not proxy.upstream.seen
    assert answered.headers["x-governor-status"] == "refused"
    if path.endswith("messages"):
        assert answered.json()["type"] == "error"
    else:
        assert (error["type"], error["code"], error["param"]) == ("budget_exceeded", "402", None)


async def test_a_budget_that_resets_says_when(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: hour, calls: 1}}\n")
    proxy.default(app)
    assert (await proxy.chat()).status_code == 200
    answered = await proxy.chat()
    assert answered.status_code == 402
    assert 0 < int(answered.headers["retry-after"]) <= 3600


async def test_a_failed_call_is_told_as_without_governor_and_settled(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: total, calls: 9}}\n")
    plain = await proxy.chat(messages=[{"role": "user", "content": "fail400"}])
    proxy.default(app)
    governed = await proxy.chat(messages=[{"role": "user", "content": "fail400"}])
    assert (governed.status_code, governed.json()["error"]["type"]) == (400, plain.json()["error"]["type"])
    await proxy.idle()
    balance = proxy.balance(f"app:{app}")
    assert (balance.spent.calls, balance.reserved.calls) == (1, 0), "sent, so that it is booked at its bound"
    assert len(proxy.upstream.seen) == 2, "no second attempt after the client was told"


async def test_a_second_rung_that_fails_ships_the_best_in_hand(proxy: ProxyUnderTest) -> None:
    rungs = LADDER.replace("model: large", "model: claude")
    proxy.default(proxy.policy("verify: {regex: 'never'}\n", ladder=rungs))
    answered = await proxy.chat()
    assert answered.status_code == 200
    assert answered.headers["x-governor-status"] == "best_so_far"


async def test_no_answer_is_shipped_that_the_policy_refuses(proxy: ProxyUnderTest) -> None:
    budget = "budget: {step: {calls: 1}, on_exhausted: refuse}\n"
    proxy.default(proxy.policy("verify: {regex: '42'}\n" + budget))
    answered = await proxy.chat()
    assert answered.status_code == 402
    assert WEAK not in answered.text


async def test_a_judge_is_asked_through_the_router_and_paid_for(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("verify: {judge: strong}\nbudget: {app: {per: total, calls: 50}}\n")
    proxy.default(app)
    answered = await proxy.chat()
    assert answered.status_code == 200, answered.text
    assert [seen["model"] for seen in proxy.upstream.seen][:2] == ["small", "large"]
    assert proxy.balance(f"app:{app}").spent.calls == len(proxy.upstream.seen)
    assert int(answered.headers["x-governor-tokens"]) == sum(totals(answered.json()))


async def test_keys_choose_only_among_their_own(proxy: ProxyUnderTest) -> None:
    apps = ("alpha", "beta", "gamma")
    for name in apps:
        proxy.policy("", name)
    table: list[tuple[str, str | None, int, str | None]] = [
        ("sk-alpha", None, 200, "alpha"),
        ("sk-alpha", "beta", 200, "beta"),
        ("sk-alpha", "gamma", 403, None),
        ("sk-beta", "alpha", 403, None),
        ("sk-team", None, 200, "gamma"),
        ("sk-self", None, 200, "gamma"),
        ("sk-self", "beta", 403, None),
        ("sk-none", "alpha", 403, None),
        ("sk-none", None, 200, None),
    ]
    for key, asked, status, app in table:
        answered = await proxy.chat(key, headers={"x-governor-app": asked} if asked else {})
        assert (answered.status_code, answered.headers.get("x-governor-app")) == (status, app), (key, asked)
    for name in apps:
        proxy.remove(name)


@pytest.mark.parametrize("path", WIRES)
async def test_tags_metadata_and_aliases_of_other_tenants_are_refused(proxy: ProxyUnderTest, path: str) -> None:
    proxy.policy("", "alpha")
    proxy.policy("", "beta")
    for more in (
        {"metadata": {"governor_app": "alpha"}},
        {"metadata": {"tags": ["app:alpha"]}},
        {"model": "governor/alpha"},
    ):
        answered = await proxy.post(path, body(path) | more, key="sk-beta")
        foreign = answered.status_code == 403 and "alpha" in answered.json()["error"]["message"]
        assert foreign or answered.headers.get("x-governor-app") == "beta", (more, answered.text)
    answered = await proxy.post(path, body(path), "sk-beta", **{"x-litellm-tags": "app:alpha"})
    assert answered.status_code == 403
    assert not [seen for seen in proxy.upstream.seen if seen["model"] != "small"]
    proxy.remove("alpha")
    proxy.remove("beta")


async def test_an_alias_is_an_application(proxy: ProxyUnderTest) -> None:
    proxy.policy("", "beta")
    answered = await proxy.chat("sk-beta", model="governor/beta")
    assert (answered.status_code, answered.headers["x-governor-app"]) == (200, "beta")
    assert answered.json()["model"] == "governor/beta"
    proxy.remove("beta")
    assert (await proxy.chat("sk-beta", model="governor/beta")).status_code == 400


async def test_a_client_can_not_name_a_flight(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(VERIFIED))
    forged = {"governor": {"flight": "x", "headers": {"x-governor-app": "evil"}}}
    answered = await proxy.chat(metadata=forged, litellm_metadata=forged)
    assert answered.headers["x-governor-status"] == "accepted"
    assert "evil" not in str(answered.headers)


async def test_shadow_records_and_changes_nothing(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("mode: shadow\nverify: {regex: '42'}\nbudget: {app: {per: total, usd: 0.000001}}\n")
    proxy.default(app)
    answered = await proxy.chat(max_tokens=7)
    assert answered.json()["choices"][0]["message"]["content"] == WEAK
    assert proxy.upstream.seen == [{"model": "small", "messages": ASK, "max_tokens": 7}]
    assert answered.headers["x-governor-status"] == "shadow"
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.tokens == 30, "counted, though no limit holds"


async def test_a_canary_governs_a_stable_share_of_sessions(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("mode: {canary: 0.5}\n")
    proxy.default(app)
    arms: dict[str, set[str]] = {}
    for turn in range(3):
        for number in range(12):
            answered = await proxy.chat(headers={"x-governor-session": f"s{number}"})
            arms.setdefault(f"s{number}", set()).add(answered.headers["x-governor-status"])
            assert answered.status_code == 200, turn
    assert all(len(seen) == 1 for seen in arms.values())
    assert {"control"} < set.union(*arms.values())


async def test_the_status_route_is_the_admins(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("")
    bad = proxy.folder / "bad.yaml"
    bad.write_text("version: 1\nladder: [{id: a, model: nowhere}]\n")
    proxy.look()
    status = await proxy.client.get("/governor/status", headers={"authorization": f"Bearer {MASTER}"})
    told = status.json()
    assert len(told["policies"][app]["digest"]) == 64
    assert "model_list has no model 'nowhere'" in told["errors"]["bad.yaml"]
    assert told["hooks"]["async_pre_call_hook"] > 0
    assert set(told["ledgers"].values()) <= {"ok"}
    assert told["missed_hooks"] == {}
    for key in ("sk-none", "sk-alpha"):
        refused = await proxy.client.get("/governor/status", headers={"authorization": f"Bearer {key}"})
        assert refused.status_code in (401, 403)
    bad.unlink()


@pytest.mark.parametrize("path", WIRES)
async def test_a_rungs_time_limit_holds_on_every_wire(proxy: ProxyUnderTest, path: str) -> None:
    model = "claude" if path.endswith("messages") else "small"
    app = proxy.policy(
        "budget: {app: {per: total, calls: 9}}\n", ladder=f"ladder: [{{id: a, model: {model}, timeout: 0.5}}]\n"
    )
    proxy.default(app)
    proxy.upstream.hang = 60
    answered = await proxy.post(path, body(path, "hang", model=model))
    assert answered.status_code in (408, 504), answered.text
    assert not proxy.upstream.hung
    assert not [seen for seen in proxy.upstream.seen if "timeout" in seen]
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.calls == 1


async def test_an_application_without_a_policy_has_the_defaults(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("")
    proxy.default(app)
    answered = await proxy.chat("sk-beta")
    assert answered.headers["x-governor-app"] == app


async def test_words_of_clients_are_cut_to_size(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {session: {calls: 9}}\n")
    proxy.default(app)
    assert (await proxy.chat(user="a\nb" + "c" * 9999)).status_code == 200
    scopes = [balance.scope for balance in proxy.governor.desk.ledgers.of("memory://").balances(f"session:{app}")]
    assert len(scopes) == 1
    assert scopes[0].isprintable()
    assert len(scopes[0]) < 300


async def test_hostile_bodies_are_never_a_500_of_ours(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(VERIFIED))
    hostile: list[Any] = [
        "x",
        7,
        [],
        [7],
        [{"role": "user"}],
        [{"role": "user", "content": {"a": 1}}],
        [{"role": "user", "content": [7, None]}],
        [{"role": ["user"], "content": "x"}],
    ]
    for messages in hostile:
        proxy.default("nobody")
        bare = await proxy.chat(messages=messages)
        proxy.default(next(iter(proxy.governor.desk.folder.served)))
        governed = await proxy.chat(messages=messages)
        assert governed.status_code < 500 or governed.status_code == bare.status_code, (messages, governed.text)


@pytest.mark.parametrize("word", ["low", "none"])
async def test_an_effort_in_an_object_is_kept(proxy: ProxyUnderTest, word: str) -> None:
    rungs = "".join(f"  - {{id: {effort}, model: gpt, effort: {effort}}}\n" for effort in ("low", "high"))
    proxy.default(proxy.policy("dial: 0\n", ladder=f"ladder:\n{rungs}"))
    await proxy.chat(model="gpt", reasoning_effort={"effort": word, "summary": "auto"})
    assert proxy.upstream.seen[0].get("reasoning_effort") == ("low" if word == "low" else None), "it has no `none`"


@pytest.mark.parametrize("more", [{"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 100}}])
async def test_a_limit_of_thought_holds_on_responses_wherever_it_stands(
    proxy: ProxyUnderTest, more: dict[str, Any]
) -> None:
    rungs = "".join(
        f"  - {{id: {word}, model: gpt, effort: {word}, thinking_tokens: {tokens}, answer_tokens: 50,"
        f" price: {{input: 1, output: 2}}}}\n"
        for word, tokens in (("low", 100), ("high", 300))
    )
    proxy.default(proxy.policy("verify: {regex: '42'}\n", ladder=f"ladder:\n{rungs}"))
    for said in (more, {"extra_body": more}):
        proxy.upstream.reset()
        await proxy.post("/v1/responses", {"model": "gpt", "input": "What is it?", **said})
        assert {sent["reasoning"]["effort"] for sent in proxy.upstream.seen} == {"low"}
        assert not [sent for sent in proxy.upstream.seen if sent.keys() & {"reasoning_effort", "thinking"}]


async def test_who_switches_thinking_off_gets_no_effort_word(proxy: ProxyUnderTest) -> None:
    rung = "ladder: [{id: a, model: opus, effort: high, thinking_tokens: 2000, answer_tokens: 500}]\n"
    proxy.default(proxy.policy("", ladder=rung))
    asked = {"model": "opus", "messages": ASK, "max_tokens": 4000, "thinking": {"type": "disabled"}}
    answered = await proxy.post("/v1/messages", asked)
    assert answered.status_code == 200, answered.text
    (sent,) = proxy.upstream.seen
    assert (sent.get("thinking") or {"type": "disabled"})["type"] == "disabled"
    assert "effort" not in (sent.get("output_config") or {})


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_a_custom_tools_call_passes(proxy: ProxyUnderTest, mode: str) -> None:
    app = proxy.policy(f"dial: 1\nmode: {mode}\nbudget: {{app: {{per: total, usd: 1}}}}\nverify: complete\n")
    proxy.default(app)
    asked = [{"role": "user", "content": "usetool custom"}]
    tools = [{"type": "function", "function": {"name": "shell", "parameters": {"type": "object", "properties": {}}}}]
    answered = await proxy.chat(messages=asked, tools=tools)
    assert answered.status_code == 200, answered.text
    (call,) = answered.json()["choices"][0]["message"]["tool_calls"]
    assert call["custom"] == {"name": "shell", "input": "ls -l"}
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.tokens == 30, "read, and so booked by its usage"


CALLS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "usetool": ("/v1/chat/completions", {"functions": [{"name": "weather", "parameters": {"type": "object"}}]}),
    "custom_tool_call": ("/v1/responses", {"tools": [{"type": "custom", "name": "shell"}]}),
    "shell_call": ("/v1/responses", {"tools": [{"type": "shell"}]}),
    "local_shell_call": ("/v1/responses", {"tools": [{"type": "local_shell"}]}),
    "apply_patch_call": ("/v1/responses", {"tools": [{"type": "apply_patch"}]}),
    "computer_call": (
        "/v1/responses",
        {"tools": [{"type": "computer_use_preview", "display_width": 1, "display_height": 1, "environment": "linux"}]},
    ),
}
"""What makes a model call a tool that is not one of chat's `tools`, and a request that offers it."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", CALLS)
async def test_an_answer_that_calls_a_clients_tool_is_not_empty(proxy: ProxyUnderTest, word: str, stream: bool) -> None:
    """The calls are checked too: their tools are offered, and free text is no broken JSON."""
    checks = "verify: {all: [complete, {tool_arguments: {required: true}}]}\n"
    app = proxy.policy(f"{checks}budget: {{app: {{per: total, usd: 1}}}}\n")
    proxy.default(app)
    path, offered = CALLS[word]
    said = {"input": word} if path.endswith("responses") else {"messages": [{"role": "user", "content": word}]}
    answered = await proxy.post(path, {"model": "small", "stream": stream, **said, **offered})
    assert answered.status_code == 200, answered.text
    await proxy.idle()
    assert len(proxy.upstream.seen) == proxy.balance(f"app:{app}").spent.calls == 1
    assert ("function_call" if word == "usetool" else word) in answered.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_an_answer_without_usage_is_given_as_it_is_and_booked_at_its_bound(
    proxy: ProxyUnderTest, path: str
) -> None:
    app = proxy.policy("budget: {app: {per: total, usd: 1}}\n")
    proxy.default(app)
    silent = [{"role": "user", "content": "nousage"}]
    answered = await proxy.post(
        path, {"model": "small", **({"input": "nousage"} if path.endswith("responses") else {"messages": silent})}
    )
    assert answered.status_code == 200, answered.text
    await proxy.idle()
    assert proxy.balance(f"app:{app}").spent.answer in (100, 200)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("own", [False, True])
async def test_confidence_is_read_and_shown_to_whom_asked_for_it(
    proxy: ProxyUnderTest, own: bool, stream: bool
) -> None:
    app = proxy.policy("dial: 1\nverify: {confidence: 0.9}\nbudget: {app: {per: total, usd: 1}}\n")
    proxy.default(app)
    asked: dict[str, Any] = {"logprobs": True} if own else {}
    answered = await proxy.chat(stream=stream, **asked)
    assert answered.status_code == 200, answered.text
    assert len(proxy.upstream.seen) == 1, "sure enough"
    assert proxy.upstream.seen[0]["logprobs"] is True
    assert ("logprob" in answered.text.replace('"logprobs":null', "")) is own
    if not stream:
        assert answered.headers["x-governor-status"] == "accepted"
    proxy.default(proxy.policy("dial: 1\nverify: {confidence: 0.95}\n"))
    assert (await proxy.chat()).headers["x-governor-status"] == "best_so_far", "not sure enough"


THINKING = {
    "gpt": "{id: thinks, model: gpt, effort: low, thinking_tokens: 1500, answer_tokens: 500, price: {output: 1}}",
    "claude": "{id: thinks, model: claude, thinking_tokens: 1500, answer_tokens: 500, price: {output: 1}}",
}
PLAIN = "{id: plain, model: small, answer_tokens: 500, price: {output: 90}}"
CHOICE = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 0.2},
        {"top_p": 0.5},
        {"top_k": 5},
        {"top_k": 1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0},
        {"logit_bias": {"5": 1}},
        {"seed": 5},
        {"logprobs": False},
    ],
)
@pytest.mark.parametrize("model", THINKING)
async def test_a_wish_that_the_rungs_model_refuses_is_dropped(
    proxy: ProxyUnderTest, model: str, wish: dict[str, Any]
) -> None:
    proxy.default(proxy.policy("", ladder=f"ladder: [{THINKING[model]}]\n"))
    answered = await proxy.chat(**wish)
    assert answered.status_code == 200, answered.text
    (seen,) = proxy.upstream.seen
    assert (model, *wish) == ("gpt", "seed") or not wish.keys() & seen.keys()


async def test_no_top_k_reaches_a_claude_that_thinks(proxy: ProxyUnderTest) -> None:
    for rung, kept in ((THINKING["claude"], None), (PLAIN.replace("small", "claude"), 5)):
        proxy.upstream.reset()
        proxy.default(proxy.policy("", ladder=f"ladder: [{rung}]\n"))
        answered = await proxy.post("/v1/messages", body("/v1/messages", top_k=5))
        assert answered.status_code == 200, answered.text
        assert proxy.upstream.seen[0].get("top_k") == kept


@pytest.mark.parametrize(
    ("model", "path", "asked"),
    [
        ("gpt", WIRES[0], {"stop": ["X"]}),
        ("gpt", WIRES[0], {"logprobs": True, "top_logprobs": 2}),
        ("gpt", WIRES[2], {"stop_sequences": ["X"]}),
        ("claude", WIRES[0], {"logprobs": True}),
        ("claude", WIRES[0], {**CHOICE, "tool_choice": "required"}),
        ("claude", WIRES[0], {**CHOICE, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ("claude", WIRES[2], {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}}),
    ],
)
async def test_a_rung_is_left_out_whose_model_would_not_do_as_asked(
    proxy: ProxyUnderTest, model: str, path: str, asked: dict[str, Any]
) -> None:
    proxy.default(proxy.policy("dial: 1\n", ladder=f"ladder: [{THINKING[model]}, {PLAIN}]\n"))
    for more, rung in (({}, "thinks"), (asked, "plain")):
        answered = await proxy.post(path, body(path, **more))
        assert answered.status_code == 200, answered.text
        assert answered.headers["x-governor-rung"] == rung


@pytest.mark.parametrize("stop", [[], None, ["X"]])
async def test_what_no_rung_can_do_is_told_and_not_left_out(proxy: ProxyUnderTest, stop: Any) -> None:
    proxy.default(proxy.policy("", ladder=f"ladder: [{THINKING['gpt']}]\n"))
    answered = await proxy.chat(stop=stop)
    assert answered.status_code == (400 if stop else 200), answered.text
    assert not stop or "'stop'" in answered.json()["error"]["message"]
