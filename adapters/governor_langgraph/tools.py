"""Tools whose effects outlive a rewind: a call that was made is not made twice.

    ToolNode(tools, wrap_tool_call=remembered(governor), awrap_tool_call=aremembered(governor))

Calls are known by tool and arguments. What became of them is kept beside the run's budget, outside of the graph's
state. A call that raised, or died with its process, has broken off: whether it took effect is not known. Where calls
are replayed the model is told so in place of an answer, and asks anew if it wants to. One that was interrupted has not
been made.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, TypeAlias

from langchain_core.messages import ToolMessage
from langchain_core.runnables.config import ensure_config
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from governor.facade import Governor
from governor.policy import ToolRule, tool_rule
from governor_langgraph.attempt import running
from governor_langgraph.past import Made, Past
from governor_langgraph.place import Place, place_of
from governor_langgraph.trail import Trail, trail_of

Answer: TypeAlias = ToolMessage | Command[Any]
Handler: TypeAlias = Callable[[Any], Answer]
AsyncHandler: TypeAlias = Callable[[Any], Awaitable[Answer]]

_SERDE: Final = JsonPlusSerializer()  # what a tool may put into the graph's state, its checkpoints can hold


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be done about a call: it was made `before`, it is `new`, or (neither) there were too many of it."""

    before: Made | None = None
    new: Made | None = None


@contextmanager
def _remembering(governor: Governor, request: Any) -> Generator[_Memory, None, None]:
    config, call = ensure_config(), request.tool_call
    trail, rule = trail_of(config), tool_rule(governor.policy, call["name"])
    if trail is None or (rule.on_rewind == "rerun" and rule.max_calls is None):
        yield _Memory()
        return
    asked = _asked(trail, rule, place_of(config), call)
    if asked.new is None:
        yield _Memory(_untaken(trail, rule, asked.before, call))
        return
    memory = _Memory()
    try:
        yield memory
    except GraphBubbleUp:
        number = asked.new.number
        trail.change(lambda past: replace(past, made=tuple(one for one in past.made if one.number != number)))
        raise
    trail.keep(asked.new, _written(memory.told))


def _asked(trail: Trail, rule: ToolRule, place: Place, call: Any) -> _Asked:
    """Finds a call or notes it, before it acts: a crash leaves its trace. Nothing comes between the two."""
    found = _Asked()

    def ask(past: Past) -> Past:
        nonlocal found
        mine = _made(past, place, call)
        before = None if rule.on_rewind == "rerun" else _alike(past, mine)
        if before is not None:
            found = _Asked(before=before)
            return _taken(past, before, mine) if rule.on_rewind == "replay" else past
        if rule.max_calls is not None and sum(one.tool == mine.tool for one in past.calls) >= rule.max_calls:
            return past
        found = _Asked(new=mine)
        return replace(past, made=(*past.made, mine))

    trail.change(ask)
    return found


def _made(past: Past, place: Place, call: Any) -> Made:
    """A call as it is known: by a digest of its arguments, which may be long, and no one else's to read."""
    arguments = json.dumps(call["args"], sort_keys=True, default=str)
    digest = sha256(arguments.encode()).hexdigest()
    number = 1 + max((one.number for one in past.calls), default=0)
    attempt = running()
    tried = attempt.number if attempt else 1
    return Made(number, call["name"], digest, call["id"], place.checkpoint, place.task, past.turn, tried)


def _alike(past: Past, mine: Made) -> Made | None:
    """The first call of the same that waits to be asked for again."""
    again = (one for one in past.made if one.comes_again(mine))
    waiting = sorted((*past.undone, *again), key=lambda one: one.number)
    return next((one for one in waiting if (one.tool, one.arguments) == (mine.tool, mine.arguments)), None)


def _taken(past: Past, before: Made, mine: Made) -> Past:
    """The call counts as made on this branch from now on."""
    here = replace(before, checkpoint=mine.checkpoint, task=mine.task, turn=mine.turn, attempt=mine.attempt)
    rest = [tuple(one for one in calls if one.number != before.number) for calls in (past.made, past.undone)]
    return replace(past, made=(*rest[0], here), undone=rest[1])


def _untaken(trail: Trail, rule: ToolRule, before: Made | None, call: Any) -> Answer:
    """What the model hears of a call that is not made now."""
    if before is None:
        return _refused(call, f"it may be called {rule.max_calls} times in one run, and was")
    if rule.on_rewind == "forbid":
        return _refused(call, "it was called so before, and may not be repeated")
    if not before.ended:
        return _refused(call, "it was called so before and broke off: whether it took effect is unknown")
    result = trail.result(before)
    if not result:
        return _refused(call, "it was called so before, and what it answered was not kept")
    answer: Answer = _renamed(_read(result), before.call, call["id"])
    return answer


def _refused(call: Any, why: str) -> ToolMessage:
    text = f"{call['name']} was not called: {why}."
    return ToolMessage(text, name=call["name"], tool_call_id=call["id"], status="error")


def _written(answer: Answer) -> bytes:
    """An answer as it is kept; nothing of one that no checkpoint could hold either."""
    try:
        kind, data = _SERDE.dumps_typed(answer)
    except (TypeError, ValueError):
        return b""
    return kind.encode() + b"\n" + data


def _read(kept: bytes) -> Any:
    kind, _, data = kept.partition(b"\n")
    return _SERDE.loads_typed((kind.decode(), data))


def _renamed(answer: Any, old: str, new: str) -> Any:
    """The answer to another call: that the model makes it again, it does under another id."""
    if isinstance(answer, ToolMessage):
        return answer.model_copy(update={"tool_call_id": new}) if answer.tool_call_id == old else answer
    if isinstance(answer, Command):
        return replace(answer, update=_renamed(answer.update, old, new))
    if isinstance(answer, dict):
        return {name: _renamed(value, old, new) for name, value in answer.items()}
    return [_renamed(one, old, new) for one in answer] if isinstance(answer, list) else answer
