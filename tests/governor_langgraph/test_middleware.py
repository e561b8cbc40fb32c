from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel, field_validator

from governor.errors import BackendUnavailableError, NoAnswerError
from governor.facade import Governor
from governor_langgraph.middleware import GovernorMiddleware
from governor_langgraph.wrapped import node
from tests.governor_langgraph.agent_parts import (
    Desk,
    asked,
    by_rung,
    dangling,
    lookup,
    own_model,
    policy,
    said,
)

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Invokes an agent, blocking or awaiting: `ask(agent, input, config, **more)`."""
    if request.param == "sync":
        return lambda agent, given, *rest, **more: agent.invoke(given, *rest, **more)
    return lambda agent, given, *rest, **more: asyncio.run(agent.ainvoke(given, *rest, **more))


class City(BaseModel):
    name: str
    people: int

    @field_validator("people")
    @classmethod
    def _some(cls, value: int) -> int:
        if value <= 0:
            raise ValueError("nobody lives there")
        return value


def test_each_model_call_of_an_agent_is_a_step(ask: Ask) -> None:
    desk = Desk([said("", ("lookup", {"city": "Paris"})), said("two million")])
    agent = desk.agent(tools=[lookup], system_prompt="You know cities.", checkpointer=InMemorySaver())
    final = ask(agent, asked(), {"configurable": {"thread_id": "t1", "tenant": "gold"}})
    assert [one.type for one in final["messages"]] == ["human", "ai", "tool", "ai"]
    assert [one.status for one in desk.kept.outcomes] == ["accepted", "accepted"]
    first, second = desk.kept.steps
    assert (first.node, first.session, first.tenant) == ("agent", "t1", "gold")
    assert [one["role"] for one in second.messages] == ["system", "user", "assistant", "tool"]
    assert first.tools[0]["function"]["name"] == "lookup"
    assert desk.nothing_is_held()


def test_a_rejected_answer_is_asked_again_on_a_higher_rung_and_never_kept(ask: Ask) -> None:
    desk = Desk(by_rung(lambda: said("no idea"), lambda: said("2 million")), verify={"regex": r"\d"})
    final = ask(desk.agent(), asked())
    assert [one.content for one in final["messages"]][1:] == ["2 million"]
    assert desk.rungs == ["low", "high"]
    message = final["messages"][-1]
    assert message.usage_metadata["total_tokens"] == 30
    assert message.response_metadata["governor"]["attempts"] == 2
    assert message.response_metadata["governor"]["answer_tokens"] == 5


def test_the_next_rung_hears_why_the_last_answer_was_rejected(ask: Ask) -> None:
    desk = Desk(by_rung(lambda: said("no idea"), lambda: said("2")), verify={"contains": "2"})
    ask(desk.agent(), asked())
    asked_first, asked_then = (call.messages for call in desk.backend.calls)
    assert asked_then[: len(asked_first)] == asked_first
    assert [one["role"] for one in asked_then[len(asked_first) :]] == ["assistant", "user"]
    assert asked_then[-2]["content"] == "no idea"
    assert "rejected" in asked_then[-1]["content"]


def test_a_judge_is_counted_in_the_message(ask: Ask) -> None:
    def script(call: Any) -> Any:
        return said('{"correct": true, "score": 1.0, "reason": "fine"}' if call.purpose == "judge" else "2 million")

    desk = Desk(script, verify={"judge": {"rung": "high"}})
    message = ask(desk.agent(), asked())["messages"][-1]
    outcome = desk.kept.outcomes[0]
    judged = outcome.verifier_usage.total_tokens
    assert judged > 0
    assert message.usage_metadata["total_tokens"] == outcome.usage.total_tokens + judged


@dataclass
class Context:
    tier: str
    budget: float
    secrets: dict[str, str]


def test_state_and_context_are_the_steps_features(ask: Ask) -> None:
    class Mine(AgentState[Any]):
        pages: int
        notes: list[str]

    desk = Desk(
        [said("", ("lookup", {"city": "Atlantis"}), ("lookup", {"city": "Paris"})), said("2 million")],
        steps=[{"match": {"state": {"tier": "gold"}}, "ladder": ["high"]}],
    )
    agent = desk.agent(tools=[lookup], state_schema=Mine, context_schema=Context)
    ask(agent, {**asked(), "pages": 3, "notes": ["x"]}, context=Context("gold", 0.5, {"key": "x"}))
    first, second = (dict(one.state) for one in desk.kept.steps)
    assert first == {"pages": 3, "tier": "gold", "budget": 0.5, "tool_calls": 0, "tool_errors": 0}
    assert second["tool_calls"] == 2
    assert desk.rungs == ["high", "high"]


def test_tools_that_failed_are_counted_since_the_last_question(ask: Ask) -> None:
    desk = Desk([said("done")])
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "lookup", "args": {}}]},
        {"role": "tool", "content": "no", "tool_call_id": "1", "status": "error"},
        {"role": "assistant", "content": "sorry"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "2", "name": "lookup", "args": {}}]},
        {"role": "tool", "content": "no", "tool_call_id": "2", "status": "error"},
    ]
    ask(desk.agent(tools=[lookup]), {"messages": history})
    assert desk.kept.steps[0].state == {"tool_calls": 1, "tool_errors": 1}


@pytest.mark.parametrize("strategy", [ToolStrategy(City), City])
def test_a_structured_response_that_can_not_be_read_is_rejected(ask: Ask, strategy: Any) -> None:
    low = said("", ("City", {"name": "Atlantis", "people": 0}))
    high = said("", ("City", {"name": "Paris", "people": 2_000_000}))
    desk = Desk(by_rung(lambda: low, lambda: high))
    final = ask(desk.agent(response_format=strategy), asked())
    assert final["structured_response"] == City(name="Paris", people=2_000_000)
    assert "nobody lives there" in desk.backend.calls[1].messages[-1]["content"]
    assert [one.type for one in final["messages"]] == ["human", "ai", "tool"]


def test_an_answer_in_words_is_no_structured_response(ask: Ask) -> None:
    high = said("", ("City", {"name": "Paris", "people": 2}))
    desk = Desk(by_rung(lambda: said("It is Paris"), lambda: high))
    final = ask(desk.agent(response_format=ToolStrategy(City)), asked())
    assert final["structured_response"] == City(name="Paris", people=2)
    assert "calling the tool City" in desk.backend.calls[1].messages[-1]["content"]


def test_two_structured_responses_are_one_too_many(ask: Ask) -> None:
    one = {"name": "Paris", "people": 2}
    desk = Desk(by_rung(lambda: said("", ("City", one), ("City", one)), lambda: said("", ("City", one))))
    final = ask(desk.agent(response_format=ToolStrategy(City)), asked())
    assert final["structured_response"] == City(name="Paris", people=2)
    assert desk.rungs == ["low", "high"]


@pytest.mark.parametrize(
    ("schema", "low"),
    [
        (City, '{"name": "Atlantis", "people": 0}'),
        (City, "Paris"),
        (City.model_json_schema(), '{"name": "Atlantis"}'),
    ],
)
def test_a_schema_for_the_provider_reaches_the_backend_and_is_checked(ask: Ask, schema: Any, low: str) -> None:
    desk = Desk(by_rung(lambda: said(low), lambda: said('{"name": "Paris", "people": 2}')))
    final = ask(desk.agent(response_format=ProviderStrategy(schema), tools=[lookup]), asked())
    read = final["structured_response"]
    assert (read if isinstance(read, dict) else read.model_dump()) == {"name": "Paris", "people": 2}
    assert desk.rungs == ["low", "high"]
    wanted = desk.backend.calls[0].response_schema
    assert wanted is not None
    assert set(wanted["properties"]) == {"name", "people"}


def test_a_tool_call_on_the_way_to_a_schema_is_no_failure(ask: Ask) -> None:
    desk = Desk([said("", ("lookup", {"city": "Paris"})), said('{"name": "Paris", "people": 2}')])
    final = ask(desk.agent(response_format=ProviderStrategy(City), tools=[lookup]), asked())
    assert final["structured_response"] == City(name="Paris", people=2)
    assert desk.rungs == ["low", "low"]


def test_a_refusal_is_an_error_that_says_why(ask: Ask) -> None:
    desk = Desk([], budget={"session": {"tokens": 1}, "on_exhausted": "refuse"})
    with pytest.raises(NoAnswerError, match="budget") as refused:
        ask(desk.agent(), asked(), {"configurable": {"thread_id": "t"}})
    assert refused.value.outcome.refusal is not None
    assert refused.value.outcome.refusal.scope == "session:desk/t"
    assert desk.rungs == []


def test_a_refusal_may_be_a_message_that_ends_the_agent(ask: Ask) -> None:
    desk = Desk([], budget={"session": {"tokens": 1}, "on_exhausted": "refuse"})
    agent = desk.agent(tools=[lookup], governing={"on_refusal": "message"})
    final = ask(agent, asked(), {"configurable": {"thread_id": "t"}})
    last = final["messages"][-1]
    assert isinstance(last, AIMessage)
    assert "ended without an answer" in str(last.content)
    assert not last.tool_calls
    assert last.response_metadata["governor"]["status"] == "refused"


def test_models_that_all_fail_are_an_error_whose_spend_is_settled(ask: Ask) -> None:
    desk = Desk(lambda call: BackendUnavailableError("down", model=call.rung.model))
    with pytest.raises(NoAnswerError, match="down"):
        ask(desk.agent(), asked())
    assert desk.nothing_is_held()


@pytest.mark.parametrize("shipped", ["{broken", "[1]"])
def test_no_tool_call_is_left_without_an_answer(ask: Ask, shipped: str) -> None:
    desk = Desk(lambda call: said("let me see", ("lookup", shipped)))
    final = ask(desk.agent(tools=[lookup]), asked())
    assert dangling(final["messages"]) == []
    assert final["messages"][-1].status == "error"
    assert desk.kept.outcomes[0].status == "best_so_far"


class Breaks(AgentMiddleware[Any, Any, Any]):
    """Middleware inside of ours that raises, before or after the model was asked."""

    def __init__(self, error: Exception, *, after: bool) -> None:
        super().__init__()
        self.tools = []
        self.error, self.after = error, after

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        if self.after:
            handler(request)
        raise self.error

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        if self.after:
            await handler(request)
        raise self.error


@pytest.mark.parametrize(("after", "spent"), [(False, 0), (True, 15)])
def test_an_error_of_other_middleware_leaves_as_it_is(ask: Ask, after: bool, spent: int) -> None:
    desk, error = Desk(lambda _: said("fine"), budget={"session": {"tokens": 1_000}}), KeyError("theirs")
    with pytest.raises(KeyError, match="theirs") as raised:
        ask(desk.agent(middleware=[Breaks(error, after=after)]), asked(), {"configurable": {"thread_id": "t"}})
    assert raised.value is error
    assert desk.nothing_is_held()
    assert desk.ledger.balance("session:desk/t").spent.tokens == spent


class Approves(AgentMiddleware[Any, Any, Any]):
    """Middleware that asks a person inside of the model call."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        response = handler(request)
        response.result[0].content += f" ({interrupt('fine?')})"
        return response


def test_an_interrupt_passes_and_the_graph_goes_on_from_it() -> None:
    desk = Desk(lambda _: said("2 million"), budget={"session": {"tokens": 1_000}})
    agent = desk.agent(middleware=[Approves()], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    assert agent.invoke(asked(), config)["__interrupt__"][0].value == "fine?"
    assert desk.nothing_is_held()
    assert agent.invoke(Command(resume="yes"), config)["messages"][-1].content == "2 million (yes)"
    assert desk.ledger.balance("session:desk/t").spent.tokens == 30


def memory(path: Path) -> AbstractContextManager[Any]:
    del path
    return nullcontext(InMemorySaver())


def sqlite(path: Path) -> AbstractContextManager[Any]:
    return SqliteSaver.from_conn_string(str(path / "threads.db"))


@pytest.mark.parametrize("saver", [memory, sqlite])
def test_a_thread_goes_on_from_its_checkpoint(saver: Callable[[Path], Any], tmp_path: Path) -> None:
    desk = Desk([said("", ("lookup", {"city": "Paris"})), said("two"), said("three")])
    config = {"configurable": {"thread_id": "t"}}
    with saver(tmp_path) as kept:
        agent = desk.agent(tools=[lookup], checkpointer=kept)
        agent.invoke(asked(), config)
        final = agent.invoke(asked("And Rome?"), config)
        details = agent.get_state(config).values["messages"][3].response_metadata["governor"]
    assert [one.type for one in final["messages"]] == ["human", "ai", "tool", "ai", "human", "ai"]
    assert details["step"] == desk.kept.outcomes[1].step_id


async def test_a_thread_goes_on_from_an_asynchronous_checkpoint(tmp_path: Path) -> None:
    desk = Desk([said("two"), said("three")])
    config = {"configurable": {"thread_id": "t"}}
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as kept:
        agent = desk.agent(checkpointer=kept)
        await agent.ainvoke(asked(), config)
        final = await agent.ainvoke(asked("And Rome?"), config)
    assert [one.content for one in final["messages"][1::2]] == ["two", "three"]


class Whole(TypedDict, total=False):
    messages: list[Any]
    answer: str


def test_inside_a_governed_node_an_agent_takes_the_nodes_rung() -> None:
    desk = Desk(lambda call: said(f"by {call.rung.id}"), verify={"contains": "high"})
    agent = desk.agent()

    @node(desk.governor)
    def solve(state: Whole) -> Whole:
        return {"answer": agent.invoke({"messages": state.get("messages", [])})["messages"][-1].content}

    graph = StateGraph(Whole)
    graph.add_node("solve", solve)
    graph.add_edge(START, "solve")
    final = graph.compile().invoke({"messages": asked()["messages"]})
    assert final["answer"] == "by high"
    assert desk.rungs == ["low", "high"]
    whole = desk.kept.outcomes[-1]
    assert (whole.node, len(whole.attempts), whole.usage.total_tokens) == ("solve", 2, 30)
    assert [one.parent for one in desk.kept.outcomes] == [whole.step_id, whole.step_id, ""]


def test_a_policy_of_its_own_makes_a_governor_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nladder: [{id: only, model: local/absent}]\n", encoding="utf-8")
    assert GovernorMiddleware(path).governor.policy.rungs.keys() == {"only"}
    assert GovernorMiddleware(policy()).governor.policy.app == "desk"


def test_models_are_for_a_governor_that_is_made_here() -> None:
    with Governor(policy()) as governor, pytest.raises(ValueError, match="LangChainBackend"):
        GovernorMiddleware(governor, models={"small": own_model()})


def test_the_agents_own_model_is_never_asked() -> None:
    desk = Desk(lambda _: said("ours"))
    agent = create_agent(own_model("theirs"), [], middleware=[GovernorMiddleware(desk.governor)])
    assert agent.invoke(asked())["messages"][-1].content == "ours"
