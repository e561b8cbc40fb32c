"""Chat models in a governed node that can't take its rung are an error or a warning, never silence."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage

from governor_langgraph import UngovernedModelError, node
from governor_langgraph.watcher import UngovernedModelWarning, told
from tests.governor_langgraph.desk import Desk, State, desk, named, one_node

HOW = ("govern", "decorator")
REMEDIES = "use GovernedChat in its place, govern the graph with patch=True, or set `ungoverned: pass` in the policy"
FOREIGN = "node 'ask' calls FakeListChatModel, which does not take the node's rung"


def graph_of(at: Desk, function: Any, how: str) -> Any:
    return at.graph(function) if how == "govern" else one_node(node(at.governor)(function)).compile()


def fake() -> FakeListChatModel:
    return FakeListChatModel(responses=["foreign"])


WAYS: dict[str, Any] = {
    "invoke": lambda model: model.invoke("q"),
    "stream": lambda model: list(model.stream("q")),
    "batch": lambda model: model.batch(["q", "r"]),
    "chain": lambda model: (model | (lambda said: said)).invoke("q"),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_model_is_an_error_that_names_node_model_and_remedies(way: str, how: str) -> None:
    at, model = desk([]), fake()

    def ask(state: Any) -> State:
        WAYS[way](model)
        return {"answer": "unreached"}

    with pytest.raises(UngovernedModelError) as caught:
        graph_of(at, ask, how).invoke({})
    assert str(caught.value) == f"{FOREIGN}: {REMEDIES}"
    assert model.i == 0  # it was found before it was asked


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_so_it_is_where_it_is_awaited(way: str, how: str) -> None:
    at, model = desk([]), fake()

    async def ask(state: Any) -> State:
        if way == "ainvoke":
            await model.ainvoke("q")
        else:
            _ = [chunk async for chunk in model.astream("q")]
        return {"answer": "unreached"}

    with pytest.raises(UngovernedModelError, match=FOREIGN):
        await graph_of(at, ask, how).ainvoke({})


def test_a_foreign_model_deep_inside_is_found_too() -> None:
    at, model = desk([]), GenericFakeChatModel(messages=iter([AIMessage("foreign")]))
    inner = one_node(lambda state: {"answer": model.invoke("q").text}, name="inner").compile()
    with pytest.raises(UngovernedModelError, match="node 'ask' calls GenericFakeChatModel"):
        at.graph(inner).invoke({})


def test_a_completion_model_takes_no_rung() -> None:
    at = desk([])
    with pytest.raises(UngovernedModelError, match="node 'ask' calls FakeListLLM"):
        at.graph(lambda state: {"answer": FakeListLLM(responses=["x"]).invoke("q")}).invoke({})


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_policy_may_let_it_pass_with_a_warning(way: str, how: str) -> None:
    at, model = desk([], ungoverned="pass"), fake()

    def ask(state: Any) -> State:
        return {"answer": model.invoke("q").text}

    async def aask(state: Any) -> State:
        return {"answer": (await model.ainvoke("q")).text}

    graph = graph_of(at, aask if way == "async" else ask, how)
    with pytest.warns(UngovernedModelWarning, match=f"{FOREIGN}: it is neither limited nor booked"):
        ended = asyncio.run(graph.ainvoke({})) if way == "async" else graph.invoke({})
    assert ended["answer"] == "foreign"
    assert at.kept.outcomes == []


@pytest.mark.parametrize("mode", ["shadow", {"canary": 0.0}])
def test_in_shadow_a_foreign_model_is_left_alone(mode: Any) -> None:
    at = desk([], mode=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert at.graph(lambda state: {"answer": fake().invoke("q").text}).invoke({})["answer"] == "foreign"
    assert at.kept.outcomes == []


def test_governed_models_and_those_that_were_told_are_not_found() -> None:
    at, model = desk(named), fake()

    def ask(state: Any) -> State:
        with told():
            said = model.invoke("q").text
        return {"answer": f"{at.chat.invoke('q').text} {said}"}

    assert at.graph(ask).invoke({})["answer"] == "low foreign"


def test_outside_of_governed_nodes_nothing_is_watched() -> None:
    at = desk(named)
    at.graph(lambda state: {"answer": at.chat.invoke("q").text}).invoke({})
    assert fake().invoke("q").content == "foreign"


def test_a_caught_error_leaves_no_trace_in_the_step() -> None:
    at = desk(named)

    def ask(state: Any) -> State:
        try:
            return {"answer": fake().invoke("q").text}
        except UngovernedModelError:
            return {"answer": at.chat.invoke("q").text}

    assert at.graph(ask).invoke({})["answer"] == "low"
    assert [(one.status, one.spent.calls) for one in at.kept.nodes] == [("unverified", 1)]
