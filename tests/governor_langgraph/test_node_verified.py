"""A rejected result is dropped and the node runs again on a higher rung; everything it spent is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Interrupt, interrupt

from governor import Usage
from governor.errors import BackendUnavailableError, NoAnswerError
from governor.records import Amount, Call, Reply
from governor_langgraph import node
from governor_langgraph.graph import govern
from governor_langgraph.source import Source
from governor_langgraph.wrapped import GovernedNode
from tests.governor_langgraph.desk import SPENT, Desk, State, by_rung, desk, named, one_node, reply

QUESTION: State = {"question": "What is 12 * 17?"}
RIGHT = {"regex": "204"}
WAYS = ("sync", "async")


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a graph whose node is given in both colours, in one of them."""

    def one(at: Desk, function: Any, state: Any = QUESTION, config: Any = None, **compiled: Any) -> Any:
        if request.param == "sync":
            return at.graph(function, **compiled).invoke(state, config)

        async def awaited(state: Any) -> Any:
            return await asyncio.to_thread(function, state)

        return asyncio.run(at.graph(awaited, **compiled).ainvoke(state, config))

    return one


def asks(at: Desk, times: int = 1) -> Any:
    """A node that asks its model so often and returns the last answer."""

    def ask(state: Any) -> State:
        said = [at.chat.invoke(state["question"]).content for _ in range(times)]
        return {"answer": str(said[-1]), "log": [len(said)]}

    return ask


def test_a_rejected_result_is_replaced_by_that_of_a_higher_rung(run: Callable[..., Any]) -> None:
    at = desk(by_rung(low="It is 194.", high="It is 204."), verify=RIGHT)
    ended = run(at, asks(at))
    assert (ended["answer"], ended["log"]) == ("It is 204.", [1])  # the rejected update left nothing, reducers included
    outcome = at.kept.nodes[0]
    assert (outcome.status, outcome.rung, [one.rung.id for one in outcome.attempts]) == (
        "accepted",
        "high",
        ["low", "high"],
    )
    assert [one.rejected for one in outcome.attempts] == [True, False]


def test_what_all_attempts_spent_is_in_the_record_and_on_the_books(run: Callable[..., Any]) -> None:
    budget = {part: {"tokens": 100_000} for part in ("step", "session", "run")}
    at = desk(by_rung(low="194", high="204"), verify=RIGHT, budget=budget)
    run(at, asks(at, times=3), config={"configurable": {"thread_id": "t"}})
    outcome = at.kept.nodes[0]
    assert outcome.usage == Usage(6 * SPENT.input_tokens, 6 * SPENT.output_tokens)
    assert (outcome.spent.tokens, outcome.spent.calls, outcome.spent.micros) == (150, 6, 3 * (20 + 10) + 3 * (100 + 50))
    booked = [
        at.spent(scope) for scope in ("session:test/t", f"run:test/{outcome.run}", f"step:test/{outcome.step_id}")
    ]
    assert outcome.run
    assert {(one.tokens, one.calls, one.micros) for one in booked} == {(150, 6, 540)}
    assert at.governor.ledger.balance("session:test/t").reserved == Amount()


def test_the_record_of_each_model_call_names_its_node_and_place(run: Callable[..., Any]) -> None:
    at = desk(by_rung(low="194", high="204"), verify=RIGHT, budget={"session": {"tokens": 9_000}})
    run(at, asks(at), config={"configurable": {"thread_id": "t", "tenant": "acme"}})
    whole, parts = at.kept.nodes[0], at.kept.parts
    assert {(one.parent, one.node, one.session, one.run) for one in parts} == {(whole.step_id, "ask", "t", whole.run)}
    assert whole.scopes == ()  # it books nothing itself
    assert {one.scopes for one in parts} == {("session:test/t",)}
    assert {step.tenant for step, _ in at.kept.attempts} == {"acme"}
    assert sum(one.spent.tokens for one in parts) == whole.spent.tokens


def test_micro_usd_that_round_up_per_call_are_added_not_rounded_anew() -> None:
    cheap = [{"id": "low", "model": "m/small", "answer_tokens": 100, "price": {"input": 0.01, "output": 0.01}}]
    at = desk([reply("204")] * 3, ladder=cheap, budget={"session": {"usd": 1}})
    at.graph(asks(at, times=3)).invoke(QUESTION, {"configurable": {"thread_id": "t"}})
    assert at.spent("session:test/t").micros == at.kept.nodes[0].spent.micros == 3


def test_the_best_answer_ships_where_none_is_accepted(run: Callable[..., Any]) -> None:
    at = desk(named, verify=RIGHT)
    ended = run(at, asks(at))
    outcome = at.kept.nodes[0]
    assert outcome.status == "best_so_far"
    assert ended["answer"] == outcome.rung
    assert ended["log"] == [1]


def test_without_a_verifier_the_first_result_stands(run: Callable[..., Any]) -> None:
    at = desk(named)
    assert run(at, asks(at))["answer"] == "low"
    assert [one.status for one in at.kept.nodes] == ["unverified"]


def test_what_is_asked_and_judged_may_be_said_by_the_application() -> None:
    at = desk(by_rung(low='{"total": 194}', high='{"total": 204}'), verify={"regex": "^total=204$"})

    @node(
        at.governor, ask=lambda state: f"Compute: {state['question']}", read=lambda update: f"total={update['log'][0]}"
    )
    def ask(state: Any) -> State:
        return {"log": [194 if "194" in at.chat.invoke("q").text else 204]}

    assert one_node(ask).compile().invoke(QUESTION)["log"] == [204]
    assert at.kept.attempts[-1][0].prompt == "Compute: What is 12 * 17?"
    assert at.kept.nodes[0].answer == "total=204"


def test_the_last_message_is_judged_where_a_node_returns_messages(run: Callable[..., Any]) -> None:
    at = desk(by_rung(low="It is 194.", high="It is 204."), verify={"regex": r"^It is 204\.$"})
    ended = run(
        at, lambda state: {"messages": [at.chat.invoke(state["messages"])]}, {"messages": [HumanMessage("12 * 17?")]}
    )
    assert [one.content for one in ended["messages"]] == ["12 * 17?", "It is 204."]
    assert at.kept.nodes[0].answer == "It is 204."


def test_a_command_with_an_update_is_judged_and_returned_unchanged(run: Callable[..., Any]) -> None:
    at = desk(by_rung(low="194", high="204"), verify=RIGHT)
    commands: list[Command[Any]] = []

    def ask(state: Any) -> Command[Any]:
        commands.append(Command(update={"answer": at.chat.invoke("q").text}, goto=END))
        return commands[-1]

    assert run(at, ask)["answer"] == "204"
    assert len(commands) == 2


def test_a_model_that_fails_is_a_failed_attempt_and_the_node_runs_again(run: Callable[..., Any]) -> None:
    def script(call: Call) -> Reply | Exception:
        return BackendUnavailableError("down", sent=False) if call.rung.model == "m/small" else reply("204")

    at = desk(script)
    assert run(at, asks(at))["answer"] == "204"
    outcome = at.kept.nodes[0]
    assert (outcome.rung, outcome.attempts[0].failure) == ("high", "fault")
    assert "down" in outcome.attempts[0].error


def test_a_node_whose_models_all_fail_ends_with_the_outcome_that_says_why(run: Callable[..., Any]) -> None:
    at = desk(lambda call: BackendUnavailableError("all down", sent=False))
    with pytest.raises(NoAnswerError, match=r"step 'ask' ended without an answer.*all down") as caught:
        run(at, asks(at))
    assert (caught.value.outcome.node, caught.value.outcome.status) == ("ask", "error")
    assert caught.value.outcome.spent.tokens == 0


def test_a_node_may_catch_the_failure_of_its_model_and_answer_itself(run: Callable[..., Any]) -> None:
    at = desk(lambda call: BackendUnavailableError("down", sent=False))

    def ask(state: Any) -> State:
        try:
            return {"answer": at.chat.invoke("q").text}
        except NoAnswerError:
            return {"answer": "I don't know"}

    assert run(at, ask)["answer"] == "I don't know"


def test_a_judge_of_the_node_books_on_its_budgets_as_a_part_of_it(run: Callable[..., Any]) -> None:
    def script(call: Call) -> Reply:
        return reply(
            '{"correct": true, "reason": "fine"}'
            if call.purpose == "judge" or "correct" in str(call.messages)
            else "204"
        )

    at = desk(script, verify={"judge": "high"}, budget={"session": {"tokens": 100_000}})
    run(at, asks(at), config={"configurable": {"thread_id": "t"}})
    whole = at.kept.nodes[0]
    assert whole.verifier_usage.total_tokens > 0
    assert whole.spent.tokens == at.spent("session:test/t").tokens
    assert whole.spent.calls == at.spent("session:test/t").calls
    assert {one.parent for one in at.kept.parts} == {whole.step_id}


# what is left as it is


def test_a_node_that_asks_no_model_is_untouched(run: Callable[..., Any]) -> None:
    at = desk([], verify={"regex": "never"}, budget={"session": {"tokens": 10}, "step": {"tokens": 1}})
    ended = run(at, lambda state: {"answer": "fixed", "log": [1]}, config={"configurable": {"thread_id": "t"}})
    assert (ended["answer"], ended["log"]) == ("fixed", [1])
    assert at.kept.outcomes == []
    assert at.kept.attempts == []
    assert at.spent("session:test/t") == Amount()


def test_a_second_attempt_that_asks_no_model_is_judged_like_the_first(run: Callable[..., Any]) -> None:
    at, tries = desk(named, verify=RIGHT), [1]

    def ask(state: Any) -> State:
        if tries.pop():
            tries.append(0)
            return {"answer": at.chat.invoke("q").text}
        tries.append(0)
        return {"answer": "204 by rule"}

    assert run(at, ask)["answer"] == "204 by rule"
    assert [(one.status, one.answer, one.spent.tokens) for one in at.kept.nodes] == [("accepted", "204 by rule", 25)]


def test_a_failure_elsewhere_is_the_nodes_own_exception() -> None:
    """A model in a thread without the node's context is a step of its own, and so is its failure."""
    at, tries = desk(lambda call: BackendUnavailableError("down", sent=False)), []

    def ask(state: Any) -> State:
        tries.append(1)
        with ThreadPoolExecutor(1) as threads:
            return {"answer": threads.submit(at.chat.invoke, "q").result().text}

    with pytest.raises(NoAnswerError, match="step 'default'"):
        at.graph(ask).invoke(QUESTION)
    assert len(tries) == 1


ODD: list[Any] = [
    {"messages": [HumanMessage([{"type": "strange", "x": 1}, {"type": "text", "text": "hi"}])]},
    {"messages": [ToolMessage("3", tool_call_id="nowhere")]},
    {"messages": [AIMessage("", tool_calls=[{"id": None, "name": "f", "args": {}}])]},
    {"question": b"bytes"},
    {},
]


@pytest.mark.parametrize("state", ODD)
def test_no_state_is_too_odd_for_a_node_to_run_on(state: Any) -> None:
    at = desk(named, verify={"regex": "low|fixed"})
    assert at.graph(lambda state: {"answer": "fixed"}).invoke(state)["answer"] == "fixed"
    assert at.graph(lambda state: {"answer": at.chat.invoke("q").text}).invoke(state)["answer"] == "low"


def test_a_returned_object_reaches_langgraph_as_it_is() -> None:
    at, told = desk(named), {"answer": "x"}

    def ask(state: Any) -> Any:
        at.chat.invoke("q")
        return told

    assert GovernedNode(RunnableLambda(ask), at.governor, Source(), None).invoke({}) is told
    assert node(at.governor)(ask)({}) is told


class OwnError(Exception):
    """One that LangGraph and Governor know nothing of."""


@pytest.mark.parametrize("first", ["before the model", "after the model"])
def test_an_exception_of_the_nodes_own_code_passes_through(run: Callable[..., Any], first: str) -> None:
    at, error = desk(named, verify=RIGHT, fail="open", budget={"session": {"tokens": 1_000}}), OwnError("mine")

    def ask(state: Any) -> State:
        if first == "after the model":
            at.chat.invoke("q")
        raise error

    with pytest.raises(OwnError) as caught:
        run(at, ask, config={"configurable": {"thread_id": "t"}})
    assert caught.value is error
    balance = at.governor.ledger.balance("session:test/t")
    assert (balance.spent.tokens, balance.reserved) == (25 if first == "after the model" else 0, Amount())


def test_an_interrupt_passes_through_and_resumes(run: Callable[..., Any]) -> None:
    at, saver = desk(by_rung(low="194", high="204"), verify=RIGHT), InMemorySaver()

    def ask(state: Any) -> State:
        drafted = at.chat.invoke("q").text
        return {"answer": f"{drafted} {interrupt(drafted)}"}

    config = {"configurable": {"thread_id": "t"}}
    paused = run(at, ask, config=config, checkpointer=saver)
    assert [one.value for one in paused["__interrupt__"]] == ["194"]
    assert isinstance(paused["__interrupt__"][0], Interrupt)
    assert at.kept.nodes == []
    again = run(at, ask, Command(resume="ok"), config, checkpointer=saver)
    assert [one.value for one in again["__interrupt__"]] == ["204"]  # nobody said yes to the new draft
    assert at.kept.nodes == []
    ended = run(at, ask, Command(resume="fine"), config, checkpointer=saver)
    assert ended["answer"] == "204 fine"
    assert [(one.status, one.rung) for one in at.kept.nodes] == [("accepted", "high")]
    assert at.rungs == ["low", "low", "high", "low", "high"]  # each resumption runs the node from its start


def test_a_command_to_the_parent_graph_leaves_the_node(run: Callable[..., Any]) -> None:
    at = desk(named)

    def inside(state: Any) -> Command[Any]:
        return Command(graph=Command.PARENT, update={"answer": at.chat.invoke("q").text}, goto="after")

    inner = one_node(inside, name="inside").compile()
    outer: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    outer.add_node("ask", inner, destinations=("after",))
    outer.add_node("after", lambda state: {"log": ["after"]})
    outer.add_edge(START, "ask").add_edge("after", END)
    ended = govern(outer.compile(), at.governor).invoke(QUESTION)
    assert (ended["answer"], ended["log"]) == ("low", ["after"])


def test_an_ai_message_alone_may_be_returned() -> None:
    at = desk(by_rung(low="194", high="204"), verify={"regex": "^204$"})
    builder: Any = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": at.chat.invoke(state["messages"])})
    builder.add_edge(START, "ask").add_edge("ask", END)
    said = govern(builder.compile(), at.governor).invoke({"messages": [HumanMessage("12 * 17?")]})["messages"][-1]
    assert isinstance(said, AIMessage)
    assert said.content == "204"


@pytest.mark.parametrize("how", ["govern", "decorator"])
@pytest.mark.parametrize("saved", [True, False])
def test_a_graph_inside_a_node_begins_anew_with_each_attempt(saved: bool, how: str) -> None:
    at = desk(by_rung(low="194", high="204"), verify=RIGHT)
    inner: Any = StateGraph(State)
    inner.add_node("draft", lambda state: {"log": [at.chat.invoke("q").text]})
    inner.add_node("copy", lambda state: {"answer": state["log"][-1], "log": ["copied"]})
    inner.add_edge(START, "draft").add_edge("draft", "copy").add_edge("copy", END)
    compiled: dict[str, Any] = {"checkpointer": InMemorySaver()} if saved else {}
    outer = one_node(inner.compile() if how == "govern" else node(at.governor)(inner.compile())).compile(**compiled)
    graph = govern(outer, at.governor) if how == "govern" else outer
    ended = graph.invoke(QUESTION, {"configurable": {"thread_id": "t"}})
    assert (ended["answer"], ended["log"]) == ("204", ["204", "copied"])
    assert at.rungs == ["low", "high"]


def test_an_interrupt_inside_a_graph_inside_a_node_resumes_there() -> None:
    at = desk(by_rung(low="194", high="204"), verify=RIGHT)
    inner: Any = StateGraph(State)
    inner.add_node("draft", lambda state: {"answer": at.chat.invoke("q").text})
    inner.add_node("check", lambda state: {"log": [interrupt(state["answer"])]})
    inner.add_edge(START, "draft").add_edge("draft", "check").add_edge("check", END)
    graph = at.graph(inner.compile(), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    asked = [one.value for one in graph.invoke(QUESTION, config)["__interrupt__"]]
    assert asked == ["194"]
    assert graph.get_state(config, subgraphs=True).tasks[0].state.next == ("check",)
    again = graph.invoke(Command(resume="hm"), config)
    assert [one.value for one in again["__interrupt__"]] == ["204"]
    ended = graph.invoke(Command(resume="ok"), config)
    assert (ended["answer"], ended["log"]) == ("204", ["ok"])


def test_a_node_that_asks_a_human_and_no_model_stays_untouched() -> None:
    at = desk([], verify={"regex": "never"})
    graph = at.graph(lambda state: {"answer": interrupt("may I?")}, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    graph.invoke(QUESTION, config)
    assert graph.invoke(Command(resume="yes"), config)["answer"] == "yes"
    assert at.kept.outcomes == []
