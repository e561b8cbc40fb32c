from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents.middleware import AgentMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from governor.errors import CheckFailedError
from governor.records import Call
from governor_langgraph.graph import govern
from governor_langgraph.toolcalls import calls_left, carried_out, counted, unanswerable
from tests.governor_langgraph.agent_parts import Desk, asked, dangling, lookup, own_model, policy, said, send_mail

Ask = Callable[..., Any]
ONE_MAIL = {"send_*": {"max_calls": 1}}


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    if request.param == "sync":
        return lambda agent, given, *rest: agent.invoke(given, *rest)
    return lambda agent, given, *rest: asyncio.run(agent.ainvoke(given, *rest))


def mail(*whom: str) -> Any:
    return said("", *(("send_mail", {"to": one}) for one in whom))


def sent(messages: list[Any]) -> list[str]:
    return [str(one.content) for one in messages if isinstance(one, ToolMessage) and one.status == "success"]


def test_arguments_are_checked_against_the_tools_parameters(ask: Ask) -> None:
    answers = iter([said("", ("lookup", {"town": "Paris"})), said("", ("lookup", {"city": "Paris"})), said("two")])
    desk = Desk(lambda _: next(answers))
    final = ask(desk.agent(tools=[lookup]), asked())
    assert desk.rungs == ["low", "high", "low"]
    assert "'city' is a required property" in desk.backend.calls[1].messages[-1]["content"]
    assert [one.status for one in final["messages"] if isinstance(one, ToolMessage)] == ["success"]


def test_without_verify_tools_the_agents_own_tools_complain(ask: Ask) -> None:
    answers = iter([said("", ("lookup", {"town": "Paris"})), said("sorry")])
    desk = Desk(lambda _: next(answers))
    final = ask(desk.agent(tools=[lookup], governing={"verify_tools": False}), asked())
    assert desk.rungs == ["low", "low"]
    assert [one.status for one in final["messages"] if isinstance(one, ToolMessage)] == ["error"]


def test_a_call_beyond_a_tools_limit_is_rejected_with_the_tools_name(ask: Ask) -> None:
    answers = iter([mail("a"), mail("b"), said("sent")])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    final = ask(desk.agent(tools=[send_mail, lookup]), asked())
    assert sent(final["messages"]) == ["sent to a"]
    assert "send_mail may be called 0 more times, not 1" in desk.backend.calls[2].messages[-1]["content"]
    assert final["messages"][-1].content == "sent"
    assert "governor_calls" not in final


def test_where_every_rung_insists_the_tool_is_not_run_and_the_model_is_told(ask: Ask) -> None:
    def script(call: Call) -> Any:
        return said("I give up") if call.tool_choice == "none" else mail("a", "b")

    desk = Desk(script, tools=ONE_MAIL)
    final = ask(desk.agent(tools=[send_mail]), asked())
    assert sent(final["messages"]) == ["sent to a"]
    assert dangling(final["messages"]) == []
    assert final["messages"][-1].content == "I give up"


def test_a_tool_that_may_not_be_called_again_is_not_offered(ask: Ask) -> None:
    answers = iter([mail("a"), said("sent"), mail("a"), said("sent"), mail("a"), said('{"n": 1}')])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    schema: Any = ProviderStrategy({"title": "N", "type": "object"})
    ask(desk.agent(tools=[send_mail, lookup]), asked())
    ask(desk.agent(tools=[send_mail]), asked())
    ask(desk.agent(tools=[send_mail], response_format=schema), asked())
    offers = [([tool["function"]["name"] for tool in one.tools], one.tool_choice) for one in desk.backend.calls]
    both, mails = ["send_mail", "lookup"], ["send_mail"]
    assert offers == [(both, None), (["lookup"], None), (mails, None), (mails, "none"), (mails, None), ([], None)]


def test_the_limit_holds_without_verification_too(ask: Ask) -> None:
    answers = iter([mail("a", "b"), said("done")])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    final = ask(desk.agent(tools=[send_mail], governing={"verify_tools": False}), asked())
    assert sent(final["messages"]) == ["sent to a"]
    assert desk.rungs == ["low", "low"]


def test_each_run_of_a_thread_counts_anew(ask: Ask) -> None:
    answers = iter([mail("a"), said("sent"), mail("b"), said("sent")])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    agent = desk.agent(tools=[send_mail], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    ask(agent, asked(), config)
    assert sent(ask(agent, asked("again"), config)["messages"]) == ["sent to a", "sent to b"]


class Doubts(AgentMiddleware[Any, Any, Any]):
    """Asks a person before tools run, and the model again after its last answer."""

    def after_model(self, state: Any, runtime: Any) -> Any:
        del runtime
        if state["messages"][-1].tool_calls:
            interrupt("may it?")


def test_a_run_that_was_interrupted_goes_on_counting() -> None:
    answers = iter([mail("a"), mail("b"), said("sent")])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    agent = desk.agent(tools=[send_mail], middleware=[Doubts()], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in agent.invoke(asked(), config)
    final = agent.invoke(Command(resume=True), config)
    assert sent(final["messages"]) == ["sent to a"]
    assert final["messages"][-1].content == "sent"


def test_a_summary_of_the_messages_forgets_no_call(ask: Ask) -> None:
    answers = iter([mail("a"), mail("b"), said("sent")])
    desk = Desk(lambda _: next(answers), tools=ONE_MAIL)
    summary = SummarizationMiddleware(
        own_model("all was sent", "all was sent"), trigger=("messages", 3), keep=("messages", 1)
    )
    final = ask(desk.agent(tools=[send_mail], middleware=[summary]), asked())
    assert "all was sent" in str(final["messages"][0].content)
    assert "sent to b" not in sent(final["messages"])
    assert desk.kept.outcomes[1].attempts[0].rejected


def test_tools_without_a_limit_add_nothing_to_the_state(ask: Ask) -> None:
    desk = Desk([said("two")])
    agent = desk.agent(tools=[lookup], checkpointer=InMemorySaver())
    ask(agent, asked(), {"configurable": {"thread_id": "t"}})
    assert "governor_calls" not in agent.get_state({"configurable": {"thread_id": "t"}}).values


NAMES = st.sampled_from(["send_mail", "send_post", "lookup"])


@given(st.lists(NAMES, max_size=12), st.integers(1, 4))
def test_no_sequence_of_answers_calls_a_limited_tool_too_often(names: list[str], most: int) -> None:
    rules, so_far = policy(tools={"send_*": {"max_calls": most}}), dict[str, int]()
    for at in range(0, len(names), 3):
        calls = [tool_call(name=one, args={}, id=f"{at}-{n}") for n, one in enumerate(names[at : at + 3])]
        message = AIMessage("", tool_calls=calls)
        refused = list(unanswerable(message, calls_left(rules, names, so_far)))
        for name, made in carried_out(message, refused).items():
            so_far[name] = so_far.get(name, 0) + made
    wanted = {one: names.count(one) for one in set(names)}
    assert so_far == {one: number if one == "lookup" else min(most, number) for one, number in wanted.items()}


def test_a_question_begins_a_run_unless_one_is_under_way() -> None:
    calls = {"send_mail": 1}
    question, answer = [HumanMessage("hi")], [HumanMessage("hi"), AIMessage("yes")]
    assert counted({"messages": question, "governor_calls": calls}) == {}
    assert counted({"messages": question, "governor_calls": calls, "governor_begun": True}) == calls
    assert counted({"messages": answer, "governor_calls": calls}) == calls


class Work(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


@pytest.mark.filterwarnings("ignore:The function .loads. is in beta")  # LangChain's reader of kept results
def test_a_rewind_to_an_agent_does_not_call_its_tools_again(ask: Ask) -> None:
    mailed: list[str] = []

    @tool
    def post(to: str) -> str:
        """Post a letter."""
        mailed.append(to)
        return f"posted to {to}"

    def script(call: Call) -> Any:
        done = any(one["role"] == "tool" for one in call.messages)
        return said(f"done by {call.rung.id}") if done else said("", ("post", {"to": "Ada"}))

    desk = Desk(script, steps=[{"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "solve"}}}])
    agent = desk.agent(tools=[post])

    def passes(state: Work) -> Work:
        return {}

    def check(state: Work) -> Work:
        if "high" not in str(state.get("messages", [])[-1].content):
            raise CheckFailedError("not well enough")
        return {}

    graph = StateGraph(Work)
    way = ["read", "sort", "plan", "solve", "check"]  # long enough that the agent's own supersteps count lower
    for name in way[:3]:
        graph.add_node(name, passes)
    graph.add_node("solve", agent)
    graph.add_node("check", check)
    for before, after in pairwise([START, *way]):
        graph.add_edge(before, after)
    final = ask(govern(graph.compile(), desk.governor), asked())
    assert final["messages"][-1].content == "done by high"
    assert mailed == ["Ada"]
    assert sent(final["messages"]) == ["posted to Ada"]
