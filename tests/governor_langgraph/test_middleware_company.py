"""GovernorMiddleware beside LangChain's own, and where it only watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from governor.errors import BackendUnavailableError, NoAnswerError, UngovernedModelError
from governor_langgraph.chat import GovernedChat
from tests.governor_langgraph.agent_parts import (
    Desk,
    asked,
    dangling,
    lookup,
    own_model,
    said,
    send_mail,
)

Ask = Callable[..., Any]
THREAD: dict[str, Any] = {"configurable": {"thread_id": "t"}}
USAGE = UsageMetadata(input_tokens=7, output_tokens=3, total_tokens=10)
LITTLE = {"session": {"tokens": 1}, "on_exhausted": "refuse"}


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    if request.param == "sync":
        return lambda agent, given, *rest: agent.invoke(given, *rest)
    return lambda agent, given, *rest: asyncio.run(agent.ainvoke(given, *rest))


def down_once() -> Any:
    """Both rungs fail the first time they are asked."""
    answers = iter([BackendUnavailableError("down"), BackendUnavailableError("down"), said("two million")])
    return lambda _: next(answers)


def test_a_retry_of_a_failed_step_is_a_step_of_its_own_whose_spend_is_told(ask: Ask) -> None:
    desk = Desk(down_once(), budget={"session": {"tokens": 10_000}}, backtrack={"max_attempts": 2})
    final = ask(desk.agent(middleware=[ModelRetryMiddleware(initial_delay=0)]), asked(), THREAD)
    assert final["messages"][-1].content == "two million"
    assert [one.status for one in desk.kept.outcomes] == ["error", "unverified"]
    told = final["messages"][-1].usage_metadata["total_tokens"]
    assert told == sum(one.usage.total_tokens for one in desk.kept.outcomes)
    assert told == desk.ledger.balance("session:desk/t").spent.tokens


def test_what_a_budget_refused_is_not_retried(ask: Ask) -> None:
    desk = Desk([], budget=LITTLE)
    with pytest.raises(NoAnswerError, match="budget"):
        ask(desk.agent(middleware=[ModelRetryMiddleware(initial_delay=0)]), asked(), THREAD)
    assert len(desk.kept.outcomes) == 1


def test_no_fallback_model_gets_what_a_budget_refused(ask: Ask) -> None:
    desk = Desk([], budget=LITTLE)
    fallback = ModelFallbackMiddleware(own_model("for free"))
    with pytest.raises(NoAnswerError, match="budget"):
        ask(desk.agent(middleware=[fallback]), asked(), THREAD)


def fallback_answer() -> AIMessage:
    return AIMessage("from elsewhere", usage_metadata=USAGE, response_metadata={"model_name": "elsewhere"})


def test_a_fallback_model_is_an_error_that_names_it(ask: Ask) -> None:
    desk = Desk(lambda _: BackendUnavailableError("down"))
    agent = desk.agent(middleware=[ModelFallbackMiddleware(own_model(fallback_answer()))])
    with pytest.raises(UngovernedModelError, match="elsewhere answered in the place of the governed model"):
        ask(agent, asked())


def test_a_fallback_model_is_let_through_where_the_policy_says_so(ask: Ask) -> None:
    desk = Desk(lambda _: BackendUnavailableError("down"), ungoverned="pass")
    agent = desk.agent(middleware=[ModelFallbackMiddleware(own_model(fallback_answer()))])
    message = ask(agent, asked())["messages"][-1]
    failed = desk.kept.outcomes[0].usage.total_tokens  # booked at their bound: nobody knows what was used
    assert (message.content, message.usage_metadata["total_tokens"]) == ("from elsewhere", failed + 10)


def test_a_limit_of_model_calls_counts_steps_not_attempts(ask: Ask) -> None:
    answers = iter([said("", ("lookup", {"town": "?"})), said("", ("lookup", {"city": "Paris"})), said("two")])
    desk = Desk(lambda _: next(answers))
    limit = ModelCallLimitMiddleware(run_limit=2, exit_behavior="error")
    final = ask(desk.agent(tools=[lookup], middleware=[limit]), asked())
    assert final["messages"][-1].content == "two"
    assert desk.rungs == ["low", "high", "low"]


def test_a_limit_of_tool_calls_answers_those_beyond_it(ask: Ask) -> None:
    answers = iter([said("", ("lookup", {"city": "Paris"}), ("lookup", {"city": "Rome"})), said("two")])
    desk = Desk(lambda _: next(answers))
    limit = ToolCallLimitMiddleware(run_limit=1)
    final = ask(desk.agent(tools=[lookup], middleware=[limit, ToolRetryMiddleware()]), asked())
    assert sorted(one.status for one in final["messages"] if isinstance(one, ToolMessage)) == ["error", "success"]
    assert dangling(final["messages"]) == []
    assert desk.kept.steps[1].state["tool_errors"] == 1


def test_a_person_who_must_approve_a_tool_call_is_asked(ask: Ask) -> None:
    answers = iter([said("", ("send_mail", {"to": "a"})), said("sent")])
    desk = Desk(lambda _: next(answers))
    approval = HumanInTheLoopMiddleware(interrupt_on={"send_mail": True})
    agent = desk.agent(tools=[send_mail], middleware=[approval], checkpointer=InMemorySaver())
    assert "__interrupt__" in ask(agent, asked(), THREAD)
    final = ask(agent, Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
    assert [one.content for one in final["messages"][2:]] == ["sent to a", "sent"]
    assert desk.nothing_is_held()


def test_settings_of_other_middleware_are_the_policys_to_make(ask: Ask) -> None:
    class Warm(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model_settings={"temperature": 1.0}))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(model_settings={"temperature": 1.0}))

    desk = Desk([])
    with pytest.raises(ValueError, match="takes temperature from its policy"):
        ask(desk.agent(middleware=[Warm()]), asked())


@pytest.mark.parametrize("mode", ["shadow", {"canary": 0.0}])
def test_where_it_only_watches_the_agents_own_model_answers(ask: Ask, mode: Any) -> None:
    desk = Desk([], mode=mode, baseline="high", verify={"regex": r"\d"}, budget={"session": {"tokens": 1}})
    theirs = AIMessage("from my model", usage_metadata=USAGE, response_metadata={"model_name": "mine"}, id="m1")
    final = ask(desk.agent(model=own_model(theirs), tools=[lookup]), asked(), THREAD)
    last = final["messages"][-1]
    assert (last.content, last.response_metadata, last.usage_metadata) == (
        "from my model",
        {"model_name": "mine"},
        USAGE,
    )
    (outcome,) = desk.kept.outcomes
    assert outcome.arm == ("shadow" if mode == "shadow" else "control")
    assert (outcome.decided, outcome.rung, outcome.usage.total_tokens) == ("low", "high", 10)
    assert outcome.attempts[0].rejected
    assert desk.kept.steps[0].tools[0]["function"]["name"] == "lookup"
    assert desk.ledger.balance("session:desk/t").spent.tokens == 10
    assert desk.rungs == []


def test_a_canary_governs_its_share_of_threads(ask: Ask) -> None:
    desk = Desk(lambda _: said("governed"), mode={"canary": 0.5})
    agent = desk.agent(model=own_model(*["own"] * 40))
    answers = [
        ask(agent, asked(), {"configurable": {"thread_id": f"t{at % 20}"}})["messages"][-1].content for at in range(40)
    ]
    assert answers[:20] == answers[20:]
    assert 4 <= answers[:20].count("governed") <= 16
    arms = [one.arm for one in desk.kept.outcomes]
    assert arms == ["governed" if one == "governed" else "control" for one in answers]


def test_a_rule_may_watch_alone(ask: Ask) -> None:
    desk = Desk(lambda _: said("governed"), steps=[{"match": {"prompt": "Paris"}, "mode": "shadow"}])
    agent = desk.agent(model=own_model("own"))
    assert ask(agent, asked())["messages"][-1].content == "own"
    assert ask(agent, asked("And Rome?"))["messages"][-1].content == "governed"


def test_a_governed_model_in_shadow_is_governed_once(ask: Ask) -> None:
    desk = Desk(lambda call: said(call.rung.id), mode="shadow", baseline="high")
    agent = desk.agent(model=GovernedChat(governor=desk.governor))
    assert ask(agent, asked())["messages"][-1].content == "high"
    assert [one.arm for one in desk.kept.outcomes] == ["shadow"]


def test_what_a_watched_model_raises_leaves_as_it_is(ask: Ask) -> None:
    desk = Desk([], mode="shadow")
    with pytest.raises((StopIteration, RuntimeError)):
        ask(desk.agent(model=own_model()), asked())
    assert desk.nothing_is_held()


def test_an_interrupt_in_a_watched_call_is_no_failure() -> None:
    class Approves(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            response = handler(request)
            interrupt("fine?")
            return response

    desk = Desk([], mode="shadow")
    agent = desk.agent(model=own_model("one", "two"), middleware=[Approves()], checkpointer=InMemorySaver())
    assert agent.invoke(asked(), THREAD)["__interrupt__"][0].value == "fine?"
    assert desk.nothing_is_held()
    assert agent.invoke(Command(resume="yes"), THREAD)["messages"][-1].content == "two"
