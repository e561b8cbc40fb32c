from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage, AIMessageChunk

from governor.errors import BackendReplyError, NoAnswerError
from governor.protocols import Delta
from governor.records import Call
from tests.governor_langgraph.agent_parts import Desk, asked, by_rung, lookup, said, send_mail, shown

Stream = Callable[..., list[Any]]


@pytest.fixture(params=["sync", "async"])
def stream(request: pytest.FixtureRequest) -> Stream:
    """What an agent streams in a mode: `stream(agent, mode)`."""
    if request.param == "sync":
        return lambda agent, mode: list(agent.stream(asked(), stream_mode=mode))

    async def pieces(agent: Any, mode: Any) -> list[Any]:
        return [piece async for piece in agent.astream(asked(), stream_mode=mode)]

    return lambda agent, mode: asyncio.run(pieces(agent, mode))


def test_an_answer_that_nothing_judges_comes_token_by_token(stream: Stream) -> None:
    desk = Desk([said("two million people")])
    pieces = shown(stream(desk.agent(), "messages"))
    assert [text for _, text in pieces] == ["two", " million", " people", ""]
    assert len({one for one, _ in pieces}) == 1


def test_a_rejected_answer_is_never_shown_and_the_accepted_one_is_one_message(stream: Stream) -> None:
    desk = Desk(by_rung(lambda: said("no idea at all"), lambda: said("2 million people")), verify={"regex": r"\d"})
    pieces = shown(stream(desk.agent(), "messages"))
    assert [text for _, text in pieces if text] == ["2 million people"]
    assert len({one for one, _ in pieces}) == 1
    assert desk.rungs == ["low", "high"]


def test_updates_and_values_hold_the_accepted_answer_alone(stream: Stream) -> None:
    for mode in ("updates", "values"):
        desk = Desk(by_rung(lambda: said("no idea"), lambda: said("2 million")), verify={"regex": r"\d"})
        pieces = stream(desk.agent(), mode)
        assert "no idea" not in repr(pieces)
        last = pieces[-1]["model"] if mode == "updates" else pieces[-1]
        assert [one.content for one in last["messages"] if isinstance(one, AIMessage)] == ["2 million"]


def test_a_stream_ends_with_the_tokens_of_all_attempts(stream: Stream) -> None:
    desk = Desk(by_rung(lambda: said("no idea"), lambda: said("2 million")), verify={"regex": r"\d"})
    usage = [
        one.usage_metadata["total_tokens"]
        for one, _ in stream(desk.agent(), "messages")
        if isinstance(one, AIMessageChunk) and one.usage_metadata
    ]
    assert usage == [30]


def test_a_rejected_tool_call_is_never_shown_and_text_is_not_held_for_the_tools_sake(stream: Stream) -> None:
    answers = iter(
        [said("", ("lookup", {"town": "Paris"})), said("", ("lookup", {"city": "Paris"})), said("two million")]
    )
    desk = Desk(lambda _: next(answers))
    pieces = stream(desk.agent(tools=[lookup]), "messages")
    calls = [call["args"] for one, _ in pieces if isinstance(one, AIMessageChunk) for call in one.tool_calls]
    assert calls == [{"city": "Paris"}]
    assert [text for _, text in shown(pieces)] == ["", "two", " million", ""]


def test_text_that_was_shown_stays_and_its_wrong_tool_call_is_told_to_the_model(stream: Stream) -> None:
    wrong = said("Let me look.", ("lookup", {"town": "Paris"}))
    desk = Desk([wrong, said("two million")])
    agent = desk.agent(tools=[lookup])
    pieces = stream(agent, "messages")
    assert "".join(text for _, text in shown(pieces)) == "Let me look.two million"
    assert desk.rungs == ["low", "low"]
    assert desk.kept.outcomes[0].status == "best_so_far"
    assert "city" in str(desk.backend.calls[1].messages[-1]["content"])


def test_a_stream_that_breaks_off_after_text_is_not_started_over(stream: Stream) -> None:
    def broken(call: Call) -> Any:
        yield Delta(text="two ")
        raise BackendReplyError("cut", model=call.rung.model)

    async def abroken(call: Call) -> Any:
        for piece in broken(call):
            yield piece

    desk = Desk([])
    desk.backend.stream, desk.backend.astream = broken, abroken  # type: ignore[method-assign]
    with pytest.raises(NoAnswerError, match="broke off after text was shown"):
        stream(desk.agent(), "messages")
    assert desk.nothing_is_held()


def test_a_structured_response_appears_whole(stream: Stream) -> None:
    schema = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    low, high = said('{"town": "Paris"}'), said('{"name": "Paris in France"}')
    desk = Desk(by_rung(lambda: low, lambda: high))
    agent = desk.agent(response_format=ProviderStrategy(schema))
    assert [text for _, text in shown(stream(agent, "messages")) if text] == ['{"name": "Paris in France"}']


def test_an_answer_over_a_tools_limit_is_not_shown(stream: Stream) -> None:
    over = said("", ("send_mail", {"to": "a"}), ("send_mail", {"to": "b"}))
    answers = iter([over, said("", ("send_mail", {"to": "a"})), said("sent")])
    desk = Desk(lambda _: next(answers), tools={"send_mail": {"max_calls": 1}})
    pieces = stream(desk.agent(tools=[send_mail]), ["messages", "updates", "values"])
    made = [piece[0] for mode, piece in pieces if mode == "messages"]
    assert [len(one.tool_calls) for one in made if isinstance(one, AIMessageChunk) and one.tool_calls] == [1]
    assert "'to': 'b'" not in repr(pieces)
