"""A rung is made true by what is sent, or refused before anything is."""

from __future__ import annotations

from typing import Any

import pytest

from governor.errors import BackendAuthError, BackendRequestError, PolicyError
from governor.records import Reply
from governor.stops.settings import Stops
from governor_vllm.backend import VllmBackend
from tests.governor_vllm.calls import MODEL, backend, call, rung
from tests.governor_vllm.dialect import DialectServer

BEGUN = "<think>\n w1 w2 w3"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
STRICT = {"type": "function", "function": {"name": "add", "parameters": {}, "strict": True}}


def sent(server: DialectServer, made: VllmBackend, **fields: Any) -> dict[str, Any]:
    """The body of the request for a call."""
    made.ready(rung(thinking_tokens=0))
    server.forget()
    made.call(call(**fields))
    return dict(server.asked()[0])


def test_a_budget_is_sent_so_that_thought_and_mark_together_are_the_rungs(server: DialectServer) -> None:
    body = sent(server, backend(server))
    assert body["thinking_token_budget"] == 10 - 1  # a line break in the prompt counts, the forced end takes two
    assert body["max_tokens"] == 30
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert "vllm_xargs" not in body
    assert "priority" not in body


def test_the_processor_goes_before_the_engines_own_budget(server: DialectServer) -> None:
    server.now(processor=True)
    body = sent(server, backend(server, xargs={"governor_repeat": 4}))
    assert body["vllm_xargs"] == {"governor_repeat": 4, "governor_budget": 8}
    assert "thinking_token_budget" not in body


def test_every_other_knob_of_a_rung_and_its_engine(server: DialectServer) -> None:
    server.now(words=True)
    made = backend(server, priority=3, repetition={"min_count": 5})
    body = sent(
        server, made, rung=rung(effort="low", temperature=0.5), tools=(TOOL,), seed=7, logprobs=True,
        response_schema={"type": "object"},
    )  # fmt: skip
    wanted = {"reasoning_effort": "low", "temperature": 0.5, "priority": 3, "tools": [TOOL], "tool_choice": "auto"}
    assert wanted.items() <= body.items()
    assert body["repetition_detection"] == {"max_pattern_size": 16, "min_pattern_size": 1, "min_count": 5}
    assert (body["seed"], body["logprobs"]) == (7, True)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_effort_none_switches_thinking_off(server: DialectServer) -> None:
    made = backend(server)
    body = sent(server, made, rung=rung(effort="none", thinking_tokens=0))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert made.call(call(rung=rung(effort="none", thinking_tokens=0))).thinking == ""


@pytest.mark.parametrize(
    ("manner", "engine", "fields", "told"),
    [
        ({"budget": "ignored"}, {}, {}, "keeps no thinking budget (ignored: HTTP 200, but budgets of"),
        ({"budget": "refused"}, {}, {}, "reasoning_config is not configured"),
        ({"budget": "refused"}, {}, {}, "engine.fallback: stream or prompt"),
        ({}, {}, {"effort": "low"}, "does not read reasoning_effort"),
        (
            {"budget": "ignored", "counts": False},
            {"fallback": "stream"},
            {},
            "fallback stream: ignored: streams do not",
        ),
        ({"switch": False}, {}, {"effort": "none", "thinking_tokens": 0}, "does not read enable_thinking"),
        ({"priority": False}, {"priority": 1}, {}, "--scheduling-policy priority"),
        ({}, {"xargs": {"a": 1, "governor_repeat": 4}}, {}, "--logits-processors"),
        ({"repetition": False}, {"repetition": {}}, {}, "a loop ran on"),
        ({"forced": "\n I must answer now.</think>"}, {}, {"thinking_tokens": 3}, "at least 7"),
    ],
)
def test_a_rung_that_would_be_lost_in_silence_is_refused_at_the_start(
    server: DialectServer, manner: dict[str, Any], engine: dict[str, Any], fields: dict[str, Any], told: str
) -> None:
    server.now(**manner)
    made = backend(server, **engine)
    with pytest.raises(BackendRequestError) as refused:
        made.ready(rung(**fields))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.sent is False
    server.forget()
    with pytest.raises(BackendRequestError, match=r"^vllm/q: "):
        made.call(call(rung=rung(**fields)))
    assert server.asked() == []


def test_a_thinking_rung_on_a_fallback_to_the_prompt_is_told_in_words(server: DialectServer) -> None:
    server.now(budget="ignored")
    body = sent(server, backend(server, fallback="prompt"), rung=rung(thinking_tokens=100, effort="high"))
    said = body["messages"][0]
    assert said == {"role": "system", "content": "Think in at most 75 words, then answer.\nReasoning effort: high."}
    assert not {"thinking_token_budget", "reasoning_effort", "vllm_xargs"} & set(body)


def test_unknown_options_and_keys_that_are_not_set(server: DialectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyError, match="unknown option 'port'"):
        VllmBackend({MODEL: {"port": 1}})
    monkeypatch.delenv("MY_KEY", raising=False)
    made = VllmBackend({MODEL: {"api_base": server.url, "api_key_env": "MY_KEY"}})
    with pytest.raises(BackendAuthError, match="MY_KEY"):
        made.call(call())
    monkeypatch.setenv("MY_KEY", "k")
    assert isinstance(made.call(call()), Reply)


def test_the_rungs_stop_rules_go_to_the_processor_with_its_budget(server: DialectServer) -> None:
    server.now(processor=True)
    made = backend(server)
    made.ready(rung())
    assert made.stops(rung())
    body = sent(server, made, rung=rung(stops=Stops(repeat=4, budget=5)))
    assert body["vllm_xargs"] == {"governor_repeat": 4, "governor_budget": 5}


@pytest.mark.parametrize(
    ("stops", "thinking", "prefix", "wanted"),
    [
        (Stops(least=200), 10, "", {"budget": 8, "least": 8}),
        (Stops(least=5), 10, "", {"budget": 8, "least": 5}),
        (Stops(least=5), 10, BEGUN, {"budget": 5, "least": 2}),
        (Stops(least=9), 10, BEGUN, {"budget": 5, "least": 5}),
        (Stops(least=2), 10, BEGUN, {"budget": 5}),
        (Stops(budget=5), 10, BEGUN, {"budget": 2}),
        (Stops(budget=2), 10, BEGUN, {"budget": 0}),
        (Stops(budget=5, few=7, least=4), 0, BEGUN, {"budget": 2, "few": 4, "least": 1}),
        (Stops(least=4), 0, "", {"least": 4}),
    ],
)
def test_stop_rules_count_the_whole_thought_and_least_is_never_more_than_the_budget(
    server: DialectServer, stops: Stops, thinking: int, prefix: str, wanted: dict[str, int]
) -> None:
    """Where a prefix is gone on from, three tokens of thought stand in it."""
    server.now(processor=True)
    body = sent(server, backend(server), rung=rung(stops=stops, thinking_tokens=thinking), prefix=prefix)
    assert body["vllm_xargs"] == {f"governor_{key}": value for key, value in wanted.items()}


def test_where_no_processor_is_loaded_the_client_runs_the_rules(server: DialectServer) -> None:
    made = backend(server)
    body = sent(server, made, rung=rung(stops=Stops(repeat=4)))
    assert not made.stops(rung())
    assert "vllm_xargs" not in body


def test_a_stream_that_counts_nothing_does_where_this_side_cuts_none(server: DialectServer) -> None:
    server.now(counts=False)
    backend(server, fallback="stream").ready(rung())
    server.now(budget="ignored")
    backend(server, fallback="stream").ready(rung(thinking_tokens=0))
    backend(server, fallback="prompt").ready(rung())


@pytest.mark.parametrize("budget", ["kept", "ignored"])
def test_where_the_processor_was_not_seen_to_act_the_client_runs_the_rules(server: DialectServer, budget: str) -> None:
    """It is loaded, and finds no thought between its marks."""
    server.now(processor=True, acts=False, budget=budget)
    made = backend(server, fallback="prompt")
    body = sent(server, made, rung=rung(stops=Stops(repeat=4, budget=5)))
    assert not made.stops(rung())
    assert "vllm_xargs" not in body
    assert body.get("thinking_token_budget") == (9 if budget == "kept" else None)


def test_rules_of_the_engines_options_need_a_processor_that_acts(server: DialectServer) -> None:
    server.now(processor=True, acts=False)
    with pytest.raises(BackendRequestError, match="--additional-config"):
        backend(server, xargs={"governor_repeat": 4}).ready(rung())
    backend(server, xargs={"mine": 4}).ready(rung())


@pytest.mark.parametrize(
    "grammar",
    [
        {"response_schema": {"type": "object"}},
        {"tools": (TOOL,), "tool_choice": "required"},
        {"tools": (TOOL,), "tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"tools": (TOOL, STRICT), "tool_choice": "auto"},
        {"tools": (STRICT,)},
    ],
    ids=["schema", "required", "named", "strict", "unsaid"],
)
def test_beside_a_grammar_nothing_is_forced(server: DialectServer, grammar: dict[str, Any]) -> None:
    server.now(processor=True)
    made = backend(server)
    body = sent(server, made, rung=rung(stops=Stops(repeat=4)), **grammar)
    assert "vllm_xargs" not in body
    assert body["thinking_token_budget"] == 9
    server.now(budget="refused")
    alone = backend(server)
    with pytest.raises(BackendRequestError, match="keeps no thinking budget"):
        alone.call(call(**grammar))


def test_arguments_of_other_processors_go_out_whatever_governors_own_may(server: DialectServer) -> None:
    """Neither a grammar nor a server without Governor's processor keeps them back."""
    made = backend(server, xargs={"bias": 1, "governor_repeat": 4})
    server.now(processor=True)
    assert sent(server, made, response_schema={"type": "object"})["vllm_xargs"] == {"bias": 1}
    assert sent(server, made)["vllm_xargs"] == {"bias": 1, "governor_repeat": 4, "governor_budget": 8}
    server.now(processor=False)
    assert sent(server, backend(server, xargs={"bias": 1}))["vllm_xargs"] == {"bias": 1}


def test_a_tool_that_may_be_called_leaves_the_processor_its_budget(server: DialectServer) -> None:
    server.now(processor=True)
    assert sent(server, backend(server), tools=(TOOL,), tool_choice="auto")["vllm_xargs"] == {"governor_budget": 8}


def test_a_strict_tool_leaves_the_processor_its_budget_where_no_grammar_is_made_of_it(server: DialectServer) -> None:
    """As vLLM's parsers for Seed-OSS and Granite do, and any with VLLM_ENFORCE_STRICT_TOOL_CALLING=0."""
    server.now(processor=True, tools="lax")
    assert sent(server, backend(server), tools=(STRICT,), tool_choice="auto")["vllm_xargs"] == {"governor_budget": 8}


def test_where_all_tools_are_held_to_a_grammar_nothing_is_forced_beside_them(server: DialectServer) -> None:
    """As vLLM does with GLM's tool parser, strict or not."""
    server.now(processor=True, tools="held")
    made = backend(server)
    body = sent(server, made, tools=(TOOL,), tool_choice="auto", rung=rung(stops=Stops(repeat=4)))
    assert "vllm_xargs" not in body
    assert body["thinking_token_budget"] == 9
    for free in ({"tools": (TOOL,), "tool_choice": "none"}, {}):
        assert sent(server, made, **free)["vllm_xargs"] == {"governor_budget": 8}
