"""Chat models that know nothing of Governor take a governed node's rung: a patch of LangChain's base class.

    govern(graph, policy, patch=True)

Outside of governed nodes a patched model is as before. Inside, each call is a part of the node's step: it reserves what
it needs, and is made with the rung's arguments (`governor_langgraph.foreign`). `stream` and `astream` give one piece.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.config import ensure_config

from governor.drivers import adrive, drive
from governor.effects import Process
from governor.errors import NoAnswerError
from governor.records import Call, Outcome, Reply
from governor_langgraph.attempt import NodeAttempt, running
from governor_langgraph.chat import BackendChat
from governor_langgraph.faults import faults_of
from governor_langgraph.foreign import named, settings
from governor_langgraph.messages import messages_of, reply_of, tools_of, usage_of
from governor_langgraph.watcher import told, was_told

_lock = threading.Lock()
_originals: dict[str, Any] = {}


def patch() -> None:
    """Patches LangChain's base class of chat models; a second time does nothing."""
    with _lock:
        if _originals:
            return
        for name, made in _PATCHES.items():
            _originals[name] = getattr(BaseChatModel, name)
            setattr(BaseChatModel, name, made(_originals[name]))


def unpatch() -> None:
    """Takes the patch back; without one it does nothing."""
    with _lock:
        for name, original in _originals.items():
            setattr(BaseChatModel, name, original)
        _originals.clear()


@dataclass(slots=True)
class _Part:
    """One call of a foreign model as a part of a node's attempt. Mutable: it keeps what each try returned."""

    model: BaseChatModel
    attempt: NodeAttempt
    messages: Sequence[BaseMessage]
    kwargs: dict[str, Any]
    results: list[tuple[Reply, LLMResult]] = field(default_factory=list[tuple[Reply, LLMResult]])

    def process(self) -> Process[Outcome]:
        governor = self.attempt.governor
        asked = governor.step(messages_of(self.messages), tools=tuple(tools_of(self.kwargs.get("tools") or ())))
        step, bound = self.attempt.within(asked)
        return governor.process(step, policy_checks=False, **bound)

    def arguments(self, call: Call) -> dict[str, Any]:
        """What the model was bound to, with the rung over it."""
        policy = self.attempt.governor.policy
        if not self.attempt.governed:
            return self.kwargs
        return {**self.kwargs, **named(self.model, call.rung), **settings(self.model, call.rung, policy)}

    def reply(self, result: LLMResult, began: float) -> Reply:
        generation = result.generations[0][0]
        assert isinstance(generation, ChatGeneration), "a chat model generates messages"
        message = generation.message
        reply = reply_of(message, usage_of(getattr(message, "usage_metadata", None)), time.monotonic() - began)
        self.results.append((reply, result))
        return reply

    def shipped(self, outcome: Outcome) -> LLMResult:
        self.attempt.add(outcome)
        for reply, result in self.results:
            if reply is outcome.reply:
                return result
        raise NoAnswerError(outcome)


def _governs(model: BaseChatModel) -> NodeAttempt | None:
    """The attempt whose rung a model has to take; None where it has none to take, or was told already."""
    return None if isinstance(model, BackendChat) or was_told() else running()


def _generate(original: Callable[..., LLMResult]) -> Callable[..., LLMResult]:
    @functools.wraps(original)
    def generate(self: BaseChatModel, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        attempt = _governs(self)
        if attempt is None:
            return original(self, messages, *args, **kwargs)
        ports = attempt.governor.ports()

        def one(part: _Part) -> LLMResult:
            def answer(call: Call) -> Reply:
                began = time.monotonic()
                with told(), faults_of(call, began):
                    result = original(self, [list(part.messages)], *args, **part.arguments(call))
                return part.reply(result, began)

            return part.shipped(drive(part.process(), replace(ports, call=answer).perform))

        return _joined([one(_Part(self, attempt, chat, kwargs)) for chat in messages])

    return generate


def _agenerate(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def agenerate(self: BaseChatModel, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        attempt = _governs(self)
        if attempt is None:
            plain: LLMResult = await original(self, messages, *args, **kwargs)
            return plain
        ports = attempt.governor.async_ports()

        async def one(part: _Part) -> LLMResult:
            async def answer(call: Call) -> Reply:
                began = time.monotonic()
                with told(), faults_of(call, began):
                    result = await original(self, [list(part.messages)], *args, **part.arguments(call))
                return part.reply(result, began)

            return part.shipped(await adrive(part.process(), replace(ports, call=answer).perform))

        return _joined([await one(_Part(self, attempt, chat, kwargs)) for chat in messages])

    return agenerate


def _stream(original: Callable[..., Iterator[AIMessageChunk]]) -> Callable[..., Iterator[AIMessageChunk]]:
    @functools.wraps(original)
    def stream(self: BaseChatModel, input: Any, config: Any = None, **kwargs: Any) -> Iterator[AIMessageChunk]:  # noqa: A002
        if _governs(self) is None:
            yield from original(self, input, config, **kwargs)
        else:
            yield _whole(self.invoke(input, ensure_config(config), **kwargs))

    return stream


def _astream(original: Callable[..., AsyncIterator[AIMessageChunk]]) -> Callable[..., AsyncIterator[AIMessageChunk]]:
    @functools.wraps(original)
    async def astream(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - its name
        config: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        if _governs(self) is None:
            async for chunk in original(self, input, config, **kwargs):
                yield chunk
        else:
            yield _whole(await self.ainvoke(input, ensure_config(config), **kwargs))

    return astream


_PATCHES: dict[str, Callable[..., Any]] = {
    "generate": _generate,
    "agenerate": _agenerate,
    "stream": _stream,
    "astream": _astream,
}


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    """Results of several chats as the one that was asked for."""
    if len(results) == 1:
        return results[0]
    return LLMResult(
        generations=[one.generations[0] for one in results],
        llm_output=results[0].llm_output if results else None,
        run=[run for one in results for run in one.run or ()] or None,
    )


def _whole(message: BaseMessage) -> AIMessageChunk:
    """A message as the only piece of a stream."""
    known = AIMessageChunk.model_fields
    fields: dict[str, Any] = {name: value for name, value in message.model_dump().items() if name in known}
    return AIMessageChunk.model_validate({**fields, "type": "AIMessageChunk", "chunk_position": "last"})
