"""Whether an agent's answer is the structured response that was asked for: read as LangChain itself will read it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain.agents.structured_output import (
    AutoStrategy,
    OutputToolBinding,
    ProviderStrategy,
    ProviderStrategyBinding,
    ToolStrategy,
)
from langchain_core.messages import AIMessage

from governor.records import Reply, Step, Verdict
from governor.verify.structure import schema_errors, validator
from governor_langgraph.messages import message_of

CHECK = {"callable": f"{__name__}:parsed"}
"""The check as a step states it."""

_wanted: ContextVar[Any] = ContextVar("governor_langgraph.structured")


@contextmanager
def wanting(response_format: Any) -> Generator[None, None, None]:
    """Answers that are checked meanwhile in this context, and in contexts copied from it, must be of this format."""
    token = _wanted.set(response_format)
    try:
        yield
    finally:
        _wanted.reset(token)


def parsed(step: Step, reply: Reply) -> Verdict:
    """Accepts a reply that LangChain can read as the response format of this agent, or that calls other tools."""
    message = message_of(reply, reply.usage, {})
    strategy = _strategy(_wanted.get(), provider=step.response_schema is not None)
    try:
        why = _unread(strategy, message)
    except Exception as cause:  # noqa: BLE001 - LangChain and a schema's own validators raise what they like
        why = f"{type(cause).__name__}: {cause}"
    if why:
        return Verdict(decision="reject", verifier="structured", failure="format", feedback=why)
    return Verdict(decision="accept", verifier="structured")


def _strategy(wanted: Any, *, provider: bool) -> ToolStrategy[Any] | ProviderStrategy[Any]:
    """The strategy itself, or the one that LangChain chose for a bare schema: then the call has it, or not."""
    if isinstance(wanted, ToolStrategy | ProviderStrategy):
        return wanted
    schema = wanted.schema if isinstance(wanted, AutoStrategy) else wanted
    return ProviderStrategy(schema) if provider else ToolStrategy(schema)


def _unread(strategy: ToolStrategy[Any] | ProviderStrategy[Any], message: AIMessage) -> str:
    """Why a message is not the response; empty if it is. What LangChain raises is raised."""
    if isinstance(strategy, ProviderStrategy):
        return "" if message.tool_calls else _unread_text(strategy, message)
    bindings = {spec.name: OutputToolBinding.from_schema_spec(spec) for spec in strategy.schema_specs}
    answers = [call for call in message.tool_calls if call["name"] in bindings]
    if len(answers) > 1:
        return f"Answer once: {len(answers)} structured answers were given"
    if not message.tool_calls:
        return f"Answer by calling the tool {' or '.join(sorted(bindings))}"
    for call in answers:
        bindings[call["name"]].parse(call["args"])
    return ""


def _unread_text(strategy: ProviderStrategy[Any], message: AIMessage) -> str:
    found = ProviderStrategyBinding.from_schema_spec(strategy.schema_spec).parse(message)
    if isinstance(strategy.schema, dict):  # LangChain takes what comes for a bare JSON Schema
        return "; ".join(schema_errors(validator(strategy.schema), found))
    return ""
