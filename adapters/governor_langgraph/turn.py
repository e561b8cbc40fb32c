"""One model call of an agent: what its step is told, the model that answers it, and how it ended."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.errors import GraphBubbleUp
from pydantic import InstanceOf

from governor.errors import NoAnswerError
from governor.policy import Policy
from governor.records import Outcome, Usage
from governor_langgraph.chat import Asked, GovernedChat
from governor_langgraph.messages import tools_of
from governor_langgraph.source import values_of
from governor_langgraph.structured import CHECK, wanting
from governor_langgraph.toolcalls import calls_left, counted, tool_features

TOOL_CHECK_FALSE_ACCEPT = 0.9
"""The tool check judges tool calls, and an agent's last answer has none: most wrong answers pass it."""


class Ended(GraphBubbleUp):
    """A step that was refused, on its way through middleware that retries errors or falls back from them.

    Those let interrupts of the graph pass, and so this: what the policy refused is not theirs to mend.
    """

    def __init__(self, error: NoAnswerError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(slots=True, eq=False, repr=False)
class Turn:
    """What is known of one model call of an agent. Mutable: it keeps how each step of it ended."""

    policy: Policy
    state: Mapping[str, Any]
    response_format: Any
    verify_tools: bool
    so_far: Mapping[str, int]
    bound: Mapping[str, Any]
    outcomes: list[Outcome] = field(default_factory=list[Outcome])

    @classmethod
    def of(cls, request: ModelRequest[Any], policy: Policy, *, verify_tools: bool, governed: bool) -> Turn:
        """The turn of a request; `governed` where its arm is drawn already."""
        bound = {"mode": "on", "share": 1.0} if governed else {}
        state: Mapping[str, Any] = request.state
        return cls(policy, features(request), request.response_format, verify_tools, counted(state), bound)

    def offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """The request without the tools that may not be called any more.

        Where none is left to call, those that were called stay: providers refuse a history of tools that are not there.
        """
        every = tools_of(request.tools)
        left = calls_left(self.policy, _names(every), self.so_far)
        still = [tool for tool, name in zip(request.tools, _names(every), strict=True) if left.get(name) != 0]
        if len(still) == len(every):
            return request
        if still or request.response_format is not None:
            return request.override(tools=still)
        return request.override(tool_choice="none")

    def context(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A step's fields, given its tools and schema."""
        return {**asked, "state": self.state, "checks": self._checks(asked["tools"])}

    def _checks(self, tools: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        checks: list[Mapping[str, Any]] = []
        if self.response_format is not None:
            checks.append(CHECK)
        if tools and self.verify_tools:
            left = calls_left(self.policy, {*_names(tools), *self.so_far}, self.so_far)
            options = {"whole": False, "left": left, "false_accept": TOOL_CHECK_FALSE_ACCEPT}
            checks.append({"tool_arguments": options})
        return tuple(checks)

    def left(self, message: AIMessage) -> dict[str, int]:
        """How often each tool that a message calls may still be called."""
        return calls_left(self.policy, {call["name"] for call in message.tool_calls}, self.so_far)

    @property
    def usage(self) -> Usage:
        """What all of it has come to, steps without an answer and verifiers too."""
        return sum((one.usage + one.verifier_usage for one in self.outcomes), Usage())

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """While the model answers. NoAnswerError where it gives none."""
        try:
            with wanting(self.response_format):
                yield
        except Ended as ended:
            raise ended.error from ended.error.__cause__


class TurnChat(GovernedChat):
    """The model of one turn."""

    turn: InstanceOf[Turn]

    def _asked(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> Asked:
        governor, step, bound = super()._asked(messages, kwargs)
        return governor, step, {**self.turn.bound, **bound}

    def _context(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.turn.context(asked)

    def _ended(self, outcome: Outcome | None, stop: Sequence[str] | None) -> AIMessage:
        if outcome is not None:
            self.turn.outcomes.append(outcome)
        try:
            return super()._ended(outcome, stop)
        except NoAnswerError as error:
            if error.outcome.status == "refused":
                raise Ended(error) from error
            raise


def features(request: ModelRequest[Any]) -> dict[str, Any]:
    """What an agent's state and context tell of a step: their plain values, and what became of tools."""
    context = request.runtime.context if request.runtime else None
    state: Mapping[str, Any] = request.state
    told = {**values_of(context), **state}
    plain = {
        name: value
        for name, value in told.items()
        if isinstance(value, str | int | float | bool) and not name.startswith("governor_")
    }
    return {**plain, **tool_features(request.messages)}


def _names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(tool.get("function", tool).get("name", "")) for tool in tools]
