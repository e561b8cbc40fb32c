"""GovernedChat as a chat model: what it takes, what it says, and what it refuses."""

from __future__ import annotations

import asyncio
import re
import threading
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from governor.errors import BackendUnavailableError, LedgerUnavailableError, NoAnswerError
from governor.protocols import Balance
from governor.records import Reply, ToolCall, Usage
from governor_langgraph import GovernedChat
from governor_langgraph.chat import MENDS
from governor_litellm import LiteLLMBackend
from tests.governor_langgraph.desk import LADDER, Desk, by_rung, desk, named, reply


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool
def look_up(word: str) -> str:
    """Looks a word up."""
    return word


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream"])
def say(request: pytest.FixtureRequest) -> Callable[..., AIMessage]:
    """Asks a model in one of its four ways; a stream's chunks are added up."""

    async def astreamed(model: Any, asked: Any, options: Any) -> Any:
        return added([chunk async for chunk in model.astream(asked, **options)])

    def added(chunks: list[Any]) -> Any:
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return whole

    def one(model: Any, asked: Any = "What is 12 * 17?", **options: Any) -> Any:
        match request.param:
            case "invoke":
                return model.invoke(asked, **options)
            case "ainvoke":
                return asyncio.run(model.ainvoke(asked, **options))
            case "stream":
                return added(list(model.stream(asked, **options)))
            case _:
                return asyncio.run(astreamed(model, asked, options))

    return one


def calling(arguments: str, name: str = "add") -> Reply:
    return reply("", tool_calls=(ToolCall(id="c1", name=name, arguments=arguments),), finish_reason="tool_calls")


def test_an_answer_tells_its_usage_model_and_step(say: Callable[..., AIMessage]) -> None:
    at = desk([Reply(text="204", thinking="hm", usage=Usage(20, 5, 2, 3), model="m/small-2026")])
    said = say(at.chat)
    assert (said.content, said.additional_kwargs) == ("204", {"reasoning_content": "hm"})
    assert said.usage_metadata == {
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_token_details": {"cache_read": 3},
        "output_token_details": {"reasoning": 2},
    }
    assert said.response_metadata["model_name"] == "m/small-2026"
    assert said.response_metadata["governor"]["answer_tokens"] == 3


def test_a_step_of_its_own_is_verified_and_climbs(say: Callable[..., AIMessage]) -> None:
    at = desk(by_rung(low="194", high="204"), verify={"arithmetic": "12 * 17"})
    said = say(at.chat)
    assert said.content == "204"
    assert said.usage_metadata is not None
    told, tokens = said.response_metadata["governor"], 25 * len(at.backend.calls)  # all attempts
    assert len(at.backend.calls) > 1
    assert said.usage_metadata["total_tokens"] == tokens
    assert (told["status"], told["rung"], told["tokens"]) == ("accepted", "high", tokens)


def test_chat_messages_reach_the_backend_whole(say: Callable[..., AIMessage]) -> None:
    at = desk(named)
    asked = [
        SystemMessage("be brief"),
        HumanMessage("add"),
        AIMessage("", tool_calls=[{"id": "c1", "name": "add", "args": {"a": 1, "b": 2}}]),
        ToolMessage("3", tool_call_id="c1"),
    ]
    say(at.chat, asked)
    sent = at.backend.calls[0].messages
    assert [one["role"] for one in sent] == ["system", "user", "assistant", "tool"]
    assert sent[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    assert (sent[3]["content"], sent[3]["tool_call_id"]) == ("3", "c1")


def test_tools_are_offered_and_called(say: Callable[..., AIMessage]) -> None:
    at = desk([calling('{"a": 12, "b": 17}')])
    said = say(at.chat.bind_tools([add, look_up]))
    assert [tool["function"]["name"] for tool in at.backend.calls[0].tools] == ["add", "look_up"]
    assert said.tool_calls == [{"id": "c1", "name": "add", "args": {"a": 12, "b": 17}, "type": "tool_call"}]
    assert said.invalid_tool_calls == []
    assert said.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(("arguments", "why"), [('{"a": 12,', "Expecting"), ("[1, 2]", "arguments must be an object")])
def test_arguments_that_are_no_json_object_are_invalid_tool_calls(arguments: str, why: str) -> None:
    said = desk([calling(arguments)]).chat.bind_tools([add]).invoke("q")
    assert said.tool_calls == []
    assert [(one["name"], one["args"]) for one in said.invalid_tool_calls] == [("add", arguments)]
    assert why in str(said.invalid_tool_calls[0]["error"])


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_in_a_stream_they_are_never_taken_for_sound_ones(way: str) -> None:
    model = desk([calling('{"a": "twelve", nonsense')]).chat.bind_tools([add])
    chunks: list[Any] = list(model.stream("q")) if way == "stream" else asyncio.run(_all(model))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    [broken] = whole.invalid_tool_calls
    assert (broken["name"], broken["args"]) == ("add", 'not JSON: {"a": "twelve", nonsense')
    assert whole.tool_calls == []


async def _all(model: Any) -> list[Any]:
    return [chunk async for chunk in model.astream("q")]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("any", "required"),
        (True, "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        (None, None),
        (False, None),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_the_choice_of_tools_is_sent_in_openais_words(choice: Any, sent: Any) -> None:
    at = desk(named)
    at.chat.bind_tools([add], tool_choice=choice).invoke("q")
    assert at.backend.calls[0].tool_choice == sent


def test_the_choice_of_a_tool_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="tool_choice 'subtract' is none of the tools that are bound: add, look_up"):
        desk([]).chat.bind_tools([add, look_up], tool_choice="subtract")


@pytest.mark.parametrize("bound", ["bind", "call"])
def test_what_the_policy_decides_is_no_argument(bound: str, say: Callable[..., AIMessage]) -> None:
    at = desk([])
    own: dict[str, Any] = {"temperature": 0.2, "max_tokens": 9}
    model, given = (at.chat.bind(**own), {}) if bound == "bind" else (at.chat, own)
    with pytest.raises(ValueError, match="does not take `max_tokens`: set it in a rung"):
        say(model, **given)
    assert at.backend.calls == []


def test_nor_is_it_an_argument_of_the_model_itself() -> None:
    with pytest.raises(ValueError, match="temperature"):
        GovernedChat(governor=desk([]).governor, temperature=0.2)  # type: ignore[call-arg]  # what is tested


def test_arguments_that_say_nothing_of_what_is_asked_are_let_be(say: Callable[..., AIMessage]) -> None:
    assert say(desk(named).chat, parallel_tool_calls=True, stream=True, temperature=None).content == "low"


@pytest.mark.parametrize(
    ("argument", "mend"), [({"strict": True}, "bind_tools"), ({"parallel_tool_calls": False}, "no policy says it")]
)
def test_an_argument_that_would_not_reach_the_model_is_refused(
    say: Callable[..., AIMessage], argument: dict[str, bool], mend: str
) -> None:
    at = desk(named)
    with pytest.raises(ValueError, match=f"does not take `{next(iter(argument))}`.*{mend}"):
        say(at.chat, **argument)
    assert at.backend.calls == []


def test_the_backend_that_the_refusal_names_takes_what_it_names() -> None:
    (models,) = re.findall(r"LiteLLMBackend\((.*)\)`", MENDS["parallel_tool_calls"])
    assert LiteLLMBackend(literal_eval(models.replace("MODEL", "'m'")))  # it raises for an option that it does not know


def test_stop_words_end_the_text_also_of_a_stream(say: Callable[..., AIMessage]) -> None:
    at = desk([reply("one two END three END four")])
    assert say(at.chat, stop=["END", "four"]).content == "one two "


def test_a_step_without_an_answer_is_an_error_that_carries_its_outcome(say: Callable[..., AIMessage]) -> None:
    at = desk(lambda call: BackendUnavailableError("all down", sent=False))
    with pytest.raises(NoAnswerError, match="all down") as caught:
        say(at.chat)
    assert caught.value.outcome.status == "error"


def test_a_refused_step_tells_its_refusal(say: Callable[..., AIMessage]) -> None:
    at = desk([], budget={"session": {"tokens": 1}})
    with pytest.raises(NoAnswerError) as caught:
        say(at.chat)
    refusal = caught.value.outcome.refusal
    assert refusal is not None
    assert refusal.limit == 1


def test_json_mode_asks_for_an_object() -> None:
    at = desk([reply("{}")])
    at.chat.bind(response_format={"type": "json_object"}).invoke("q")
    assert at.backend.calls[0].response_schema == {"type": "object"}


def test_node_session_and_tenant_are_whose_it_is() -> None:
    at = desk(named, budget={"tenant": {"tokens": 9_000, "per": "total"}, "session": {"tokens": 9_000}})
    GovernedChat(governor=at.governor, node="reply", session="s", tenant="acme").invoke("q")
    assert set(at.kept.outcomes[0].scopes) == {"session:test/s", "tenant:test/acme"}
    at.chat.invoke("q", config={"configurable": {"thread_id": "t", "tenant": "other"}})
    assert set(at.kept.outcomes[1].scopes) == {"session:test/t", "tenant:test/other"}


# budget.tell


def tool_round(text: Any = "3") -> list[Any]:
    return [
        HumanMessage("add"),
        AIMessage("", tool_calls=[{"id": "c1", "name": "add", "args": {"a": 1, "b": 2}}]),
        ToolMessage(text, tool_call_id="c1"),
    ]


def told_desk(tell: bool, **budget: Any) -> Desk:
    return desk(named, ladder=[LADDER[0]], budget={"session": {"tokens": 10_000, "usd": 1, **budget}, "tell": tell})


def test_after_a_tools_result_the_model_hears_what_is_left(say: Callable[..., AIMessage]) -> None:
    at = told_desk(tell=True, calls=7)
    thread = {"configurable": {"thread_id": "t"}}
    say(at.chat, "hello", config=thread)
    say(at.chat, tool_round(), config=thread)
    assert at.backend.calls[0].messages[-1]["content"] == "hello"
    wanted = "3\n\n[Budget left: 9,975 tokens, $1.0000, 6 model calls]"
    assert at.backend.calls[1].messages[-1]["content"] == wanted


def test_a_store_that_does_not_know_what_is_left_ends_no_step(
    say: Callable[..., AIMessage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(scope: str) -> Any:
        raise LedgerUnavailableError("the store is down")

    at = told_desk(tell=True)
    monkeypatch.setattr(at.governor.ledger, "balance", down)
    assert say(at.chat, tool_round()).text == "low"
    assert at.backend.calls[0].messages[-1]["content"] == "3"
    assert "not told what is left of its budgets: the store is down" in caplog.text


async def test_an_event_loop_does_not_wait_for_a_server_to_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    at = told_desk(tell=True)
    ledger, askers = at.governor.ledger, set[int]()
    balance = ledger.balance

    def asked(scope: str) -> Balance:
        askers.add(threading.get_ident())
        return balance(scope)

    monkeypatch.setattr(type(ledger), "remote", True)
    monkeypatch.setattr(ledger, "balance", asked)
    await at.chat.ainvoke(tool_round(), config={"configurable": {"thread_id": "t"}})
    assert "[Budget left: " in at.backend.calls[0].messages[-1]["content"]
    assert at.kept.outcomes[0].session == "t", "the step's place is known there too"
    assert askers
    assert threading.get_ident() not in askers


def test_of_a_result_in_parts_it_is_one_more_part() -> None:
    at = told_desk(tell=True, tokens=50_000)
    at.chat.invoke(
        tool_round([{"type": "text", "text": "3"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}])
    )
    parts = at.backend.calls[0].messages[-1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    assert parts[-1]["text"].startswith("[Budget left: ")


def test_without_the_key_nothing_is_appended() -> None:
    at = told_desk(tell=False)
    at.chat.invoke(tool_round())
    assert at.backend.calls[0].messages[-1]["content"] == "3"


def test_without_a_limit_there_is_nothing_to_tell() -> None:
    at = desk(named, budget={"tell": True})
    at.chat.invoke(tool_round())
    assert at.backend.calls[0].messages[-1]["content"] == "3"


def test_inside_a_governed_node_it_is_what_is_left_of_the_nodes_budgets() -> None:
    at = desk(named, ladder=[LADDER[0]], budget={"step": {"tokens": 1_000}, "session": {"tokens": 500}, "tell": True})

    def ask(state: Any) -> Any:
        at.chat.invoke("q")
        return {"answer": at.chat.invoke(tool_round()).text}

    at.graph(ask).invoke({}, {"configurable": {"thread_id": "t"}})
    assert at.backend.calls[1].messages[-1]["content"] == "3\n\n[Budget left: 475 tokens]"


def test_in_shadow_nothing_is_told() -> None:
    at = desk(named, mode="shadow", budget={"session": {"tokens": 1_000}, "tell": True})
    at.chat.invoke(tool_round())
    assert at.backend.calls[0].messages[-1]["content"] == "3"


def test_a_cache_of_the_process_gives_no_rejected_answer_again(say: Callable[..., AIMessage]) -> None:
    at = desk(by_rung(low="194", high="204"), verify={"regex": "204"})
    set_llm_cache(InMemoryCache())
    try:
        graph = at.graph(lambda state: {"log": [say(at.chat).text]})
        assert [graph.invoke({"question": "What is 12 * 17?"})["log"] for _ in range(2)] == [["204"], ["204"]]
    finally:
        set_llm_cache(None)
    assert at.rungs == ["low", "high"] * 2
