"""One trace for a run of a graph: its steps, their attempts and verifications, whatever thread they run in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from governor.telemetry.spans import OtelTracer
from governor_langgraph.graph import govern
from tests.governor_langgraph.desk import Desk, State, by_rung, desk

WAYS = ("sync", "async", "stream", "astream")


class Trace:
    """Spans that have ended, by name and parent."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OtelTracer(provider, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def path(self, span: ReadableSpan) -> tuple[str, ...]:
        """The names of the spans above, the outermost first, and its own."""
        above = span.parent
        found = next(
            (one for one in self.spans if above and one.context and one.context.span_id == above.span_id), None
        )
        return (*(self.path(found) if found else ()), span.name)

    def paths(self) -> list[tuple[str, ...]]:
        return sorted(map(self.path, self.spans))


def parallel(at: Desk, *, awaits: bool) -> Any:
    """Two nodes at once, then one more."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)

    def asking(name: str) -> Any:
        async def awaited(state: Any) -> State:
            return {"log": [(await at.chat.ainvoke(name)).text]}

        return awaited if awaits else lambda state: {"log": [at.chat.invoke(name).text]}

    for name in ("left", "right", "last"):
        builder.add_node(name, asking(name))
    builder.add_edge(START, "left").add_edge(START, "right").add_edge(["left", "right"], "last").add_edge("last", END)
    return govern(builder.compile(), at.governor)


def ran(graph: Any, way: str) -> None:
    async def streamed() -> None:
        async for _ in graph.astream({}):
            pass

    match way:
        case "sync":
            graph.invoke({})
        case "async":
            asyncio.run(graph.ainvoke({}))
        case "stream":
            list(graph.stream({}))
        case _:
            asyncio.run(streamed())


@pytest.mark.parametrize("way", WAYS)
def test_the_spans_of_all_nodes_lie_below_the_runs(way: str) -> None:
    trace = Trace()
    at = desk(by_rung(), tracer=trace.tracer, ladder=[{"id": "low", "model": "m/small", "answer_tokens": 100}])
    ran(parallel(at, awaits=way in ("async", "astream")), way)
    run = "governor.run test"
    wanted: list[tuple[str, ...]] = [(run,)]
    for name in ("left", "right", "last"):
        node = (run, f"governor.step {name}")
        attempt = (*node, "governor.attempt low")
        part = (*attempt, f"governor.step {name}")
        wanted += [node, attempt, (*node, "governor.verify complete"), part]
        wanted += [(*part, "chat m/small"), (*part, "governor.verify complete")]
    assert trace.paths() == sorted(wanted)
    assert len({one.context.trace_id for one in trace.spans if one.context}) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_each_attempt_and_verdict_of_a_node_is_a_span_below_its_step(way: str) -> None:
    trace = Trace()
    at = desk(by_rung(low="194", high="204"), tracer=trace.tracer, verify={"regex": "204"})

    async def ask(state: Any) -> State:
        return {"answer": (await at.chat.ainvoke("q")).text}

    function = ask if way == "async" else lambda state: {"answer": at.chat.invoke("q").text}
    ran(at.graph(function), way)
    node = ("governor.run test", "governor.step ask")
    below = [one for one in trace.spans if trace.path(one)[:-1] == node]
    assert [one.name for one in below] == [
        "governor.attempt low",
        "governor.verify regex",
        "governor.attempt high",
        "governor.verify regex",
    ]
    attributes = [dict(one.attributes or {}) for one in below]
    assert [one.get("governor.rung") for one in attributes] == ["low", None, "high", None]
    assert [one.get("gen_ai.evaluation.score.label") for one in attributes] == [None, "reject", None, "accept"]
    assert [one.get("governor.calls") for one in attributes if "governor.rung" in one] == [1, 1]
    step = next(one for one in trace.spans if trace.path(one) == node)
    assert dict(step.attributes or {})["governor.spent.tokens"] == 50
    assert dict(step.attributes or {})["governor.spent.calls"] == 2


def calls_counted(trace: Trace) -> int:
    """Tokens that a tool would count which adds up all spans of chat calls to a provider."""
    return sum(
        int(str(dict(one.attributes or {}).get("gen_ai.usage.input_tokens", 0)))
        for one in trace.spans
        if one.kind is SpanKind.CLIENT
    )


def test_every_call_is_one_client_span_though_its_nodes_attempt_is_a_span_too() -> None:
    trace = Trace()
    at = desk(by_rung(low="194", high="204"), tracer=trace.tracer, verify={"regex": "204"})
    ran(at.graph(lambda state: {"answer": [at.chat.invoke("q").text for _ in range(3)][-1]}), "sync")
    clients = [one for one in trace.spans if one.kind is SpanKind.CLIENT]
    assert len(clients) == len(at.backend.calls) == 6
    assert calls_counted(trace) == 6 * 20


def test_beside_langchains_own_instrumentation_there_is_no_client_span_of_ours() -> None:
    trace = Trace(internal=True)
    at = desk(by_rung(), tracer=trace.tracer)
    ran(at.graph(lambda state: {"answer": at.chat.invoke("q").text}), "sync")
    assert {one.kind for one in trace.spans} == {SpanKind.INTERNAL}
    assert len(trace.spans) == 7


def test_a_node_without_a_model_leaves_an_empty_step_and_no_error() -> None:
    trace = Trace()
    at = desk([], tracer=trace.tracer)
    ran(at.graph(lambda state: {"answer": "fixed"}), "sync")
    assert all("error.type" not in (one.attributes or {}) for one in trace.spans)
    assert [one for one in trace.spans if one.kind is SpanKind.CLIENT] == []
    assert calls_counted(trace) == 0


def test_a_span_ends_in_error_where_the_nodes_own_code_does() -> None:
    trace = Trace()
    at = desk(by_rung(), tracer=trace.tracer)

    def ask(state: Any) -> State:
        at.chat.invoke("q")
        raise KeyError("mine")

    with pytest.raises(KeyError):
        ran(at.graph(ask), "sync")
    failed = {one.name for one in trace.spans if dict(one.attributes or {}).get("error.type") == "KeyError"}
    assert {"governor.run test", "governor.step ask"} <= failed


def test_nothing_of_a_trace_leaks_out_of_a_stream_that_is_left_early() -> None:
    from opentelemetry import trace as api

    trace = Trace()
    at = desk(by_rung(low="a b c"), tracer=trace.tracer)
    stream = at.graph(lambda state: {"answer": at.chat.invoke("q").text}).stream({}, stream_mode="messages")
    next(stream)
    assert not api.get_current_span().get_span_context().is_valid
    stream.close()
    assert "governor.run test" in {one.name for one in trace.spans}
