"""LangChainBackend: chat models of an application's own answer for the models that a policy names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import var_child_runnable_config

from governor.backends import Backends, model_options
from governor.errors import BackendReplyError
from governor.plan.messages import messages_of
from governor.policy import Policy
from governor.protocols import Backend, Delta
from governor.records import Call, Reply, Rung
from governor_langgraph.faults import faults_of
from governor_langgraph.foreign import asking, settings
from governor_langgraph.messages import reply_of, tools_of, usage_of


class LangChainBackend:
    """A Backend of LangChain chat models by the policy's model names; other models have the backends of their names.

    Each model takes a rung as `governor_langgraph.foreign.settings` says. Calls are made without LangChain's callbacks.
    A blocking call ends no earlier than the model's own timeout; an awaited one is cancelled at the call's.
    """

    def __init__(self, policy: Policy, models: Mapping[str, BaseChatModel], others: Backend | None = None) -> None:
        self._policy, self._models = policy, dict(models)
        self._others: Backend = others or Backends(model_options(policy))

    def call(self, call: Call) -> Reply:
        model = self._models.get(call.rung.model)
        if model is None:
            return self._others.call(call)
        began = time.monotonic()
        with _asking(call, began):
            return _reply(self._bound(model, call).invoke(_messages(call)), began)

    async def acall(self, call: Call) -> Reply:
        model = self._models.get(call.rung.model)
        if model is None:
            return await self._others.acall(call)
        began = time.monotonic()
        with _asking(call, began):
            async with asyncio.timeout(call.timeout):
                return _reply(await self._bound(model, call).ainvoke(_messages(call)), began)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        model = self._models.get(call.rung.model)
        if model is None:
            yield from self._others.stream(call)
            return
        began, whole = time.monotonic(), None
        with _asking(call, began):
            pieces = iter(self._bound(model, call, streamed=True).stream(_messages(call)))
        while True:
            with _asking(call, began):
                chunk = next(pieces, None)
            if chunk is None:
                break
            whole = _joined(whole, chunk)
            yield _delta(chunk)
        yield _reply(_ended(whole, call), began)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        model = self._models.get(call.rung.model)
        if model is None:
            async for piece in self._others.astream(call):
                yield piece
            return
        began, whole = time.monotonic(), None
        with _asking(call, began):
            pieces = aiter(self._bound(model, call, streamed=True).astream(_messages(call)))
        while True:
            with _asking(call, began):
                async with asyncio.timeout(_left(call, began)):
                    chunk = await anext(pieces, None)
            if chunk is None:
                break
            whole = _joined(whole, chunk)
            yield _delta(chunk)
        yield _reply(_ended(whole, call), began)

    def continues(self, rung: Rung) -> bool:
        return rung.model not in self._models and self._others.continues(rung)

    def close(self) -> None:
        self._others.close()

    def _bound(self, model: BaseChatModel, call: Call, *, streamed: bool = False) -> Runnable[Any, AIMessage]:
        """The model with the rung, tools and schema of a call."""
        told = {**settings(model, call.rung, self._policy), **asking(model, call, streamed=streamed)}
        if call.response_schema is not None:
            schema = {"title": "answer", **call.response_schema}  # LangChain names it by its title
            told["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        if call.tools:
            chosen: Any = call.tool_choice
            choice = {"tool_choice": chosen} if chosen is not None else {}
            offered = tools_of([tool.get("function", tool) for tool in call.tools], strict=told.pop("strict", None))
            return model.bind_tools(offered, **choice, **told)
        return model.bind(**told)


def _messages(call: Call) -> list[BaseMessage]:
    return convert_to_messages(messages_of(call))


def _reply(message: AIMessage, began: float) -> Reply:
    return reply_of(message, usage_of(message.usage_metadata), time.monotonic() - began)


def _delta(chunk: BaseMessage) -> Delta:
    return Delta(text=str(chunk.text), thinking=str(chunk.additional_kwargs.get("reasoning_content") or ""))


def _joined(whole: AIMessageChunk | None, chunk: Any) -> AIMessageChunk:
    joined: AIMessageChunk = chunk if whole is None else whole + chunk
    return joined


def _ended(whole: AIMessageChunk | None, call: Call) -> AIMessageChunk:
    if whole is None:
        raise BackendReplyError("the stream ended without an answer", model=call.rung.model)
    return whole


def _left(call: Call, began: float) -> float:
    return max(0.0, call.timeout - (time.monotonic() - began))


@contextmanager
def _asking(call: Call, began: float) -> Generator[None, None, None]:
    """While a model is asked: no handler hears of it, and errors of providers are Governor's; others stay as they are.

    Handlers hear of the governed model, whose message has the tokens of all attempts: they would count them twice.
    """
    token = var_child_runnable_config.set(None)
    try:
        with faults_of(call, began):
            yield
    finally:
        var_child_runnable_config.reset(token)
