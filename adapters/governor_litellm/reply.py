"""LiteLLM's responses and stream chunks -> Reply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

from governor.errors import BackendReplyError
from governor.plan.dialects import Dialect
from governor.plan.messages import without_echo
from governor.protocols import Delta
from governor.records import Call, Reply, ToolCall, Usage
from governor.stops.tokens import Token

_WRAPPED = (
    *("_source_iterator", "_billing_source", "inner", "litellm_custom_stream_wrapper"),
    *("_anthropic_wrapper", "completion_stream"),
)
"""Under which names LiteLLM's streams hold those that they are made of."""


@cache
def _keeps_finish() -> bool:
    """Whether LiteLLM keeps the finish reason that a server sends with its last text; before, it looks like none."""
    return tuple(map(int, version("litellm").split(".")[:2])) >= (1, 106)


def layers(source: Any) -> Iterator[Any]:
    """A stream of LiteLLM's and those that it is made of, the outermost first."""
    while source is not None:
        yield source
        source = next((held for name in _WRAPPED if (held := getattr(source, name, None)) is not None), None)


def reply_of(response: Any, call: Call, dialect: Dialect) -> Reply:
    """The whole reply. `text` never repeats the call's prefix. Raises BackendReplyError if there is no choice."""
    choices = getattr(response, "choices", None)
    if not choices:
        raise BackendReplyError(f"{call.rung.model}: the reply holds no choices", model=call.rung.model)
    choice, usage = choices[0], usage_of(getattr(response, "usage", None))
    message = choice.message
    return Reply(
        text=without_echo(message.content or "", call, dialect),
        thinking=getattr(message, "reasoning_content", None) or "",
        tool_calls=tuple(map(_tool_call, calls_in(message))),
        finish_reason=choice.finish_reason or "stop",
        usage=usage or Usage(),
        usage_known=usage is not None,
        logprobs=logprobs_of(getattr(choice, "logprobs", None)),
        model=getattr(response, "model", None) or call.rung.model,
    )


def response_of(reply: Reply, usage: Usage, model: str) -> Any:
    """The reverse, as far as LiteLLM logs it: a chat response with the text, that it was cut, and this usage."""
    from litellm import ModelResponse

    message = {"role": "assistant", "content": reply.text}
    made: Any = ModelResponse(model=model, choices=[{"index": 0, "message": message, "finish_reason": "length"}])
    made.usage = counts_of(usage)
    return made


def counts_of(usage: Usage) -> Any:
    """Token counts as LiteLLM's own value."""
    from litellm import Usage as Counts

    return Counts(
        prompt_tokens=usage.input_tokens, completion_tokens=usage.output_tokens, total_tokens=usage.total_tokens
    )


def usage_of(usage: Any) -> Usage | None:
    """Token counts; None when the server reported none (LiteLLM then fills in zeros)."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    output = getattr(usage, "completion_tokens_details", None)
    prompt = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        thinking_tokens=getattr(output, "reasoning_tokens", None) or 0,
        cached_tokens=getattr(prompt, "cached_tokens", None) or 0,
        written_tokens=getattr(prompt, "cache_creation_tokens", None) or 0,
    )


def counted(chunks: Sequence[Any]) -> Usage | None:
    """What a server told in these chunks of LiteLLM's own; None where it told nothing.

    Of a client that asked for no usage LiteLLM takes it out of what it gives.
    """
    telling = [chunk for chunk in chunks if getattr(chunk, "usage", None) is not None]
    if not telling:
        return None
    from litellm.litellm_core_utils.streaming_handler import calculate_total_usage

    return usage_of(calculate_total_usage(telling))


def logprobs_of(logprobs: Any) -> tuple[float, ...] | None:
    """Natural logs of the chosen tokens, None where the server gave none."""
    content = read(logprobs, "content")
    return tuple(float(read(item, "logprob")) for item in content) if content else None


def tokens_of(logprobs: Any) -> tuple[Token, ...]:
    """The tokens of one piece with the likeliest ones in their place."""
    return tuple(
        Token(
            read(item, "token"),
            float(read(item, "logprob")),
            tuple((read(one, "token"), float(read(one, "logprob"))) for one in read(item, "top_logprobs") or ()),
        )
        for item in read(logprobs, "content") or ()
    )


def read(held: Any, key: str) -> Any:
    """A value of LiteLLM's mappings and objects alike."""
    return held.get(key) if isinstance(held, dict) else getattr(held, key, None)


def calls_in(said: Any) -> Sequence[Any]:
    """The tool calls in a message, or in a piece of one; the older `function_call` is one that has no id."""
    legacy = read(said, "function_call")
    return read(said, "tool_calls") or (() if legacy is None else ({"function": legacy},))


def called(item: Any) -> tuple[str, str]:
    """The name of a tool that is called, and what it is given: arguments as JSON, or a custom tool's free text."""
    function, custom = read(item, "function"), read(item, "custom")
    given = read(custom, "input") if function is None else read(function, "arguments")
    return read(function or custom, "name") or "", given or ""


def _tool_call(item: Any) -> ToolCall:
    name, given = called(item)
    return ToolCall(id=read(item, "id") or "", name=name, arguments=given)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the server itself said at the end of a stream, as opposed to what LiteLLM made up for it.

    LiteLLM ends every stream with a finish reason and a usage; where the server sent none they are invented.
    """

    finished: bool
    counted: bool

    @classmethod
    def of(cls, stream: Any) -> Evidence:
        """Read from LiteLLM's CustomStreamWrapper after its last chunk."""
        return cls(stream.received_finish_reason is not None, _counts(stream.chunks))

    @classmethod
    def within(cls, source: Any) -> Evidence | None:
        """Read from the chat stream that a stream of the proxy is made of, after its last chunk.

        None where there is none, and of what LiteLLM's cache answers or a fallback has taken over: the chunks that are
        kept then are not those that came.
        """
        held = next((one for one in layers(source) if _kept(one) or _elsewhere(one)), None)
        if held is None or _elsewhere(held):
            return None
        ends = (getattr(choice, "finish_reason", None) for chunk in held.chunks for choice in chunk.choices or ())
        told = getattr(held, "received_finish_reason", None) is not None or any(ends)
        return cls(told or not _keeps_finish(), _counts(held.chunks))


def _counts(chunks: Iterable[Any]) -> bool:
    return any(getattr(chunk, "usage", None) is not None for chunk in chunks)


def _kept(stream: Any) -> bool:
    """Whether it keeps a server's chunks of chat. Other formats' streams keep bytes under that name, or nothing."""
    chunks = getattr(stream, "chunks", None)
    return isinstance(chunks, list) and all(hasattr(chunk, "choices") for chunk in chunks)


def _elsewhere(stream: Any) -> bool:
    cached = getattr(stream, "custom_llm_provider", None) == "cached_response"
    return cached or getattr(stream, "fallback_headers_adopted", False) is True


@dataclass(slots=True)
class Assembly:
    """Collects the chunks of one stream: `add` gives what may be shown, `whole` ends with the Reply."""

    call: Call
    dialect: Dialect
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tools: dict[int, list[str]] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    usage: Usage | None = None
    model: str = ""
    echo: str = field(init=False, default="")

    def __post_init__(self) -> None:
        resume = self.dialect.continuation
        self.echo = self.call.prefix if resume is not None and resume.echoes else ""

    def add(self, chunk: Any, stream: Any) -> Iterator[Delta]:
        """Take in the chunk that a stream has just given."""
        self.model = getattr(chunk, "model", None) or self.model
        self.usage = usage_of(getattr(chunk, "usage", None)) or self.usage
        for choice in (getattr(chunk, "choices", None) or ())[:1]:
            self.finish = choice.finish_reason or self.finish
            told = getattr(choice, "logprobs", None)
            self.logprobs.extend(logprobs_of(told) or ())
            self._tools(calls_in(choice.delta))
            tokens = tokens_of(told) if self.call.top_logprobs else ()
            yield from self._shown(choice.delta, self._so_far(stream), tokens)

    def whole(self, evidence: Evidence) -> Reply:
        """The reply. Raises BackendReplyError if the stream broke off before it was finished."""
        usage = self.usage if evidence.counted else None
        if not evidence.finished:
            text = f"{self.call.rung.model}: the stream broke off before the reply was finished"
            raise BackendReplyError(text, model=self.call.rung.model, usage=usage)
        return self.so_far(self.finish or "stop", usage)

    def so_far(self, finish: str, usage: Usage | None) -> Reply:
        """What was read, as a reply that ended here; `usage` None where nobody has counted it."""
        return Reply(
            text="".join(self.text),
            thinking="".join(self.thinking),
            tool_calls=tuple(ToolCall(id=i, name=n, arguments=a) for i, n, a in self.tools.values()),
            finish_reason=finish,
            usage=usage or Usage(),
            usage_known=usage is not None,
            logprobs=tuple(self.logprobs) or None,
            model=self.model or self.call.rung.model,
        )

    def _shown(self, delta: Any, usage: Usage | None, tokens: tuple[Token, ...]) -> Iterator[Delta]:
        thinking = getattr(delta, "reasoning_content", None) or ""
        text = self._fresh(delta.content or "")
        if thinking or text:
            self.thinking.append(thinking)
            self.text.append(text)
        if thinking or text or (usage is not None and calls_in(delta)):  # a tool call's tokens count as well
            yield Delta(text, thinking, usage, tokens)

    def _so_far(self, stream: Any) -> Usage | None:
        """The usage that a server states with each chunk; LiteLLM takes it out of what it gives, and keeps a copy."""
        if not (self.dialect.counts and stream.chunks):
            return None
        return usage_of(getattr(stream.chunks[-1], "usage", None))

    def _fresh(self, text: str) -> str:
        """Text without the part that only repeats the prefix."""
        if not self.echo or not text:
            return text
        if self.echo.startswith(text):
            self.echo = self.echo.removeprefix(text)
            return ""
        fresh, self.echo = text.removeprefix(self.echo), ""
        return fresh

    def _tools(self, deltas: Iterable[Any]) -> None:
        for delta in deltas:
            parts = self.tools.setdefault(read(delta, "index") or 0, ["", "", ""])
            parts[0] = read(delta, "id") or parts[0]
            name, given = called(delta)
            parts[1] += name
            parts[2] += given
