"""OpenTelemetry spans, with the GenAI names written out: the constants of the semconv package are deprecated.

    governor.run APP                       internal; one run of a graph, with its rewinds
      governor.rewind NODE                 internal; marks where the run went back to NODE
    governor.step NODE                     internal; the whole step
      chat MODEL                           client; one attempt (internal beside other GenAI instrumentation)
      governor.attempt RUNG                internal; one attempt whose calls are steps of their own, below it
      governor.verify NAME                 internal; gen_ai.evaluation.*

Source: OpenTelemetry GenAI semantic conventions (gen_ai.*); what they have no name for is governor.*.
The functions are pure and import nothing: prompts, answers and feedback are never attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeAlias

from governor.records import Amount, Attempt, Call, Outcome, Rung, Step, Verdict

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

Attributes: TypeAlias = dict[str, str | bool | int | float | list[str]]


def run_name(app: str) -> str:
    """Name of the span of one run of a graph."""
    return f"governor.run {app}"


def rewind_name(node: str) -> str:
    """Name of the span that marks a rewind to a node."""
    return f"governor.rewind {node}"


def step_name(step: Step) -> str:
    """Name of a step's span."""
    return f"governor.step {step.node}"


def attempt_name(rung: Rung) -> str:
    """Name of an attempt's span: the operation and the model, as the GenAI conventions ask."""
    return f"chat {rung.model}"


def nested_name(rung: Rung) -> str:
    """Name of the span of an attempt that calls no model itself: its calls are steps, whose spans lie below."""
    return f"governor.attempt {rung.id}"


def own(attributes: Mapping[str, Any]) -> Attributes:
    """What no convention has a name for. Tools that add up the tokens of model calls don't see the rest twice."""
    return {name: value for name, value in attributes.items() if not name.startswith("gen_ai.")}


def verify_name(verifier: str) -> str:
    """Name of a verification's span."""
    return f"governor.verify {verifier}"


def step_attributes(step: Step, app: str = "") -> Attributes:
    """What is known of a step when it begins."""
    return _told(
        {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": app,
            "gen_ai.conversation.id": step.session,
            "governor.step.id": step.id,
            "governor.step.index": step.index,
            "governor.node": step.node,
        }
    )


def call_attributes(call: Call) -> Attributes:
    """What is known of a call when it is sent."""
    rung = call.rung
    provider, slash, _ = rung.model.partition("/")
    return _told(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider if slash else "",
            "gen_ai.request.model": rung.model,
            "gen_ai.request.max_tokens": rung.max_tokens,
            "gen_ai.request.temperature": rung.temperature,
            "gen_ai.request.seed": call.seed,
            "governor.step.id": call.step_id,
            "governor.attempt": call.attempt,
            "governor.sample": call.sample,
            "governor.purpose": call.purpose,
            "governor.rung": rung.id,
            "governor.effort": rung.effort,
            "governor.thinking_tokens": rung.thinking_tokens,
        }
    )


def attempt_attributes(attempt: Attempt) -> Attributes:
    """What is known of an attempt when it is over."""
    reply, usage = attempt.reply, attempt.usage
    return _told(
        {
            "gen_ai.response.model": reply.model if reply else "",
            "gen_ai.response.finish_reasons": [reply.finish_reason] if reply else None,
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.thinking_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.written_tokens,
            "governor.attempt": attempt.number,
            "governor.rung": attempt.rung.id,
            "governor.mode": attempt.mode,
            "governor.reason": attempt.reason,
            "governor.stopped": reply.stopped if reply else "",
            "governor.calls": attempt.calls,
            "governor.micros": attempt.micros,
            "error.type": attempt.error.partition(":")[0],
        }
    )


def verdict_attributes(verdict: Verdict) -> Attributes:
    """What a verifier said; its feedback quotes the answer and stays out."""
    return _told(
        {
            "gen_ai.evaluation.name": verdict.verifier,
            "gen_ai.evaluation.score.value": verdict.score,
            "gen_ai.evaluation.score.label": verdict.decision,
            "governor.failure": verdict.failure,
            "governor.micros": verdict.micros,
            "governor.calls": verdict.calls,
        }
    )


def outcome_attributes(outcome: Outcome) -> Attributes:
    """How a step ended and what it used."""
    return _told(
        {
            "governor.status": outcome.status,
            "governor.arm": outcome.arm,
            "governor.decided": outcome.decided,
            "governor.rung": outcome.rung,
            "governor.attempts": len(outcome.attempts),
            "governor.difficulty": outcome.difficulty,
            "governor.reason": outcome.reason,
            **_spent(outcome.spent),
        }
    )


def _spent(spent: Amount) -> Attributes:
    return {
        "governor.spent.tokens": spent.tokens,
        "governor.spent.micros": spent.micros,
        "governor.spent.millis": spent.millis,
        "governor.spent.calls": spent.calls,
    }


def _told(attributes: Mapping[str, Any]) -> Attributes:
    """Without what is not known: OpenTelemetry has no null."""
    return {name: value for name, value in attributes.items() if value is not None and value != ""}


class NullTracer:
    """A Tracer that does nothing."""

    recording = False

    def enter(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Open nothing."""

    def exit(self, attributes: Mapping[str, Any], error: str) -> None:
        """Close nothing."""


_Open: TypeAlias = "tuple[OtelTracer, Span, Token[Context]]"
_open: ContextVar[tuple[_Open, ...]] = ContextVar("governor_open_spans", default=())


class OtelTracer:
    """A Tracer whose spans are current while open: they nest, and instrumented HTTP clients join them.

    Without `tracer_provider` the global one is used, looked up at each span's start, so that it may be set later.
    `internal` makes attempts internal spans, for use beside another instrumentation that opens its own `chat`
    client spans: tools that count client spans would count each call twice. A span must be closed in the thread
    or task that opened it; `exit` where nothing is open does nothing. While there is no provider nothing is opened.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, internal: bool = False) -> None:
        from opentelemetry import context, trace

        self._trace = trace
        self._context = context
        self._tracer = trace.get_tracer("governor", tracer_provider=tracer_provider)
        self._given = tracer_provider is not None
        self._chat_kind = trace.SpanKind.INTERNAL if internal else trace.SpanKind.CLIENT

    @property
    def recording(self) -> bool:
        """Whether a provider was given, or set for the process."""
        return self._given or not isinstance(self._trace.get_tracer_provider(), self._trace.ProxyTracerProvider)

    def enter(self, name: str, attributes: Mapping[str, Any]) -> None:
        if not self.recording:  # the API's own empty spans would cost a tenth of a step
            return
        is_chat = attributes.get("gen_ai.operation.name") == "chat"
        kind = self._chat_kind if is_chat else self._trace.SpanKind.INTERNAL
        span = self._tracer.start_span(name, kind=kind, attributes=_told(attributes))
        token = self._context.attach(self._trace.set_span_in_context(span))
        _open.set((*_open.get(), (self, span, token)))

    def exit(self, attributes: Mapping[str, Any], error: str) -> None:
        opened = _open.get()
        if not opened or opened[-1][0] is not self:  # nothing of this tracer's is open: it recorded nothing then
            return
        _open.set(opened[:-1])
        _, span, token = opened[-1]
        self._context.detach(token)
        if span.is_recording():
            span.set_attributes(_told(attributes))
            if error:
                span.set_attribute("error.type", error)
                span.set_status(self._trace.StatusCode.ERROR, error)
        span.end()
