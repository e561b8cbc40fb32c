"""Tools whose effects outlive a rewind: a call that was made is not made twice.

    ToolNode(tools, wrap_tool_call=remembered(governor), awrap_tool_call=aremembered(governor))

Calls are known by tool and arguments. What became of them is kept beside the run's budget, outside of the graph's
state.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from langchain_core.load import dumps, loads
from langchain_core.messages import ToolMessage
from langchain_core.runnables.config import ensure_config
from langgraph.types import Command

from governor.facade import Governor
from governor.policy import tool_rule
from governor_langgraph.attempt import running
from governor_langgraph.place import place_of
from governor_langgraph.trail import Made, Past, Trail, trail_of

Answer: TypeAlias = ToolMessage | Command[Any]
Handler: TypeAlias = Callable[[Any], Answer]
AsyncHandler: TypeAlias = Callable[[Any], Awaitable[Answer]]


def remembered(governor: Governor) -> Callable[[Any, Handler], Answer]:
    """A `wrap_tool_call` for ToolNode: the policy's `tools` say which calls come again after a rewind."""

    def called(request: Any, handler: Handler) -> Answer:
        with _remembering(governor, request) as memory:
            if memory.answer is None:
                memory.answer = handler(request)
        return memory.told

    return called


def aremembered(governor: Governor) -> Callable[[Any, AsyncHandler], Awaitable[Answer]]:
    """The same for `awrap_tool_call`."""

    async def called(request: Any, handler: AsyncHandler) -> Answer:
        with _remembering(governor, request) as memory:
            if memory.answer is None:
                memory.answer = await handler(request)
        return memory.told

    return called


@dataclass(slots=True)
class _Memory:
    """One call: its answer, as soon as there is one. Found, it need not be made."""

    answer: Answer | None = None

    @property
    def told(self) -> Answer:
        assert self.answer is not None, "a call that was found or made has its answer"
        return self.answer


@contextmanager
def _remembering(governor: Governor, request: Any) -> Generator[_Memory, None, None]:
    config, asked = ensure_config(), request.tool_call
    trail, rule = trail_of(config), tool_rule(governor.policy, asked["name"])
    if trail is None or (rule.on_rewind == "rerun" and rule.max_calls is None):
        yield _Memory()
        return
    attempt = running()  # an agent's own supersteps count for themselves: a rewind goes by those of the graph around it
    index = attempt.step.index if attempt else place_of(config).index
    made = Made(asked["name"], json.dumps(asked["args"], sort_keys=True, default=str), index)
    memory = _Memory()
    before = _taken(trail, made) if rule.on_rewind != "rerun" else None
    if before is not None:
        memory.answer = _again(before, rule.on_rewind, asked)
        yield memory
        return
    if rule.max_calls is not None and _count(trail.past, made.tool) >= rule.max_calls:
        memory.answer = _refused(asked, f"it may be called {rule.max_calls} times in one run, and was")
        yield memory
        return
    trail.change(lambda past: replace(past, made=(*past.made, made)))  # before it acts: a crash leaves its trace
    yield memory
    ended = replace(made, result=_written(memory.answer))
    trail.change(lambda past: replace(past, made=_replaced(past.made, made, ended)))


def _taken(trail: Trail, made: Made) -> Made | None:
    """A call that an earlier branch made alike, which counts as made on this one from now on."""
    found: list[Made] = []

    def take(past: Past) -> Past:
        alike = next((one for one in past.undone if (one.tool, one.arguments) == (made.tool, made.arguments)), None)
        if alike is None:
            return past
        found[:] = [alike]
        rest = list(past.undone)
        rest.remove(alike)
        return replace(past, undone=tuple(rest), made=(*past.made, replace(alike, index=made.index)))

    trail.change(take)
    return found[0] if found else None


def _again(before: Made, how: str, asked: Any) -> Answer:
    """What the model hears of a call that was made before a rewind."""
    if how == "forbid":
        return _refused(asked, "it was called so before, and may not be repeated")
    if before.result is None:
        return _refused(asked, "it was called so before and broke off: whether it took effect is unknown")
    answer: Answer = loads(before.result, allowed_objects="messages")
    return answer.model_copy(update={"tool_call_id": asked["id"]}) if isinstance(answer, ToolMessage) else answer


def _refused(asked: Any, why: str) -> ToolMessage:
    text = f"{asked['name']} was not called: {why}."
    return ToolMessage(text, name=asked["name"], tool_call_id=asked["id"], status="error")


def _count(past: Past, tool: str) -> int:
    return sum(one.tool == tool for one in (*past.made, *past.undone))


def _replaced(made: tuple[Made, ...], old: Made, new: Made) -> tuple[Made, ...]:
    at = next(place for place, one in enumerate(made) if one == old)
    return *made[:at], new, *made[at + 1 :]


def _written(answer: Any) -> str | None:
    """A message as text; None for a Command, whose effects on the graph's state a rewind has to make anew."""
    return dumps(answer) if isinstance(answer, ToolMessage) else None
