from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from governor.effects import Effect, Enter, Exit, Now, Process, traced
from governor.protocols import Tracer
from governor.records import Call, Outcome
from governor.telemetry.spans import (
    NullTracer,
    OtelTracer,
    attempt_attributes,
    attempt_name,
    call_attributes,
    outcome_attributes,
    step_attributes,
    step_name,
    verdict_attributes,
    verify_name,
)
from tests.telemetry.journaled_step import drive
from tests.telemetry.made_records import ANSWER, ATTEMPT, OUTCOME, PROMPT, RUNG, STEP, VERDICT

CALL = Call(step_id="s-1", rung=RUNG, messages=STEP.messages, attempt=2, seed=3)


class Spans:
    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = OtelTracer(self.provider, **options)

    def finished(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    @contextmanager
    def span(self, name: str, **attributes: Any) -> Generator[None, None, None]:
        self.tracer.enter(name, attributes)
        yield
        self.tracer.exit({}, "")


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def identity(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def a_step(tracer: Tracer) -> None:
    tracer.enter(step_name(STEP), step_attributes(STEP, "desk"))
    tracer.enter(attempt_name(RUNG), call_attributes(CALL))
    tracer.exit(attempt_attributes(ATTEMPT), "")
    tracer.enter(verify_name("number"), {})
    tracer.exit(verdict_attributes(VERDICT), "")
    tracer.exit(outcome_attributes(OUTCOME), "")


def test_a_step_is_a_tree_of_named_spans_with_genai_attributes() -> None:
    spans = Spans()
    a_step(spans.tracer)
    finished = spans.finished()
    assert list(finished) == ["chat openai/large", "governor.verify number", "governor.step solve"]
    attempt, verification, step = finished.values()
    assert parent(step) is None
    assert parent(attempt) == parent(verification) == identity(step)
    assert [span.kind for span in finished.values()] == [SpanKind.CLIENT, SpanKind.INTERNAL, SpanKind.INTERNAL]
    assert dict(step.attributes or {}) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "desk",
        "gen_ai.conversation.id": "thread 9",
        "governor.step.id": "s-1",
        "governor.step.index": 2,
        "governor.node": "solve",
        "governor.status": "best_so_far",
        "governor.arm": "shadow",
        "governor.decided": "low",
        "governor.rung": "high",
        "governor.attempts": 1,
        "governor.difficulty": 0.61,
        "governor.reason": "nothing left",
        "governor.spent.tokens": 430,
        "governor.spent.micros": 81,
        "governor.spent.millis": 2600,
        "governor.spent.calls": 4,
    }
    assert dict(attempt.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/large",
        "gen_ai.request.max_tokens": 768,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": "large-2026",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 300,
        "gen_ai.usage.output_tokens": 120,
        "gen_ai.usage.reasoning.output_tokens": 90,
        "gen_ai.usage.cache_read.input_tokens": 15,
        "gen_ai.usage.cache_creation.input_tokens": 30,
        "governor.step.id": "s-1",
        "governor.attempt": 2,
        "governor.sample": 0,
        "governor.purpose": "answer",
        "governor.rung": "high",
        "governor.effort": "high",
        "governor.thinking_tokens": 512,
        "governor.mode": "feedback",
        "governor.reason": "rejected: format",
        "governor.stopped": "budget",
        "governor.calls": 3,
        "governor.micros": 77,
    }
    assert dict(verification.attributes or {}) == {
        "gen_ai.evaluation.name": "number",
        "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.evaluation.score.label": "reject",
        "governor.failure": "format",
        "governor.micros": 4,
        "governor.calls": 1,
    }
    assert all(span.status.status_code is StatusCode.UNSET for span in finished.values())


def test_no_text_of_a_prompt_or_answer_is_an_attribute() -> None:
    told = [step_attributes(STEP), call_attributes(CALL), attempt_attributes(ATTEMPT)]
    told += [verdict_attributes(VERDICT), outcome_attributes(OUTCOME)]
    for attributes in told:
        assert not any(text in str(value) for value in attributes.values() for text in (PROMPT, ANSWER, "six sevens"))


def test_what_is_not_known_is_no_attribute() -> None:
    bare = replace(ATTEMPT, reply=None, verdict=None, reason="")
    assert not {"gen_ai.response.model", "gen_ai.response.finish_reasons", "governor.verdict"} & set(
        attempt_attributes(bare)
    )
    local = replace(CALL, rung=replace(RUNG, model="smol", effort=None, temperature=None))
    assert not {"gen_ai.provider.name", "gen_ai.request.temperature", "governor.effort"} & set(call_attributes(local))
    assert "governor.difficulty" not in outcome_attributes(Outcome(step_id="s", status="refused"))


def test_attempts_are_internal_beside_another_instrumentation() -> None:
    spans = Spans(internal=True)
    a_step(spans.tracer)
    assert {span.kind for span in spans.finished().values()} == {SpanKind.INTERNAL}


def test_an_error_marks_its_span_alone() -> None:
    spans = Spans()
    spans.tracer.enter("outer", {})
    spans.tracer.enter("inner", {"none": None})
    spans.tracer.exit({"governor.sent": True}, "BackendTimeoutError")
    spans.tracer.exit({}, "")
    inner, outer = spans.finished()["inner"], spans.finished()["outer"]
    assert (inner.status.status_code, inner.status.description) == (StatusCode.ERROR, "BackendTimeoutError")
    assert inner.attributes == {"error.type": "BackendTimeoutError", "governor.sent": True}
    assert outer.status.status_code is StatusCode.UNSET


def test_an_exception_closes_every_span_it_passes_as_failed() -> None:
    spans = Spans()

    def body() -> Process[None]:
        yield Now()
        raise KeyError("x")

    def perform(effect: Effect) -> None:
        match effect:
            case Enter(name, attributes):
                spans.tracer.enter(name, attributes())
            case Exit(attributes, error):
                spans.tracer.exit(attributes(), error)
            case _:
                assert isinstance(effect, Now)

    process = traced("outer", dict, traced("inner", dict, body(), lambda _: {}), lambda _: {})
    with pytest.raises(KeyError):
        drive(process, perform)
    finished = spans.finished()
    assert [(span.attributes or {})["error.type"] for span in finished.values()] == ["KeyError", "KeyError"]
    assert parent(finished["inner"]) == identity(finished["outer"])
    assert not trace.get_current_span().get_span_context().is_valid


def test_spans_of_other_libraries_nest_inside_ours_and_ours_inside_theirs() -> None:
    spans = Spans()
    other = spans.provider.get_tracer("http client")
    with other.start_as_current_span("request"):
        spans.tracer.enter("step", {})
        with other.start_as_current_span("POST"):
            pass
        spans.tracer.exit({}, "")
        assert trace.get_current_span().get_span_context().span_id != 0
    assert not trace.get_current_span().get_span_context().is_valid
    finished = spans.finished()
    assert parent(finished["POST"]) == identity(finished["step"])
    assert parent(finished["step"]) == identity(finished["request"])


async def test_tasks_do_not_mix_their_spans() -> None:
    spans = Spans()

    async def step(name: str) -> None:
        with spans.span(f"{name} step"):
            await asyncio.sleep(0.001)
            with spans.span(f"{name} call"):
                await asyncio.sleep(0.001)

    await asyncio.gather(*(step(name) for name in "abcd"))
    finished = spans.finished()
    assert len(finished) == 8
    for name in "abcd":
        assert parent(finished[f"{name} step"]) is None
        assert parent(finished[f"{name} call"]) == identity(finished[f"{name} step"])


async def test_a_span_is_not_closed_by_a_task_that_did_not_open_it() -> None:
    spans = Spans()

    async def stranger() -> None:
        spans.tracer.exit({}, "")

    await asyncio.create_task(stranger())
    assert spans.finished() == {}
    with spans.span("own"):
        pass
    assert list(spans.finished()) == ["own"]


@pytest.mark.parametrize("make", [OtelTracer, NullTracer])
def test_tracing_that_nobody_listens_to_leaves_no_span(make: type[OtelTracer | NullTracer]) -> None:
    a_step(make())
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_step_that_nobody_listens_to_closes_no_span_of_one_around_it() -> None:
    spans = Spans()
    with spans.span("outer"):
        outer = trace.get_current_span()
        a_step(OtelTracer())
        assert trace.get_current_span() is outer
        assert spans.finished() == {}
    assert list(spans.finished()) == ["outer"]


def test_a_step_that_nobody_listens_to_touches_no_context() -> None:
    """Python 3.11 can crash where a context variable is set while garbage is collected (cpython issue 148891)."""
    before = copy_context()
    a_step(OtelTracer())
    assert dict(copy_context().items()) == dict(before.items())
