"""A node's step is decided when the node first asks a model: once, and not at all where it asks none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from governor.errors import NoAnswerError
from governor.plan.index import IndexPlanner
from governor.protocols import Belief, Situation
from governor.records import Plan, Stop
from governor_langgraph.graph import govern
from tests.governor_langgraph.desk import Desk, State, desk, named, one_node


class Asked:
    """A planner that counts what it is asked of each node's own step."""

    def __init__(self, desk: Desk) -> None:
        self._planner = IndexPlanner()
        self.steps: list[str] = []
        desk.governor.planner = self

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        if not situation.step.parent:
            self.steps.append(situation.step.id)
        return self._planner.choose(belief, situation)


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[[Desk, Callable[[], Any]], Any]:
    """Runs a graph whose one node does this."""
    if request.param == "sync":
        return lambda at, body: govern(one_node(lambda _: body()).compile(), at.governor).invoke({"log": []})

    def awaited(at: Desk, body: Callable[[], Any]) -> Any:
        async def node(_: State) -> Any:
            return body()

        return asyncio.run(govern(one_node(node).compile(), at.governor).ainvoke({"log": []}))

    return awaited


def test_nothing_is_decided_for_a_node_that_asks_no_model(run: Callable[..., Any]) -> None:
    at = desk(named)
    planner = Asked(at)
    assert run(at, lambda: {"log": ["done"]})["log"] == ["done"]
    assert planner.steps == []
    assert at.kept.outcomes == []


def test_a_node_is_decided_once_however_many_threads_ask_first(run: Callable[..., Any]) -> None:
    at = desk(named)
    planner = Asked(at)

    def body() -> State:
        contexts = [copy_context() for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(context.run, at.chat.invoke, "?") for context in contexts]
            return {"log": [one.result().text for one in asked]}

    assert run(at, body)["log"] == ["low"] * 8
    assert len(set(planner.steps)) == 1
    assert [one.rung for one in at.kept.nodes] == ["low"]


def test_a_node_that_may_ask_no_model_fails_even_if_it_goes_on_without(run: Callable[..., Any]) -> None:
    at = desk(named)

    def body() -> State:
        try:
            return {"log": [at.chat.invoke("?").text]}
        except NoAnswerError:
            return {"log": ["made up"]}

    class Nothing:
        def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
            return Stop(reason="nothing is worth its price")

    at.governor.planner = Nothing()
    with pytest.raises(NoAnswerError, match="nothing is worth its price") as caught:
        run(at, body)
    assert caught.value.outcome.status == "refused"
    assert at.backend.calls == []


def test_a_step_counts_its_time_from_where_its_node_began(run: Callable[..., Any]) -> None:
    at = desk(named)

    def body() -> State:
        time.sleep(0.05)
        return {"log": [at.chat.invoke("?").text]}

    run(at, body)
    (outcome,) = at.kept.nodes
    assert outcome.seconds >= 0.05
