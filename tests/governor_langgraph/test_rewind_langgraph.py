"""Rewinds beside what LangGraph offers itself: interrupts, edits, time travel, limits, schemas; and their traces."""

from __future__ import annotations

from typing import Any, cast

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from governor.errors import CheckFailedError, RewindError
from tests.governor_langgraph.rewinding import (
    GO,
    RAISED,
    TO_PLAN,
    Desk,
    State,
    branches,
    chain,
    check,
    planner,
    spans,
    told,
)

THREAD: Any = {"configurable": {"thread_id": "one"}}
ASKED = ["plan low", "solve low", "plan mid", "solve low"]


# interrupts


def asking(desk: Desk, *, first: bool = False) -> Any:
    def approve(state: State) -> State:
        return {"log": [f"approved: {interrupt(state.get('plan', 'begin'))}"]}

    nodes = [("plan", desk.node("plan")), ("check", check)]
    nodes.insert(0 if first else 2, ("approve", approve))
    return chain(*nodes)


def test_an_interrupt_after_a_rewind_is_resumed_on_the_new_branch() -> None:
    desk = Desk.made()
    graph = desk.govern(asking(desk).compile(checkpointer=InMemorySaver()))
    waiting = graph.invoke(GO, THREAD)
    assert [one.value for one in waiting["__interrupt__"]] == ["plan good mid"]
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert state["log"] == ["plan: plan good mid", "check: fine", "approved: yes"]
    assert branches(graph, THREAD)[1:] == ["1: plan on rung 1, blamed by check"]
    assert len({(one.metadata or {}).get("governor_run") for one in graph.get_state_history(THREAD)}) == 1


def test_approval_before_a_rewind_is_kept_where_the_rewind_leads_behind_it() -> None:
    desk = Desk.made()
    graph = desk.govern(asking(desk, first=True).compile(checkpointer=InMemorySaver()))
    graph.invoke(GO, THREAD)
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert state["log"] == ["approved: yes", "plan: plan good mid", "check: fine"]


def test_rewinds_are_counted_and_floors_kept_over_interrupts() -> None:
    """The redone node asks a human first: its higher rung waits for the answer, and no further rewind is granted."""
    rule = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "max": 1}}}
    desk = Desk.made([rule], needs={"plan": "high"})

    def plan(state: State) -> State:
        return {"plan": f"{desk.ask('plan')} for {interrupt('which?')}"}

    graph = desk.govern(chain(("plan", plan), ("check", check)).compile(checkpointer=InMemorySaver()))
    assert "__interrupt__" in graph.invoke(GO, THREAD)
    assert "__interrupt__" in graph.invoke(Command(resume="me"), THREAD), "it asks again on the new branch"
    with pytest.raises(CheckFailedError, match="plan bad mid for you"):
        graph.invoke(Command(resume="you"), THREAD)
    assert desk.asked == ["plan low", "plan low", "plan mid", "plan mid"]


async def test_an_interrupt_beside_a_failing_node_waits_for_the_new_branch() -> None:
    desk = Desk.made()

    async def approve(state: Any) -> State:
        return {"log": [f"approved: {interrupt(state['plan'])}"]}

    builder = StateGraph(State)
    for name, run in (("plan", desk.anode("plan")), ("check", check), ("approve", approve)):
        builder.add_node(name, run)
    builder.add_edge(START, "plan").add_edge("plan", "check").add_edge("plan", "approve")
    graph = desk.govern(builder.compile(checkpointer=InMemorySaver()))
    waiting = await graph.ainvoke(GO, THREAD)
    assert [one.value for one in waiting["__interrupt__"]] == ["plan good mid"]
    state = await graph.ainvoke(Command(resume="yes"), THREAD)
    assert sorted(state["log"]) == ["approved: yes", "check: fine", "plan: plan good mid"]


def test_a_state_that_someone_edits_belongs_to_the_run_that_goes_on() -> None:
    desk = Desk.made()
    graph = desk.govern(asking(desk, first=True).compile(checkpointer=InMemorySaver()))
    graph.invoke(GO, THREAD)
    graph.update_state(THREAD, {"log": ["edited"]})
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert state["log"] == ["edited", "approved: yes", "plan: plan good mid", "check: fine"]
    runs = {(one.metadata or {}).get("governor_run") for one in graph.get_state_history(THREAD)}
    assert len(runs - {None}) == 1


def test_a_caller_may_go_back_in_time_himself() -> None:
    desk = Desk.made(needs={})
    graph = planner(desk, checkpointer=InMemorySaver())
    graph.invoke(GO, THREAD)
    before = next(one for one in graph.get_state_history(THREAD) if one.next == ("solve",))
    assert graph.invoke(None, before.config)["log"] == [
        "plan: plan good low",
        "solve: solve good low",
        "check: fine",
    ]
    assert desk.asked == ["plan low", "solve low", "solve low"]


def test_each_call_with_input_is_a_run_of_its_own() -> None:
    desk = Desk.made()
    graph = planner(desk, checkpointer=InMemorySaver())
    graph.invoke(GO, THREAD)
    graph.invoke({"messages": [HumanMessage("more")]}, THREAD)
    assert desk.asked == ASKED * 2, "the second run begins low, and may go back as often as the first"


# what LangGraph takes and refuses


def test_without_a_checkpointer_a_run_can_t_be_resumed_as_langgraph_says() -> None:
    desk = Desk.made()
    graph = desk.govern(asking(desk, first=True).compile())
    assert "__interrupt__" in graph.invoke(GO)
    with pytest.raises(RuntimeError, match=r"Cannot use Command\(resume=...\) without checkpointer"):
        graph.invoke(Command(resume="yes"))


@pytest.mark.parametrize("config", [None, {}, {"configurable": {"other": 1}}])
def test_a_missing_thread_is_told_as_langgraph_tells_it(config: Any) -> None:
    desk = Desk.made()
    built = chain(("plan", desk.node("plan"))).compile(checkpointer=InMemorySaver())
    errors = []
    for graph in (built, desk.govern(built)):
        with pytest.raises((ValueError, KeyError)) as refused:
            graph.invoke(GO, config)
        errors.append((type(refused.value), str(refused.value)))
    assert errors[0] == errors[1]


def test_a_thread_s_name_is_a_text_as_langgraph_makes_it() -> None:
    graph = planner(Desk.made(), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": 1}}
    graph.invoke(GO, config, interrupt_before=["check"])
    assert told(graph.invoke(None, config)) == RAISED
    assert told(graph.get_state(config).values) == RAISED


def test_a_recursion_limit_holds_for_each_stretch_and_none_is_added() -> None:
    desk = Desk.made([TO_PLAN], needs={})
    with pytest.raises(GraphRecursionError):
        planner(desk).invoke(GO, {"recursion_limit": 2})
    builder = StateGraph(State)
    builder.add_node("count", lambda state: {"log": ["x"]})
    builder.add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: "count" if len(state["log"]) < 40 else END, ["count", END])
    assert len(desk.govern(builder.compile()).invoke({"log": []})["log"]) == 40


def test_static_interrupts_stop_on_either_branch() -> None:
    desk = Desk.made()
    graph = planner(desk, checkpointer=InMemorySaver())
    graph.invoke(GO, THREAD, interrupt_before=["check"])
    assert desk.asked == ASKED[:2]
    graph.invoke(None, THREAD, interrupt_before=["solve"])
    assert desk.asked == ASKED[:3]
    assert graph.get_state(THREAD).next == ("solve",)
    assert told(graph.invoke(None, THREAD)) == RAISED


def test_durability_without_checkpoints_is_refused_where_they_are_needed() -> None:
    graph = planner(Desk.made(), checkpointer=InMemorySaver())
    with pytest.raises(RewindError, match="durability 'exit' keeps no checkpoint to go back to"):
        graph.invoke(GO, THREAD, durability="exit")
    assert told(graph.invoke(GO, THREAD, durability="sync")) == RAISED
    never = planner(Desk.made([], needs={}), checkpointer=InMemorySaver())
    assert never.invoke(GO, THREAD, durability="exit")["plan"] == "plan good low"


def test_results_come_in_the_version_asked_for() -> None:
    assert told(planner(Desk.made()).invoke(GO, version="v2").value) == RAISED


def test_what_is_bound_to_the_graph_is_found() -> None:
    desk = Desk.made()
    built = chain(("plan", desk.node("plan")), ("check", check)).compile(checkpointer=InMemorySaver())
    graph = desk.govern(built.with_config(THREAD))
    assert graph.invoke(GO)["plan"] == "plan good mid"
    assert cast("Any", graph.with_config(tags=["t"])).get_state(THREAD).values["plan"] == "plan good mid"


def test_everything_else_is_asked_of_the_graph() -> None:
    graph = planner(Desk.made(), checkpointer=InMemorySaver())
    assert "check" in graph.get_graph().nodes
    assert graph.get_context_jsonschema() == graph.graph.get_context_jsonschema()
    for schema in (graph.get_input_jsonschema(), graph.get_output_jsonschema()):
        assert set(schema["properties"]) == {"messages", "plan", "answer", "log"}
    assert graph.copy({"name": "other"}).get_name() == "other"
    with pytest.raises(AttributeError):
        _ = graph.no_such_thing


def test_the_states_of_subgraphs_are_found() -> None:
    desk = Desk.made(needs={})
    inner = asking(desk, first=True).compile()
    graph = desk.govern(chain(("sub", inner)).compile(checkpointer=InMemorySaver()))
    graph.invoke(GO, THREAD)
    (task,) = graph.get_state(THREAD, subgraphs=True).tasks
    assert task.state.next == ("approve",)
    assert [name for name, _ in graph.get_subgraphs()] == ["sub"]
    assert "sub:approve" in graph.get_graph(xray=True).nodes
    assert graph.invoke(Command(resume="yes"), THREAD)["log"][0] == "approved: yes"


def test_states_that_no_checkpoint_takes_are_carried_without_a_checkpointer() -> None:
    class Held(TypedDict, total=False):
        plan: str
        tool: Any

    desk = Desk.made()
    builder = StateGraph(Held)
    builder.add_node("plan", lambda state: {"plan": desk.ask("plan")})
    builder.add_node("check", check)
    builder.add_edge(START, "plan").add_edge("plan", "check")
    assert desk.govern(builder.compile()).invoke({"tool": Desk})["plan"] == "plan good mid"


# telemetry


def test_one_trace_tells_a_run_with_its_rewinds() -> None:
    exporter, tracer = spans()
    planner(Desk.made(tracer=tracer, needs={"plan": "high"})).invoke(GO)
    found = exporter.get_finished_spans()
    (run,) = [span for span in found if span.name == "governor.run t"]
    assert (run.attributes or {})["governor.rewinds"] == 2
    assert len({span.context.trace_id for span in found if span.context}) == 1
    back = [span for span in found if span.name == "governor.rewind plan"]
    assert [(span.attributes or {})["governor.rewind.rung"] for span in back] == [1, 2]
    assert {span.parent.span_id for span in back if span.parent} == {run.context.span_id if run.context else 0}


async def test_an_asynchronous_run_is_one_trace_too() -> None:
    exporter, tracer = spans()
    graph = planner(Desk.made(tracer=tracer), asynchronous=True)
    async for _ in graph.astream(GO):
        pass
    found = exporter.get_finished_spans()
    assert len([span for span in found if span.name == "governor.run t"]) == 1
    assert len({span.context.trace_id for span in found if span.context}) == 1
