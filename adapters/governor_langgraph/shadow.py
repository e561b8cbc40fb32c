"""A model call that Governor only watches: the agent's own model answers, and what was decided is recorded beside."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from langchain.agents.middleware import ExtendedModelResponse, ModelResponse
from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from governor.drivers import adrive, drive
from governor.effects import Process
from governor.errors import NoAnswerError
from governor.facade import Governor
from governor.protocols import Terms
from governor.records import Call, Outcome, Reply, Step, Usage
from governor_langgraph.messages import reply_of, usage_of
from governor_langgraph.run import Left, passed_on, unbound
from governor_langgraph.structured import wanting


@dataclass(slots=True)
class Shadow:
    """A watched call. Mutable: it keeps the response, which the agent gets as it came."""

    governor: Governor
    step: Step
    terms: Terms
    response_format: Any
    response: Any = None
    began: float = field(default_factory=time.monotonic)

    def process(self) -> Process[Outcome]:
        """The loop of this step: nothing of ours refuses it, and the model is asked once, whatever the rung samples."""
        once = tuple(replace(rung, samples=1) for rung in self.terms.ladder)
        return self.governor.process(self.step, granted=replace(unbound(self.terms), ladder=once))

    def given(self, outcome: Outcome) -> Any:
        """What the agent gets. NoAnswerError where its own model failed as a backend does."""
        if self.response is None:
            raise NoAnswerError(outcome)
        return self.response

    def reply(self, response: Any) -> Reply:
        """The reply that a response comes to."""
        self.response = response
        message = spoken(response)
        seconds = time.monotonic() - self.began
        if message is None:
            return Reply(text="", usage=Usage(), usage_known=True, seconds=seconds)
        return reply_of(message, usage_of(message.usage_metadata), seconds)


def watch(shadow: Shadow, ask: Callable[[], Any]) -> Any:
    """Runs the call, blocking. Whatever it raises leaves as it came, after what it spent is booked."""

    def answer(_: Call) -> Reply:
        with left_free():
            return shadow.reply(ask())

    ports = replace(shadow.governor.ports(), call=answer)
    with passed_on(), wanting(shadow.response_format):
        return shadow.given(drive(shadow.process(), ports.perform))


async def awatch(shadow: Shadow, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The same, awaiting."""

    async def answer(_: Call) -> Reply:
        with left_free():
            return shadow.reply(await ask())

    ports = replace(shadow.governor.async_ports(), call=answer)
    with passed_on(), wanting(shadow.response_format):
        return shadow.given(await adrive(shadow.process(), ports.perform))


@contextmanager
def left_free() -> Generator[None, None, None]:
    """An interrupt of the graph leaves the loop as what it is: no failure."""
    try:
        yield
    except GraphBubbleUp as cause:
        raise Left(cause) from cause


def spoken(response: Any) -> AIMessage | None:
    """What the model said, whatever form middleware gave its response."""
    if isinstance(response, ExtendedModelResponse):
        response = response.model_response
    if isinstance(response, ModelResponse):
        return next((one for one in response.result if isinstance(one, AIMessage)), None)
    return response if isinstance(response, AIMessage) else None
