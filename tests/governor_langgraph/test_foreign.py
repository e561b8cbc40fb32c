"""Never trust a knob: what chat models of an application's own really send, read on a local server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from governor.errors import UngovernedModelError
from governor.policy import Policy, policy_from
from governor.records import Rung
from governor_langgraph.chat import GovernedChat
from governor_langgraph.foreign import settings
from tests.governor_langgraph.agent_parts import KEY, Desk, OwnModel, own_model
from tests.governor_litellm.stub import StubServer


class ChatAnthropic(OwnModel):
    """Named as the class of langchain-anthropic, which is known by its name."""


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


def one_rung(model: str, wire: str | None = None, **knobs: Any) -> tuple[Rung, Policy]:
    facts = {"models": {model: {"wire": wire}}} if wire else {}
    rules = policy_from({"version": 1, **facts, "ladder": [{"id": "only", "model": model, **knobs}]})
    return rules.rungs["only"], rules


def openai(server: StubServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, **options)


def azure(server: StubServer) -> AzureChatOpenAI:
    return AzureChatOpenAI(azure_endpoint=server.url, api_key=KEY, api_version="1", model="m", max_retries=0)


@pytest.mark.parametrize(
    ("model", "wire", "knobs", "sent"),
    [
        (
            "openai/gpt-5",
            None,
            {"effort": "high", "thinking_tokens": 2000, "answer_tokens": 100},
            {"reasoning_effort": "high", "max_completion_tokens": 2100},
        ),
        (
            "openai/small",
            "plain",
            {"answer_tokens": 64, "temperature": 0.25},
            {"max_completion_tokens": 64, "temperature": 0.25},
        ),
        (
            "hosted_vllm/qwen",
            None,
            {"thinking_tokens": 512, "answer_tokens": 64},
            {"thinking_token_budget": 512, "max_completion_tokens": 576},
        ),
        (
            "hosted_vllm/qwen",
            None,
            {"effort": "none", "answer_tokens": 64},
            {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "none"},
        ),
        (
            "deepseek/deepseek-v4",
            None,
            {"effort": "high", "thinking_tokens": 100, "answer_tokens": 64},
            {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        ),
    ],
)
@pytest.mark.parametrize("made", [openai, azure])
def test_the_request_of_the_openai_family_holds_the_rung(
    server: StubServer, made: Any, model: str, wire: str | None, knobs: dict[str, Any], sent: dict[str, Any]
) -> None:
    rung, rules = one_rung(model, wire, **knobs)
    chat = made(server)
    chat.bind(**settings(chat, rung, rules)).invoke("hi")
    assert {name: server.body.get(name) for name in sent} == sent
    assert "extra_body" not in server.body


def test_a_rung_outweighs_what_the_model_was_made_with(server: StubServer) -> None:
    rung, rules = one_rung("openai/small", "plain", answer_tokens=64, temperature=0.25)
    chat = openai(server, max_tokens=9, temperature=1.0, reasoning_effort="low")
    chat.bind_tools([]).bind(**settings(chat, rung, rules)).invoke("hi")
    assert (server.body["max_completion_tokens"], server.body["temperature"]) == (64, 0.25)


@pytest.mark.parametrize(
    ("model", "knobs", "told"),
    [
        (
            "anthropic/claude-opus-5",
            {"effort": "high", "thinking_tokens": 2000, "answer_tokens": 100},
            {"max_tokens": 2100, "output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}},
        ),
        (
            "anthropic/claude-haiku-4-5",
            {"thinking_tokens": 2048, "answer_tokens": 100},
            {"max_tokens": 2148, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            "anthropic/claude-haiku-4-5",
            {"effort": "none", "temperature": 0.5, "answer_tokens": 100},
            {"max_tokens": 100, "temperature": 0.5, "thinking": {"type": "disabled"}},
        ),
    ],
)
def test_what_anthropics_class_is_told_is_what_its_server_gets(
    server: StubServer, model: str, knobs: dict[str, Any], told: dict[str, Any]
) -> None:
    rung, rules = one_rung(model, **knobs)
    assert settings(ChatAnthropic(messages=iter([])), rung, rules) == told
    theirs = pytest.importorskip("langchain_anthropic", reason="its class is known by name; nothing here needs it")
    chat = theirs.ChatAnthropic(model=model.partition("/")[2], base_url=server.url, api_key=KEY, max_retries=0)
    chat.bind(**settings(chat, rung, rules)).invoke("hi")
    assert {name: server.body.get(name) for name in told} == told


def test_a_governed_model_is_told_nothing() -> None:
    rung, rules = one_rung("openai/gpt-5", effort="low", thinking_tokens=100)
    assert settings(GovernedChat(governor=Desk([]).governor), rung, rules) == {}


@pytest.mark.parametrize(
    ("chat", "model", "knobs", "why"),
    [
        (own_model(), "openai/small", {"answer_tokens": 64}, r"OwnModel can't be told rung 'only' \(64 tokens\)\."),
        (own_model(), "openai/gpt-5", {"effort": "low", "answer_tokens": 9}, r"\(9 tokens, effort 'low'\)"),
        (
            ChatAnthropic(messages=iter([])),
            "hosted_vllm/qwen",
            {"thinking_tokens": 9, "answer_tokens": 9},
            "it has no argument for extra_body",
        ),
        (
            ChatOpenAI(model="m", api_key=KEY),
            "openai/small",
            {"thinking_tokens": 9, "answer_tokens": 9},
            "has no thinking to limit",
        ),
    ],
)
def test_a_model_that_can_not_be_told_is_an_error_unless_the_policy_lets_it_pass(
    chat: BaseChatModel, model: str, knobs: dict[str, Any], why: str
) -> None:
    rung, rules = one_rung(model, **knobs)
    with pytest.raises(UngovernedModelError, match=why) as told:
        settings(chat, rung, rules)
    assert "GovernedChat" in str(told.value)
    assert "ungoverned: pass" in str(told.value)
    assert settings(chat, rung, rules.model_copy(update={"ungoverned": "pass"})) == {}
