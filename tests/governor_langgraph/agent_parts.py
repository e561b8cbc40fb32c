"""Agents of LangChain under policies of two rungs, whose models answer from scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import SecretStr

from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import Policy, policy_from
from governor.records import Attempt, Outcome, Reply, Step, ToolCall, Usage
from governor.testing import ScriptedBackend
from governor.testing.scripted import Script
from governor_langgraph.middleware import GovernorMiddleware

USED = Usage(10, 5)
KEY = SecretStr("x")


@tool
def lookup(city: str) -> str:
    """Look up the population of a city."""
    return f"{city}: 2 million"


@tool
def send_mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


class Kept:
    """A sink that keeps what is recorded."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.steps: list[Step] = []

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        if isinstance(record, Outcome):
            self.outcomes.append(record)
            self.steps.append(step)

    def close(self) -> None:
        """Nothing to free."""


class OwnModel(GenericFakeChatModel):
    """An agent's own chat model, which takes tools and heeds none."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        del tools, kwargs
        return self


def own_model(*answers: str | AIMessage) -> OwnModel:
    """A model that is never asked, unless it has answers."""
    said = [AIMessage(one) if isinstance(one, str) else one for one in answers]
    return OwnModel(messages=iter(said))


def policy(**more: Any) -> Policy:
    """Two rungs of two models; a dial at which the small one is asked first."""
    base = {
        "version": 1,
        "app": "desk",
        "dial": 0.5,
        "models": {"small": {"price": {"input": 1, "output": 1}}, "large": {"price": {"input": 3, "output": 3}}},
        "ladder": [
            {"id": "low", "model": "small", "answer_tokens": 100},
            {"id": "high", "model": "large", "answer_tokens": 200},
        ],
        "backtrack": {"modes": ["feedback", "fresh"]},
    }
    return policy_from({**base, **more})


class Desk:
    """A governor, what its models were asked, and what it recorded."""

    def __init__(self, script: Script, **more: Any) -> None:
        self.backend, self.kept = ScriptedBackend(script), Kept()
        self.ledger: Any = open_ledger("memory://")
        self.governor = Governor(policy(**more), backend=self.backend, ledger=self.ledger, sinks=[self.kept])

    def agent(self, *, middleware: Iterable[Any] = (), tools: Sequence[Any] = (), **more: Any) -> Any:
        """An agent whose first middleware governs it; `governing` are that one's options."""
        governing = GovernorMiddleware(self.governor, **more.pop("governing", {}))
        model = more.pop("model", None) or own_model()
        return create_agent(model, tools, middleware=[governing, *middleware], **more)

    @property
    def rungs(self) -> list[str]:
        """The rungs that were asked, in order."""
        return [call.rung.id for call in self.backend.calls]

    def nothing_is_held(self) -> bool:
        return all(one.state != "open" for one in self.ledger.reservations())


def said(text: str = "", *calls: tuple[str, dict[str, Any] | str], **more: Any) -> Reply:
    """A reply of 15 tokens that calls tools."""
    made = tuple(
        ToolCall(id=f"call_{name}_{at}", name=name, arguments=args if isinstance(args, str) else json.dumps(args))
        for at, (name, args) in enumerate(calls)
    )
    finish = "tool_calls" if calls else "stop"
    return Reply(text=text, tool_calls=made, finish_reason=finish, usage=USED, model="scripted", **more)


def asked(text: str = "How many people live in Paris?") -> Any:
    """An agent's input."""
    return {"messages": [{"role": "user", "content": text}]}


def by_rung(low: Callable[[], Any], high: Callable[[], Any]) -> Script:
    return lambda call: low() if call.rung.id == "low" else high()


def shown(pieces: Iterable[Any]) -> list[tuple[str | None, str]]:
    """What `stream_mode="messages"` shows of models: (id, text) of each piece, without tools' messages."""
    return [(one.id, str(one.content)) for one, _ in pieces if isinstance(one, AIMessage | AIMessageChunk)]


def dangling(messages: Sequence[BaseMessage]) -> list[str | None]:
    """Tool calls that nobody answered."""
    answered = {one.tool_call_id for one in messages if isinstance(one, ToolMessage)}
    made = [one for one in messages if isinstance(one, AIMessage)]
    asked = [call["id"] for one in made for call in one.tool_calls] + [
        broken["id"] for one in made for broken in one.invalid_tool_calls
    ]
    return [one for one in asked if one not in answered]
