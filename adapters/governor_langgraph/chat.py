"""GovernedChat: a LangChain chat model whose every call is a governed step.

It takes the place of a provider's chat model: tools, structured output, batches, streams and chains work as with any
other. Which model answers, and how hard it thinks, the policy says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeAlias

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.runnables.config import RunnableConfig, ensure_config, var_child_runnable_config
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel, ConfigDict, Field

from governor.arm import arm_of
from governor.aside import asks_a_server
from governor.drivers import adrive, drive
from governor.errors import NoAnswerError
from governor.facade import Governor
from governor.records import Outcome, Step
from governor.streaming import AsyncStream, Stream
from governor_langgraph.attempt import running
from governor_langgraph.left import with_left
from governor_langgraph.messages import (
    details_of,
    message_of,
    messages_of,
    schema_of,
    tool_choice_of,
    tools_of,
)
from governor_langgraph.place import place_of
from governor_langgraph.watcher import GOVERNED_TYPE

READ = frozenset({"tools", "tool_choice", "response_format"})
UNUSED = frozenset({"stream", "ls_structured_output_format"})
"""Arguments of LangChain's own that say nothing of what is asked."""

MENDS = {
    "strict": "give it to bind_tools",
    "parallel_tool_calls": "no policy says it; a backend given in code may, "
    "`LiteLLMBackend({MODEL: {'extra_body': {'parallel_tool_calls': False}}})`",
}
"""How an argument is said that is neither read nor a rung's."""

Asked = tuple[Governor, Step, dict[str, Any]]
Chunks: TypeAlias = Iterator[AIMessageChunk]
AsyncChunks: TypeAlias = AsyncIterator[AIMessageChunk]


class BackendChat(BaseChatModel):
    """A chat model that asks Governor's backends: what it binds, and how it reads what was bound."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    governor: Governor
    cache: BaseCache | bool | None = Field(default=False, exclude=True)
    """Off, whatever cache LangChain has for the process: it knows no rung, and would give a rejected answer again."""

    @property
    def _llm_type(self) -> str:
        return GOVERNED_TYPE

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"app": self.governor.policy.app}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, strict: bool | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offers tools of any kind that LangChain takes."""
        offered = tools_of(tools, strict=strict)
        return self.bind(tools=offered, tool_choice=tool_choice_of(tool_choice, offered), **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers as `schema` says: a pydantic class, a TypedDict or a JSON Schema; the last two give a dict.

        The schema goes to the backend, which constrains the answer where it can, and to verifiers (`from_step`).
        """
        wanted = convert_to_json_schema(schema)
        form = {"type": "json_schema", "json_schema": {"name": str(wanted.get("title", "answer")), "schema": wanted}}
        chat = self.bind(response_format=form)
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return chat | parser
        read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unread = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=chat) | read.with_fallbacks([unread], exception_key="parsing_error")


class GovernedChat(BackendChat):
    """Every call is a step of `governor`: estimated, planned, reserved, called, verified, and escalated.

    `node` is what the policy's `steps` match (default: the graph's node that calls it), `session` and `tenant` whose
    budgets it is booked on (default: the graph's thread, `configurable: {tenant: ...}`). Inside a governed node a call
    takes the node's rung and is a part of the node's step. NoAnswerError where a step ends without an answer. The
    message's usage is that of all attempts; `response_metadata["governor"]` says what became of the step.
    """

    node: str = ""
    session: str = ""
    tenant: str = ""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002 - its name
        with placed(config):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002
        with placed(config):
            return await super().ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Chunks:  # noqa: A002
        chunks = super().stream(input, config, **kwargs)
        with placed(config):
            first = next(chunks)  # its place is read when a call begins
        yield first
        yield from chunks

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncChunks:  # noqa: A002
        chunks = super().astream(input, config, **kwargs)
        with placed(config):
            first = await anext(chunks)
        yield first
        async for chunk in chunks:
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        governor, step, bound = self._asked(messages, kwargs)
        outcome = drive(governor.process(step, **bound), governor.ports().perform)
        return ChatResult(generations=[ChatGeneration(message=self._ended(outcome, stop))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        governor, step, bound = await self._asked_aside(messages, kwargs)
        outcome = await adrive(governor.process(step, **bound), governor.async_ports().perform)
        return ChatResult(generations=[ChatGeneration(message=self._ended(outcome, stop))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        governor, step, bound = self._asked(messages, kwargs)
        shown = _Shown(stop)
        stream = Stream(
            governor.backend, lambda: governor.process(step, streamed=True, **bound), governor.ports().perform
        )
        for text in stream:
            yield from shown.chunks(text)
        yield shown.last(self._ended(stream.outcome, stop))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        governor, step, bound = await self._asked_aside(messages, kwargs)
        shown = _Shown(stop)
        stream = AsyncStream(
            governor.backend, lambda: governor.process(step, streamed=True, **bound), governor.async_ports().perform
        )
        async for text in stream:
            for chunk in shown.chunks(text):
                yield chunk
        yield shown.last(self._ended(stream.outcome, stop))

    def _asked(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> Asked:
        """The step of a call, and the terms that bind it."""
        attempt = running()
        governor = attempt.governor if attempt else self.governor
        place = place_of(ensure_config())
        step = governor.step(
            messages_of(messages),
            node=self.node or place.node,
            session=self.session or place.session,
            run=place.run,
            tenant=self.tenant or place.tenant,
            index=place.index,
            **self._context(asked_of(kwargs)),
        )
        if attempt is not None:
            step, bound = attempt.within(step)
            bound["policy_checks"] = False
        else:
            bound = {"granted": governor.terms(step)}
        terms = attempt.terms if attempt else bound["granted"]
        governed = attempt.governed if attempt else arm_of(step, terms) == "governed"
        if governed:
            step = replace(step, messages=with_left(governor, terms, step))
        return governor, step, bound

    async def _asked_aside(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> Asked:
        """The same, in a thread where a server is asked what is left."""
        attempt = running()
        ledger = (attempt.governor if attempt else self.governor).ledger
        if not asks_a_server(ledger):
            return self._asked(messages, kwargs)
        return await asyncio.to_thread(self._asked, messages, kwargs)

    def _context(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a step is told beside its messages and its place, given its tools and schema."""
        return asked

    def _ended(self, outcome: Outcome | None, stop: Sequence[str] | None) -> AIMessage:
        """The message of a step, counted by the attempt it is part of; NoAnswerError where it has none."""
        assert outcome is not None, "a stream that was read to its end has an outcome"
        attempt = running()
        if attempt is not None:
            attempt.add(outcome)
        if outcome.reply is None:
            raise NoAnswerError(outcome)
        message = message_of(outcome.reply, outcome.usage + outcome.verifier_usage, details_of(outcome))
        if stop and isinstance(message.content, str):
            message.content = until(message.content, stop)
        return message


@contextmanager
def placed(config: RunnableConfig | None) -> Generator[None, None, None]:
    """While a call begins: LangChain gives a chat model no configuration, which would tell thread and node."""
    if config is None:
        yield
        return
    token = var_child_runnable_config.set(ensure_config(config))
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def asked_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A step's tools and schema out of a call's bound arguments; ValueError for one that would not reach a model."""
    for name, value in sorted(kwargs.items()):
        usual = value is None or (name == "parallel_tool_calls" and value is True)
        if not usual and name not in READ | UNUSED:
            mend = MENDS.get(name, "set it in a rung of its policy")
            raise ValueError(f"a governed model does not take `{name}`: {mend}, or leave it out")
    return {
        "tools": tuple(kwargs.get("tools") or ()),
        "tool_choice": kwargs.get("tool_choice"),
        "response_schema": schema_of(kwargs.get("response_format")),
    }


class _Shown:
    """What a reader of a stream has seen of an answer; nothing before its end where words may end it."""

    def __init__(self, stop: Sequence[str] | None) -> None:
        self._held = bool(stop)
        self._text = ""

    def chunks(self, text: str) -> Iterator[ChatGenerationChunk]:
        if not self._held:
            self._text += text
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    def last(self, message: AIMessage) -> ChatGenerationChunk:
        """What was not shown yet, the tool calls, and what it came to."""
        calls = [
            tool_call_chunk(name=one["name"], args=json.dumps(one["args"]), id=one["id"], index=index)
            for index, one in enumerate(message.tool_calls)
        ]
        broken = [
            tool_call_chunk(name=one["name"], args=unmended(one["args"]), id=one["id"], index=len(calls) + index)
            for index, one in enumerate(message.invalid_tool_calls)
        ]
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=str(message.content).removeprefix(self._text),
                additional_kwargs=message.additional_kwargs,
                tool_call_chunks=[*calls, *broken],
                usage_metadata=message.usage_metadata,
                response_metadata=message.response_metadata,
                chunk_position="last",
            )
        )


def unmended(arguments: str | None) -> str:
    """Broken arguments so that nobody takes them for sound: LangChain mends what a stream brings, by leaving out."""
    try:
        mended = parse_partial_json(arguments or "")
    except ValueError:
        mended = None
    return f"not JSON: {arguments}" if isinstance(mended, dict) else arguments or ""


def until(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the words that end it."""
    return text[: min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]
