"""Budgets hold across all model calls of a node, and what they refuse is told."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from governor import Governor
from governor.errors import NoAnswerError
from governor.plan.bounds import bound
from governor.protocols import Auditable
from governor.records import Amount, Call, Reply, Usage
from governor.telemetry.audit import audited
from governor.telemetry.records import JsonlSink, read_records
from governor.testing import ScriptedBackend
from governor_langgraph.graph import govern
from tests.governor_langgraph.desk import LADDER, Desk, State, desk, named, one_node, pinned, reply

QUESTION: State = {"question": "What is 12 * 17?"}
THREAD = {"configurable": {"thread_id": "t", "tenant": "acme"}}
SCOPES = {
    "session": "session:test/t",
    "app": "app:test",
    "node": "node:test/ask",
    "tenant": "tenant:test/acme",
}
MOST = 200
"""More than one call of the scripted prompts can come to (181), less than one beside 25 that were spent."""


def limited(part: str, tokens: int) -> dict[str, Any]:
    return {part: {"tokens": tokens, **({"per": "total"} if part in ("app", "node", "tenant") else {})}}


def asks(at: Desk, times: int) -> Any:
    def ask(state: Any) -> State:
        return {"log": [at.chat.invoke("q").text for _ in range(times)]}

    return ask


@pytest.mark.parametrize("part", ["session", "app", "node", "tenant", "run", "step"])
def test_a_limit_holds_across_the_calls_of_a_node(part: str) -> None:
    at = desk(named, steps=pinned(ask="low"), budget=limited(part, MOST + 60))
    with pytest.raises(NoAnswerError) as caught:
        at.graph(asks(at, 9)).invoke(QUESTION, THREAD)
    refusal = caught.value.outcome.refusal
    assert refusal is not None
    assert (refusal.kind, refusal.dimension, refusal.limit) == ("budget_exceeded", "tokens", MOST + 60)
    assert refusal.scope.startswith(f"{part}:test")
    balance = at.governor.ledger.balance(refusal.scope)
    assert balance.spent.tokens == 25 * len(at.backend.calls)
    assert 1 < len(at.backend.calls) < 9
    assert balance.reserved == Amount()


def test_a_run_has_its_limit_over_all_its_nodes_and_the_next_run_has_its_own() -> None:
    at = desk(named, steps=pinned(ask="low"), budget=limited("run", MOST))
    graph = at.graph(asks(at, 1))
    for _ in range(3):
        graph.invoke(QUESTION, THREAD)
    assert len({one.run for one in at.kept.nodes}) == 3


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_refused_node_tells_the_budget_in_its_record_and_error(way: str) -> None:
    at = desk(named, budget=limited("session", 10))
    graph = at.graph(asks(at, 1))
    with pytest.raises(NoAnswerError, match=r"session:test/t.*would pass the limit of 10") as caught:
        asyncio.run(graph.ainvoke(QUESTION, THREAD)) if way == "async" else graph.invoke(QUESTION, THREAD)
    outcome = at.kept.nodes[0]
    assert caught.value.outcome.refusal == outcome.refusal
    assert outcome.refusal is not None
    assert outcome.refusal.kind == "too_large"
    assert (outcome.spent.tokens, outcome.spent.calls, len(outcome.attempts)) == (
        0,
        0,
        1,
    )  # asking dearer rungs is vain
    assert at.backend.calls == []


def test_the_policy_may_refuse_outright() -> None:
    at = desk(
        lambda call: reply("wrong"),
        verify={"regex": "204"},
        budget={**limited("session", MOST), "on_exhausted": "refuse"},
    )
    with pytest.raises(NoAnswerError):
        at.graph(asks(at, 1)).invoke(QUESTION, THREAD)
    assert [(one.status, one.answer) for one in at.kept.nodes] == [("refused", "")]


def test_otherwise_the_best_rejected_result_ships_when_the_budget_ends() -> None:
    at = desk(lambda call: reply("wrong"), verify={"regex": "204"}, budget=limited("session", MOST))
    assert at.graph(asks(at, 1)).invoke(QUESTION, THREAD)["log"] == ["wrong"]
    outcome = at.kept.nodes[0]
    assert (outcome.status, outcome.reason) == ("best_so_far", "budget exhausted")
    assert outcome.refusal is not None


def test_degrade_goes_on_with_a_cheaper_rung_that_fits() -> None:
    at = desk(
        named,
        dial=0.0,
        budget={**limited("session", MOST), "on_exhausted": "degrade"},
        ladder=[LADDER[0], {**LADDER[2], "answer_tokens": 400}],
    )
    assert at.graph(asks(at, 1)).invoke(QUESTION, THREAD)["log"] == ["low"]
    outcome = at.kept.nodes[0]
    assert [one.rung.id for one in outcome.attempts] == ["high", "low"]
    assert outcome.rung == "low"
    assert at.rungs == ["low"]


def test_degrade_ends_where_no_rung_fits() -> None:
    at = desk(named, budget={**limited("session", 10), "on_exhausted": "degrade"})
    with pytest.raises(NoAnswerError) as caught:
        at.graph(asks(at, 1)).invoke(QUESTION, THREAD)
    assert caught.value.outcome.refusal is not None
    assert at.backend.calls == []


def test_the_limit_of_a_call_holds_for_each_call_inside() -> None:
    at = desk(named, dial=0.0, budget={"call": {"answer_tokens": 150, "tokens": 200}})
    long: State = {"question": "What is 12 * 17? " * 99}  # only what its models are asked counts
    assert at.graph(asks(at, 3)).invoke(long)["log"] == ["high"] * 3
    small = desk(named, budget={"call": {"tokens": 50}})
    with pytest.raises(NoAnswerError):
        small.graph(asks(small, 1)).invoke(QUESTION)
    assert small.backend.calls == []


def test_a_models_own_budget_holds_inside_nodes() -> None:
    at = desk(named, steps=pinned(ask="low"), budget={"model": {"m/small": {"tokens": MOST + 60, "per": "total"}}})
    with pytest.raises(NoAnswerError):
        at.graph(asks(at, 9)).invoke(QUESTION, THREAD)
    balance = at.governor.ledger.balance("model:test/m/small")
    assert balance.spent.tokens == 25 * len(at.backend.calls) <= MOST + 60


class Watched:
    """Replies that take a moment, while which the books are looked at."""

    def __init__(self, outputs: list[int]) -> None:
        self.desk: Desk
        self.outputs, self.over = outputs, 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Reply:
        with self._lock:
            number = len(self.desk.backend.calls)
            output = self.outputs[number % len(self.outputs)]
            for scope in SCOPES.values():
                balance = self.desk.governor.ledger.balance(scope)
                held = balance.spent.tokens + balance.reserved.tokens
                self.over = max(self.over, held)
        assert output <= bound(call).tokens
        return Reply(text="x", usage=Usage(1, output), seconds=0.0)


@settings(max_examples=25)
@given(
    limit=st.integers(0, 900),
    outputs=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    calls=st.integers(1, 12),
    part=st.sampled_from(sorted(SCOPES)),
)
def test_many_calls_in_threads_of_one_node_never_pass_a_limit(
    limit: int, outputs: list[int], calls: int, part: str
) -> None:
    script = Watched(outputs)
    at = desk(script, steps=pinned(ask="low"), budget=limited(part, limit))
    script.desk = at

    def one(number: int) -> str:
        try:
            return at.chat.invoke(str(number)).text
        except NoAnswerError:
            return "refused"

    def ask(state: Any) -> State:
        contexts = [copy_context() for _ in range(calls)]
        with ThreadPoolExecutor(4) as threads:
            said = list(threads.map(lambda number: contexts[number].run(one, number), range(calls)))
        return {"log": said}

    said = at.graph(ask).invoke(QUESTION, THREAD)["log"]
    balance = at.governor.ledger.balance(SCOPES[part])
    assert max(script.over, balance.spent.tokens) <= limit
    assert balance.reserved == Amount()
    assert balance.spent.tokens == sum(one.spent.tokens for one in at.kept.parts) == at.kept.nodes[0].spent.tokens
    assert said.count("x") == len(at.backend.calls) == balance.spent.calls


async def test_many_calls_in_tasks_of_one_node_never_pass_a_limit() -> None:
    at = desk(named, steps=pinned(ask="low"), budget=limited("session", 300))

    async def ask(state: Any) -> State:
        said = await asyncio.gather(*(at.chat.ainvoke("q") for _ in range(20)), return_exceptions=True)
        return {"log": [isinstance(one, NoAnswerError) for one in said]}

    refused = (await at.graph(ask).ainvoke(QUESTION, THREAD))["log"]
    spent = at.spent("session:test/t")
    assert spent.tokens == 25 * refused.count(False) <= 300
    assert True in refused


async def test_a_node_that_is_cancelled_leaves_nothing_held() -> None:
    called = asyncio.Event()

    class Hanging(ScriptedBackend):
        async def acall(self, call: Call) -> Reply:
            called.set()
            await asyncio.sleep(60)
            return named(call)

    at = desk(Hanging([]), steps=pinned(ask="low"), budget=limited("session", 1_000))

    async def ask(state: State) -> State:
        return {"log": [(await at.chat.ainvoke("q")).text]}

    running = asyncio.create_task(at.graph(ask).ainvoke(QUESTION, THREAD))
    await called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    balance = at.governor.ledger.balance("session:test/t")
    assert (balance.reserved, balance.spent.calls) == (Amount(), 1)  # what was sent is booked at its bound


def test_the_ledger_agrees_with_the_records_of_nodes_whatever_became_of_them(tmp_path: Path) -> None:
    def script(call: Call) -> Reply:
        return reply("204" if call.rung.id == "high" else "194")

    sink = JsonlSink(tmp_path / "records.jsonl")
    budget = {"session": {"tokens": 2_000}, "run": {"tokens": 900}, "app": {"tokens": 2_400, "per": "total"}}
    at = desk(script, verify={"regex": "204"}, budget=budget, sinks=[sink])

    def fails(state: State) -> State:
        at.chat.invoke("q")
        raise KeyError("mine")

    for function in (asks(at, 1), fails, asks(at, 3), asks(at, 99), lambda state: {"log": [1]}):
        with suppress(NoAnswerError, KeyError):
            at.graph(function).invoke(QUESTION, THREAD)
    at.governor.close()
    ledger = at.governor.ledger
    assert isinstance(ledger, Auditable)
    lines = [dict(line) for line in read_records(tmp_path / "records.jsonl", strict=True)]
    found = audited(lines, ledger.balances(), ledger.reservations(), time.time())
    assert found.agrees
    assert found.compared >= 3
    assert {one.status for one in at.kept.nodes} >= {"accepted"}
    assert at.spent("app:test").tokens <= 2_400


# time


class Sleepy:
    """A script that takes its time, as long as the call allows, and the clock on which alone it passes."""

    def __init__(self, seconds: float, patch: pytest.MonkeyPatch) -> None:
        self.seconds = seconds
        self.now = 1_000.0
        self.limits: list[float] = []
        ports = Governor.ports
        patch.setattr(Governor, "ports", lambda governor: replace(ports(governor), clock=self.monotonic))
        for module in ("attempt", "run"):
            patch.setattr(f"governor_langgraph.{module}.time", self)

    def monotonic(self) -> float:
        return self.now

    def __call__(self, call: Call) -> Reply:
        self.limits.append(call.timeout)
        self.now += min(self.seconds, call.timeout)
        return named(call)


def test_a_deadline_of_the_policy_limits_every_call_of_the_node_to_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Sleepy(12, monkeypatch)
    at = desk(script, steps=[{"match": {"node": "ask"}, "ladder": ["low"], "deadline": 30}])
    with pytest.raises(NoAnswerError, match="deadline"):
        at.graph(asks(at, 9)).invoke(QUESTION)
    assert script.limits == [30, 18, 6]


@pytest.mark.parametrize("where", ["step_timeout", "node timeout"])
async def test_the_graphs_own_timeouts_are_deadlines(where: str) -> None:
    at = desk(named, steps=pinned(ask="low"))

    async def ask(state: Any) -> State:
        return {"log": [(await at.chat.ainvoke("q")).text]}

    options: dict[str, Any] = {"timeout": 5.0} if where == "node timeout" else {}
    graph = one_node(ask, **options).compile()
    if where == "step_timeout":
        graph.step_timeout = 5.0
    await govern(graph, at.governor).ainvoke(QUESTION)
    assert 0 < at.backend.calls[0].timeout <= 5.0


def test_a_deadline_that_has_passed_calls_nothing_more() -> None:
    at = desk(named, steps=[{"match": {"node": "ask"}, "ladder": ["low"], "deadline": 0.05}])

    def ask(state: Any) -> State:
        time.sleep(0.08)
        return {"log": [at.chat.invoke("q").text]}

    with pytest.raises(NoAnswerError, match="deadline"):
        at.graph(ask).invoke(QUESTION)
    assert at.backend.calls == []


# shadow and canary


def in_shadow(mode: Any, **keys: Any) -> Desk:
    return desk(named, mode=mode, verify={"regex": "never"}, **keys)


@pytest.mark.parametrize("mode", ["shadow", {"canary": 0.0}])
def test_in_shadow_the_baseline_answers_and_the_decision_is_recorded(mode: Any) -> None:
    at = in_shadow(mode, budget={**limited("session", 1), "call": {"tokens": 1}})
    assert at.graph(asks(at, 2)).invoke(QUESTION, THREAD)["log"] == ["high", "high"]
    arm = "shadow" if mode == "shadow" else "control"
    outcome = at.kept.nodes[0]
    assert (outcome.arm, outcome.rung, outcome.decided, len(outcome.attempts)) == (arm, "high", "low", 1)
    assert {one.arm for one in at.kept.parts} == {arm}
    assert at.spent("session:test/t").tokens == 50  # counted, and never refused


def test_in_shadow_no_deadline_and_no_second_call_changes_anything() -> None:
    cut = Reply(text="cut", finish_reason="length", usage=Usage(20, 5))
    at = desk([cut], mode="shadow", ladder=[LADDER[0]], steps=[{"match": {"node": "ask"}, "deadline": 0.01}])

    def ask(state: Any) -> State:
        time.sleep(0.02)
        return {"log": [at.chat.invoke("q").text]}

    assert at.graph(ask).invoke(QUESTION)["log"] == ["cut"]
    assert at.backend.calls[0].timeout == 120.0


def test_a_canary_governs_whole_sessions() -> None:
    at = desk(named, mode={"canary": 0.5})
    graph = at.graph(asks(at, 1))
    for number in range(24):
        for _ in range(2):
            graph.invoke(QUESTION, {"configurable": {"thread_id": f"t{number}"}})
    arms = {(one.session, one.arm, one.rung) for one in at.kept.nodes}
    assert len(arms) == 24  # each session is in one arm
    assert {(arm, rung) for _, arm, rung in arms} == {("governed", "low"), ("control", "high")}
    assert {(one.session, one.arm) for one in at.kept.parts} == {(session, arm) for session, arm, _ in arms}


def test_in_shadow_what_a_node_writes_is_shown_as_it_comes() -> None:
    at = in_shadow("shadow")
    graph = at.graph(RunnableLambda(lambda state: {"answer": at.chat.invoke("q").text}))
    assert "".join(chunk.content for chunk, _ in graph.stream(QUESTION, stream_mode="messages")) == "high"
