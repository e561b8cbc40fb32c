"""Graphs that go back to the step that is to blame, in every colour and shape."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy, RetryPolicy, Send
from typing_extensions import TypedDict

from governor.errors import CheckFailedError, RewindError
from governor_langgraph import node
from governor_langgraph.graph import GovernedGraph, GovernedStateGraph
from tests.governor_langgraph.rewinding import (
    BLAME,
    GO,
    LADDER,
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

VERIFIED = {
    "match": {"node": "answer"},
    "verify": {"regex": "good"},
    "ladder": ["low"],
    "on_fail": {"backtrack": {"to": "plan"}},
}
"""The node that answers has a verifier of its own, and one rung."""


# the colours


@pytest.mark.parametrize("saver", [None, "memory"])
def test_invoke_goes_back_and_leaves_no_trace_of_the_failed_branch(saver: str | None) -> None:
    desk = Desk.made()
    graph = planner(desk, checkpointer=InMemorySaver() if saver else None)
    assert told(graph.invoke(GO, THREAD if saver else None)) == RAISED
    assert desk.asked == ASKED


@pytest.mark.parametrize("saver", [None, "memory"])
async def test_ainvoke_does_the_same(saver: str | None) -> None:
    desk = Desk.made()
    graph = planner(desk, asynchronous=True, checkpointer=InMemorySaver() if saver else None)
    assert told(await graph.ainvoke(GO, THREAD if saver else None)) == RAISED
    assert desk.asked == ASKED


def test_stream_of_values_ends_with_the_state_of_the_new_branch() -> None:
    *_, last = planner(Desk.made()).stream(GO, stream_mode="values")
    assert told(last) == RAISED


async def test_astream_of_values_does_the_same() -> None:
    graph = planner(Desk.made(), asynchronous=True)
    assert told([state async for state in graph.astream(GO, stream_mode="values")][-1]) == RAISED


def test_stream_of_updates_tells_what_each_node_did_on_both_branches() -> None:
    updates = [next(iter(update)) for update in planner(Desk.made()).stream(GO, stream_mode="updates")]
    assert updates == ["plan", "solve", "plan", "solve", "check"]


async def test_astream_of_messages_passes_tokens_of_both_branches() -> None:
    chunks = planner(Desk.made(), asynchronous=True).astream(GO, stream_mode="messages")
    text = "".join([chunk.text async for chunk, _ in chunks])
    assert text == "plan bad lowsolve good lowplan good midsolve good low"


async def test_a_stream_that_is_left_early_ends_its_run() -> None:
    exporter, tracer = spans()
    graph = planner(Desk.made(tracer=tracer), asynchronous=True)
    chunks = graph.astream(GO, stream_mode="updates")
    assert "plan" in await anext(aiter(chunks))
    await chunks.aclose()  # type: ignore[attr-defined]
    assert "governor.run t" in [span.name for span in exporter.get_finished_spans()]


def test_batches_go_back_one_by_one() -> None:
    desk = Desk.made()
    assert [told(state) for state in planner(desk).batch([GO, GO])] == [RAISED, RAISED]
    assert sorted(desk.asked) == sorted(ASKED * 2)


async def test_abatches_do_too() -> None:
    states = await planner(Desk.made(), asynchronous=True).abatch([GO, GO])
    assert [told(state) for state in states] == [RAISED, RAISED]


# what is redone, how often, and how it ends


def test_history_holds_both_branches_by_name() -> None:
    desk = Desk.made(needs={"plan": "high"})
    graph = planner(desk, checkpointer=InMemorySaver())
    graph.invoke(GO, THREAD)
    assert branches(graph, THREAD) == ["", "1: plan on rung 1, blamed by check", "2: plan on rung 2, blamed by check"]
    plans = {one.values["plan"] for one in graph.get_state_history(THREAD) if "plan" in one.values}
    assert plans == {"plan bad low", "plan bad mid", "plan good high"}
    assert graph.get_state(THREAD).values["plan"] == "plan good high"


def test_blame_auto_finds_the_step_that_is_most_doubtful_for_its_price() -> None:
    """Solving is the cheaper to redo; once that was in vain, the plan is the likelier cause."""
    desk = Desk.made([BLAME])
    assert told(planner(desk).invoke(GO)) == RAISED
    assert desk.asked == ["plan low", "solve low", "solve mid", "plan mid", "solve low"]


def test_the_higher_rung_holds_for_that_step_alone() -> None:
    """The plan is made again in a loop: from the second time on it begins low."""
    desk = Desk.made()
    builder = StateGraph(State)
    for name, run in (("plan", desk.node("plan")), ("solve", desk.node("solve")), ("check", first_plan)):
        builder.add_node(name, run)
    builder.add_edge(START, "plan").add_edge("plan", "check").add_edge("solve", END)
    builder.add_conditional_edges(
        "check", lambda state: "plan" if len(state["log"]) < 2 else "solve", ["plan", "solve"]
    )
    desk.govern(builder.compile()).invoke(GO)
    assert desk.asked == ["plan low", "plan mid", "plan low", "solve low"]


def first_plan(state: Any) -> State:
    if "bad" in state["log"][0]:
        raise CheckFailedError("the first plan does not hold")
    return {}


def test_without_a_higher_rung_a_step_is_redone_as_it_was() -> None:
    rule = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "rung": 0, "max": 3}}}
    desk = Desk.made([rule], needs={"plan": "high"})
    with pytest.raises(CheckFailedError) as failed:
        planner(desk).invoke(GO)
    assert desk.asked == ["plan low", "solve low"] * 4
    assert failed.value.__notes__[0] == "the run went back 3 times before"


def test_a_check_that_fails_to_the_last_is_raised_with_what_was_tried() -> None:
    rule = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "max": 1}}}
    desk = Desk.made([rule], needs={"plan": "high"})
    with pytest.raises(CheckFailedError, match="plan bad mid") as failed:
        planner(desk, checkpointer=InMemorySaver()).invoke(GO, THREAD)
    assert failed.value.__notes__[0] == "the run went back 1 times before"
    assert desk.asked == ASKED


def test_nothing_is_redone_where_no_rung_is_higher() -> None:
    desk = Desk.made(needs={"plan": "high"}, ladder=[LADDER[0]])
    with pytest.raises(CheckFailedError) as failed:
        planner(desk).invoke(GO)
    assert desk.asked == ["plan low", "solve low"]
    assert not getattr(failed.value, "__notes__", [])[:-1], "LangGraph's own note alone"


def answering(desk: Desk) -> Any:
    return chain(("plan", desk.node("plan")), ("answer", desk.node("answer")))


def test_a_node_whose_verifier_rejects_for_good_blames_too() -> None:
    desk = Desk.made([VERIFIED], needs={"answer": "mid"})
    state = desk.govern(answering(desk).compile()).invoke(GO)
    assert desk.asked == ["plan low", "answer low", "plan mid", "answer low", "plan high", "answer low"]
    assert state["answer"] == "answer bad low", "when no rewind is left, the best answer so far ships"
    assert len(state["messages"]) == 3


@pytest.mark.parametrize("scope", ["run", "session", "app", "step"])
def test_nothing_is_redone_that_cost_more_than_the_budget_has_left(scope: str) -> None:
    """It would end the run halfway, where it has an answer now. A step's own limits say nothing of other steps."""
    limit = {"usd": 0.00046, "per": "total"} if scope == "app" else {"usd": 0.00046}
    rule = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "max": 1}}}
    desk = Desk.made([rule], needs={"plan": "high"}, budget={scope: limit})
    solves = [(f"solve{number}", desk.node("solve")) for number in range(12)]
    graph = desk.govern(chain(("plan", desk.node("plan")), *solves, ("check", check)).compile())
    with pytest.raises(CheckFailedError):
        graph.invoke({"messages": [], "log": []})
    assert (desk.asked.count("plan mid"), len(desk.asked)) == ((1, 26) if scope == "step" else (0, 13))


def test_two_failing_nodes_of_one_superstep_make_one_rewind() -> None:
    rules = [{**TO_PLAN, "match": {"node": name}} for name in ("check", "review")]
    desk = Desk.made(rules)
    builder = StateGraph(State)
    for name, run in (("plan", desk.node("plan")), ("check", check), ("review", check)):
        builder.add_node(name, run)
    builder.add_edge(START, "plan").add_edge("plan", "check").add_edge("plan", "review")
    graph = desk.govern(builder.compile(checkpointer=InMemorySaver()))
    assert graph.invoke(GO, THREAD)["log"] == ["plan: plan good mid", "check: fine", "check: fine"]
    assert desk.asked == ["plan low", "plan mid"]
    assert len(branches(graph, THREAD)) == 2


def test_of_several_blamed_steps_the_earliest_is_redone() -> None:
    rules = [
        {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "solve"}}},
        {"match": {"node": "review"}, "on_fail": {"backtrack": {"to": "plan"}}},
    ]
    desk = Desk.made(rules)
    builder = StateGraph(State)
    for name, run in (("plan", desk.node("plan")), ("solve", desk.node("solve")), ("check", check), ("review", check)):
        builder.add_node(name, run)
    builder.add_edge(START, "plan").add_edge("plan", "solve").add_edge("solve", "check").add_edge("solve", "review")
    desk.govern(builder.compile()).invoke(GO)
    assert desk.asked == ASKED


def test_each_rule_has_its_own_rewinds_and_all_its_nodes_share_them() -> None:
    shared = {"match": {"node": "check*"}, "on_fail": {"backtrack": {"to": "plan", "max": 1, "rung": 0}}}
    desk = Desk.made([shared], needs={"plan": "high"})

    def lenient(state: State) -> State:
        if len(desk.asked) < 2:
            raise CheckFailedError("once")
        return {}

    graph = desk.govern(chain(("plan", desk.node("plan")), ("check1", lenient), ("check2", check)).compile())
    with pytest.raises(CheckFailedError, match="plan bad low"):
        graph.invoke(GO)
    assert desk.asked == ["plan low", "plan low"]


# shapes


def test_a_branch_beside_the_blamed_step_is_redone_and_joined_once() -> None:
    desk = Desk.made()
    builder = StateGraph(State)
    for name, run in (("plan", desk.node("plan")), ("search", desk.node("search")), ("check", check)):
        builder.add_node(name, run)
    builder.add_edge(START, "plan").add_edge(START, "search").add_edge(["plan", "search"], "check")
    state = desk.govern(builder.compile()).invoke(GO)
    assert state["log"] == ["plan: plan good mid", "search: search good low", "check: fine"]
    assert sorted(desk.asked) == ["plan low", "plan mid", "search low", "search low"]


class Fan(TypedDict, total=False):
    topic: str
    parts: Annotated[list[str], operator.add]


def fan(desk: Desk) -> Any:
    def part(state: Any) -> Fan:
        return {"parts": [desk.ask(f"part {state['topic']}")]}

    def join(state: Any) -> Fan:
        if any("bad" in one for one in state["parts"]):
            raise CheckFailedError("a part is bad")
        return {}

    builder = StateGraph(Fan)
    builder.add_node("part", part).add_node("join", join)
    builder.add_conditional_edges(START, lambda _: [Send("part", {"topic": str(n)}) for n in range(3)], ["part"])
    builder.add_edge("part", "join")
    return builder


def test_all_parts_of_a_fan_out_are_redone_higher_when_their_join_fails() -> None:
    rule = {"match": {"node": "join"}, "on_fail": {"backtrack": {"to": "part"}}}
    desk = Desk.made([rule], needs={"part": "mid"})
    state = desk.govern(fan(desk).compile()).invoke({"parts": []})
    assert state["parts"] == ["part good mid"] * 3
    assert desk.asked == ["part low"] * 3 + ["part mid"] * 3


def test_a_node_of_a_subgraph_blames_a_node_of_the_outer_graph() -> None:
    desk = Desk.made()
    inner = chain(("check", node(desk.governor)(check))).compile()
    outer = chain(("plan", node(desk.governor)(desk.node("plan"))), ("review", inner))
    graph = GovernedGraph(outer.compile(checkpointer=InMemorySaver()), desk.governor)
    state = graph.invoke(GO, THREAD)
    assert state["plan"] == "plan good mid"
    assert desk.asked == ["plan low", "plan mid"]


def test_a_subgraph_is_a_step_that_is_redone_from_its_beginning() -> None:
    desk = Desk.made()
    inner = chain(("think", desk.node("think")), ("plan", desk.node("plan"))).compile()
    graph = desk.govern(chain(("plan", inner), ("check", check)).compile(checkpointer=InMemorySaver()))
    assert graph.invoke(GO, THREAD)["plan"] == "plan good mid"
    assert desk.asked == ["think low", "plan low", "think mid", "plan mid"]


def test_as_a_node_of_a_governed_graph_it_leaves_the_driving_to_that() -> None:
    desk = Desk.made()
    inner = desk.govern(chain(("check", check)).compile())
    graph = desk.govern(chain(("plan", desk.node("plan")), ("check", inner)).compile())
    assert graph.invoke(GO)["plan"] == "plan good mid"


def test_as_a_node_of_an_ungoverned_graph_it_refuses_what_it_could_not_do() -> None:
    outer = chain(("work", planner(Desk.made()))).compile()
    with pytest.raises(RewindError, match="is a node of a graph that can't go back: govern the outer graph"):
        outer.invoke(GO)
    desk = Desk.made([])
    assert chain(("work", planner(desk, last=lambda state: {}))).compile().invoke(GO)["plan"] == "plan bad low"


def test_retries_and_error_handlers_do_not_take_a_rewind() -> None:
    desk = Desk.made()
    handled: list[str] = []
    builder = chain(("plan", desk.node("plan")), ("solve", desk.node("solve")))
    builder.add_node(
        "check",
        check,
        retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False, retry_on=Exception),
        error_handler=lambda state: handled.append("taken"),
    )
    builder.add_edge("solve", "check")
    assert told(desk.govern(builder.compile()).invoke(GO)) == RAISED
    assert desk.asked == ASKED
    assert handled == []


def test_a_cached_result_is_not_taken_for_the_redone_step() -> None:
    desk = Desk.made()
    builder = StateGraph(State)
    builder.add_node("plan", desk.node("plan"), cache_policy=CachePolicy())
    builder.add_node("check", check)
    builder.add_edge(START, "plan").add_edge("plan", "check")
    assert desk.govern(builder.compile(cache=InMemoryCache())).invoke(GO)["plan"] == "plan good mid"


def test_a_governed_state_graph_compiles_to_one_that_goes_back() -> None:
    desk = Desk.made()
    builder = GovernedStateGraph(State, policy=desk.governor)
    builder.add_sequence([("plan", desk.node("plan")), ("solve", desk.node("solve")), ("check", check)])
    builder.add_edge(START, "plan")
    assert told(builder.compile().invoke(GO)) == RAISED


def test_replays_of_a_deterministic_backend_are_alike() -> None:
    runs = [planner(Desk.made()).invoke(GO) for _ in range(2)]
    assert told(runs[0]) == told(runs[1])


@pytest.mark.parametrize("mode", ["shadow", {"canary": 0.0}])
def test_no_arm_but_the_governed_one_goes_back(mode: Any) -> None:
    desk = Desk.made([{**TO_PLAN, "verify": {"regex": "better"}}], mode=mode)
    builder = chain(("plan", desk.node("plan")), ("check", desk.node("check")))
    assert desk.govern(builder.compile()).invoke(GO)["log"][-1] == "check: check good high"
    assert desk.asked == ["plan high", "check high"], "what is rejected ships"

    def never(state: State) -> State:
        raise CheckFailedError("no")

    with pytest.raises(CheckFailedError) as failed:
        planner(desk, last=never).invoke(GO)
    assert desk.asked[2:] == ["plan high", "solve high"]
    assert not any("went back" in note for note in failed.value.__notes__)
