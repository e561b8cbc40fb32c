"""Tools are not called twice because a run goes back, dies or is resumed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from governor.ledger import open_ledger
from governor_langgraph.graph import GovernedGraph
from governor_langgraph.tools import aremembered, remembered
from tests.governor_langgraph.rewinding import GO, TO_PLAN, Desk, State, chain, check

THREAD: Any = {"configurable": {"thread_id": "one"}}
IDS = itertools.count()


@dataclass
class Post:
    """A tool with effects: every letter that it sent."""

    sent: list[str] = field(default_factory=list)
    act: Callable[[str], Any] = lambda to: f"sent to {to}"

    def mail(self, to: str) -> Any:
        """Send a letter."""
        self.sent.append(to)
        return self.act(to)


def asks(*letters: str) -> AIMessage:
    """A message that asks for letters; as of a model, its call ids are never the same."""
    calls = [{"name": "mail", "args": {"to": to}, "id": f"call-{next(IDS)}"} for to in letters]
    return AIMessage("", tool_calls=calls)


def build(
    desk: Desk, post: Post, *, letters: tuple[str, ...] = ("ann",), last: Any = check, handled: Any = True
) -> StateGraph[Any, Any, Any, Any]:
    """plan -> ask for letters -> send them -> check: a bad plan is found when the letters are gone."""

    async def amail(to: str) -> Any:
        return post.mail(to)

    tool = StructuredTool.from_function(post.mail, coroutine=amail, name="mail", description="Send a letter.")
    wraps: Any = {"wrap_tool_call": remembered(desk.governor), "awrap_tool_call": aremembered(desk.governor)}
    mailing = ToolNode([tool], handle_tool_errors=handled, **wraps)
    return chain(
        ("plan", desk.node("plan")),
        ("write", lambda state: {"messages": [asks(*letters)]}),
        ("mail", mailing),
        ("check", last),
    )


def answers(state: Any) -> list[tuple[str, str]]:
    return [(one.text, one.status) for one in state["messages"] if isinstance(one, ToolMessage)]


def paired(state: Any) -> bool:
    """Whether every tool call has its answer, and no answer is to another's call."""
    asked = [call["id"] for one in state["messages"] if isinstance(one, AIMessage) for call in one.tool_calls]
    return asked == [one.tool_call_id for one in state["messages"] if isinstance(one, ToolMessage)]


@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_by_default_a_call_is_replayed(saver: Any) -> None:
    desk, post = Desk.made(), Post()
    graph = desk.govern(build(desk, post).compile(checkpointer=saver and saver()))
    state = graph.invoke(GO, THREAD if saver else None)
    assert (post.sent, answers(state)) == (["ann"], [("sent to ann", "success")])
    assert paired(state)
    assert state["plan"] == "plan good mid"


async def test_in_asynchronous_graphs_too() -> None:
    desk, post = Desk.made(), Post()
    state = await desk.govern(build(desk, post).compile()).ainvoke(GO)
    assert (post.sent, answers(state)) == (["ann"], [("sent to ann", "success")])


def test_rerun_makes_it_again() -> None:
    desk, post = Desk.made(tools={"mail": {"on_rewind": "rerun"}}), Post()
    state = desk.govern(build(desk, post).compile()).invoke(GO)
    assert (post.sent, answers(state)) == (["ann", "ann"], [("sent to ann", "success")])


def test_forbid_tells_the_model_so_each_time() -> None:
    desk, post = Desk.made(tools={"mail": {"on_rewind": "forbid"}}, needs={"plan": "high"}), Post()
    state = desk.govern(build(desk, post).compile()).invoke(GO)
    why = "mail was not called: it was called so before, and may not be repeated."
    assert (post.sent, answers(state)) == (["ann"], [(why, "error")])
    assert paired(state)


def test_another_letter_is_another_call() -> None:
    desk, post = Desk.made(), Post()
    letters = iter(["ann", "bob"])
    built = chain(
        ("plan", desk.node("plan")),
        ("write", lambda state: {"messages": [asks(next(letters))]}),
        ("mail", ToolNode([post_tool(post)], wrap_tool_call=remembered(desk.governor))),
        ("check", check),
    )
    desk.govern(built.compile()).invoke(GO)
    assert post.sent == ["ann", "bob"]


def post_tool(post: Post) -> StructuredTool:
    return StructuredTool.from_function(post.mail, name="mail", description="Send a letter.")


def test_the_same_call_twice_on_one_branch_is_two_calls_and_replayed_twice() -> None:
    desk, post = Desk.made(), Post()
    post.act = lambda to: f"letter {len(post.sent)}"
    state = desk.govern(build(desk, post, letters=("ann", "ann")).compile()).invoke(GO)
    assert post.sent == ["ann", "ann"]
    assert sorted(text for text, _ in answers(state)) == ["letter 1", "letter 2"]


def test_a_replayed_call_is_replayed_by_every_later_branch() -> None:
    desk, post = Desk.made(needs={"plan": "high"}), Post()
    assert answers(desk.govern(build(desk, post).compile()).invoke(GO)) == [("sent to ann", "success")]
    assert post.sent == ["ann"]


def test_a_command_is_replayed_with_its_answer_under_the_new_id() -> None:
    desk, post = Desk.made(), Post()
    current: list[str] = []

    def mail(to: str) -> Any:
        """Send a letter."""
        post.sent.append(to)
        answer = ToolMessage("by hand", tool_call_id=current[-1])
        return Command(update={"messages": [answer], "log": [f"mail: {to}"]})

    def write(state: State) -> State:
        asked = asks("ann")
        current.append(asked.tool_calls[0]["id"] or "")
        return {"messages": [asked]}

    node = ToolNode(
        [StructuredTool.from_function(mail, name="mail", description="Send.")],
        wrap_tool_call=remembered(desk.governor),
    )
    built = chain(("plan", desk.node("plan")), ("write", write), ("mail", node), ("check", check))
    state = desk.govern(built.compile()).invoke(GO)
    assert post.sent == ["ann"]
    assert state["log"] == ["plan: plan good mid", "mail: ann", "check: fine"]
    assert paired(state)


@pytest.mark.parametrize("how", ["replay", "rerun"])
def test_no_tool_is_called_more_often_in_a_run_than_it_may_be(how: str) -> None:
    desk, post = Desk.made(tools={"mail": {"on_rewind": how, "max_calls": 2}}), Post()
    state = desk.govern(build(desk, post, letters=("a", "b", "c")).compile()).invoke(GO)
    assert len(post.sent) == 2, "all three at once, in threads, and again after the rewind"
    refused = [text for text, status in answers(state) if status == "error"]
    assert set(refused) == {"mail was not called: it may be called 2 times in one run, and was."}
    assert len(refused) == (1 if how == "replay" else 3)


def test_the_next_run_of_a_thread_may_call_again() -> None:
    desk, post = Desk.made(tools={"mail": {"max_calls": 1}}), Post()
    graph = desk.govern(build(desk, post).compile(checkpointer=InMemorySaver()))
    graph.invoke(GO, THREAD)
    graph.invoke({"messages": [HumanMessage("again")]}, THREAD)
    assert post.sent == ["ann", "ann"]


def boom(to: str) -> Any:
    raise ConnectionError("cut")


def test_an_error_that_the_tool_node_tells_is_replayed_as_it_was_told() -> None:
    desk, post = Desk.made(), Post(act=boom)
    state = desk.govern(build(desk, post).compile()).invoke(GO)
    (told,) = answers(state)
    assert "cut" in told[0]
    assert (told[1], post.sent) == ("error", ["ann"])


def test_a_call_that_raised_broke_off_and_the_model_is_told_once() -> None:
    """The run died of it. Resumed, the same task runs again: whether the letter was sent nobody knows."""
    desk, post = Desk.made(needs={}), Post(act=boom)
    graph = desk.govern(build(desk, post, handled=False).compile(checkpointer=InMemorySaver()))
    with pytest.raises(ConnectionError):
        graph.invoke(GO, THREAD)
    state = graph.invoke(None, THREAD)
    assert post.sent == ["ann"]
    assert answers(state) == [
        ("mail was not called: it was called so before and broke off: whether it took effect is unknown.", "error")
    ]


def test_a_task_that_was_cut_off_does_not_repeat_the_calls_it_had_made() -> None:
    """Two letters at once, the second of which raises: the first one's answer is given again."""
    desk, post = Desk.made(needs={}), Post()
    cuts = iter([True])
    post.act = lambda to: boom(to) if to == "bob" and next(cuts, False) else f"sent to {to}"
    graph = desk.govern(build(desk, post, letters=("ann", "bob"), handled=False).compile(checkpointer=InMemorySaver()))
    with pytest.raises(ConnectionError):
        graph.invoke(GO, THREAD)
    state = graph.invoke(None, THREAD)
    assert sorted(post.sent) == ["ann", "bob"]
    assert answers(state)[0] == ("sent to ann", "success")


def test_an_interrupted_call_has_not_been_made() -> None:
    """A tool that asks a human first: the answer makes it act."""
    desk, post = Desk.made(needs={}), Post()

    def careful(to: str) -> str:
        """Send a letter, if allowed."""
        if interrupt(f"send to {to}?") != "yes":
            return "not allowed"
        return str(post.mail(to))

    tool = StructuredTool.from_function(careful, name="mail", description="Send a letter, if allowed.")
    built = chain(
        ("plan", desk.node("plan")),
        ("write", lambda state: {"messages": [asks("ann")]}),
        ("mail", ToolNode([tool], wrap_tool_call=remembered(desk.governor))),
    )
    graph = desk.govern(built.compile(checkpointer=InMemorySaver()))
    assert graph.invoke(GO, THREAD)["__interrupt__"][0].value == "send to ann?"
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert (post.sent, answers(state)) == (["ann"], [("sent to ann", "success")])


def test_an_approved_call_is_replayed_after_a_rewind_without_asking_again() -> None:
    desk, post = Desk.made(), Post()

    def careful(to: str) -> str:
        """Send a letter, if allowed."""
        return str(post.mail(to)) if interrupt("send?") == "yes" else "not allowed"

    tool = StructuredTool.from_function(careful, name="mail", description="Send a letter, if allowed.")
    built = chain(
        ("plan", desk.node("plan")),
        ("write", lambda state: {"messages": [asks("ann")]}),
        ("mail", ToolNode([tool], wrap_tool_call=remembered(desk.governor))),
        ("check", check),
    )
    graph = desk.govern(built.compile(checkpointer=InMemorySaver()))
    graph.invoke(GO, THREAD)
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert "__interrupt__" not in state
    assert (post.sent, answers(state), state["plan"]) == (["ann"], [("sent to ann", "success")], "plan good mid")


def test_tools_of_an_agent_inside_the_graph_are_remembered_by_the_outer_step() -> None:
    """Supersteps of a subgraph count for themselves: what they call belongs to the step around them."""
    desk, post = Desk.made(), Post()
    agent = chain(
        ("think", lambda state: {"log": ["think"]}),
        ("again", lambda state: {"log": ["again"]}),
        ("write", lambda state: {"messages": [asks("ann")]}),
        ("mail", ToolNode([post_tool(post)], wrap_tool_call=remembered(desk.governor))),
    ).compile()
    built = chain(("plan", desk.node("plan")), ("agent", agent), ("check", check))
    state = desk.govern(built.compile(checkpointer=InMemorySaver())).invoke(GO, THREAD)
    assert (post.sent, state["plan"]) == (["ann"], "plan good mid")


def test_calls_before_the_blamed_step_stay_made_and_are_no_memory() -> None:
    """What an earlier step called is not taken for what a later one calls again."""
    desk, post = Desk.made(), Post()
    mail = ToolNode([post_tool(post)], wrap_tool_call=remembered(desk.governor))
    write = lambda state: {"messages": [asks("ann")]}  # noqa: E731 - two nodes of the same
    built = chain(
        ("first", write),
        ("mail1", mail),
        ("plan", desk.node("plan")),
        ("second", write),
        ("mail2", mail),
        ("check", check),
    )
    post.act = lambda to: f"letter {len(post.sent)}"
    state = desk.govern(built.compile()).invoke(GO)
    assert [text for text, _ in answers(state)] == ["letter 1", "letter 2"]
    assert post.sent == ["ann", "ann"]


def test_results_larger_than_a_shelf_takes_are_kept_whole() -> None:
    desk, post = Desk.made(), Post(act=lambda to: "x" * 3_000_000)
    state = desk.govern(build(desk, post).compile(checkpointer=InMemorySaver())).invoke(GO, THREAD)
    assert (len(answers(state)[0][0]), post.sent) == (3_000_000, ["ann"])


def test_an_answer_that_no_store_takes_is_told_as_lost() -> None:
    desk, post = Desk.made(), Post()
    tool = StructuredTool.from_function(
        lambda to: (post.mail(to), desk), name="mail", description="Send.", response_format="content_and_artifact"
    )
    built = chain(
        ("plan", desk.node("plan")),
        ("write", lambda state: {"messages": [asks("ann")]}),
        ("mail", ToolNode([tool], wrap_tool_call=remembered(desk.governor))),
        ("check", check),
    )
    state = desk.govern(built.compile()).invoke(GO)
    assert post.sent == ["ann"]
    assert answers(state) == [
        ("mail was not called: it was called so before, and what it answered was not kept.", "error")
    ]


def test_another_process_knows_what_was_called(tmp_path: Any) -> None:
    """The run goes back, is interrupted there, and another governor on the same store goes on with it."""
    post, saver = Post(), InMemorySaver()

    def graph_of(desk: Desk) -> GovernedGraph:
        built = build(desk, post)
        return desk.govern(built.compile(checkpointer=saver, interrupt_before=["mail"]))

    ledgers = [open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}") for _ in range(3)]
    first, second, third = (graph_of(Desk.made([TO_PLAN], ledger=one)) for one in ledgers)
    first.invoke(GO, THREAD)
    second.invoke(None, THREAD)
    assert post.sent == ["ann"]
    state = third.invoke(None, THREAD)
    assert (post.sent, answers(state), state["plan"]) == (["ann"], [("sent to ann", "success")], "plan good mid")
    for one in ledgers:
        one.close()


@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_an_agent_that_runs_anew_because_it_was_rejected_repeats_no_call(saver: Any) -> None:
    """Its node is governed as a whole: a rejected answer makes it run again on a higher rung, tools and all."""
    rule = {"match": {"node": "agent"}, "verify": {"regex": "good"}}
    desk, post = Desk.made([rule], needs={"answer": "high"}, dial=0.5), Post()
    agent = chain(
        ("write", lambda state: {"messages": [asks("ann", "ann")]}),
        ("mail", ToolNode([post_tool(post)], wrap_tool_call=remembered(desk.governor))),
        ("answer", desk.node("answer")),
    ).compile()
    graph = desk.govern(chain(("agent", agent)).compile(checkpointer=saver and saver()))
    state = graph.invoke(GO, THREAD if saver else None)
    assert desk.asked == ["answer mid", "answer high"]
    assert (post.sent, state["log"]) == (["ann", "ann"], ["answer: answer good high"])


def test_outside_of_a_governed_graph_tools_are_just_called() -> None:
    desk, post = Desk.made(), Post()
    built = chain(
        ("write", lambda state: {"messages": [asks("ann")]}),
        ("mail", ToolNode([post_tool(post)], wrap_tool_call=remembered(desk.governor))),
    )
    assert answers(built.compile().invoke(GO)) == [("sent to ann", "success")]
