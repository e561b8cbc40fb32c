"""What a request format has to tell and to do for a governed request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from governor.errors import GovernorError
from governor.plan.dialects import Dialect
from governor.protocols import Delta
from governor.records import Call, Message, Reply, Rung, Usage
from governor_litellm.caps import Caps

Fields = Mapping[str, Any]
"""Fields of a request that change; None takes a field out."""

LEAST_OUTPUT = 16
"""LiteLLM raises every smaller limit on its way to OpenAI's Responses API, which would refuse it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request as Governor sees it: chat messages and tools in OpenAI's shape, and the client's own limits."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    schema: Mapping[str, Any] | None = None
    caps: Caps = field(default_factory=Caps)
    unbounded: str = ""
    """What of it makes a model read more than the request holds, so that its input has no bound; empty: nothing."""


Splitter: TypeAlias = Callable[[Any], Sequence[Any]]
"""Given a stream's chunks in turn it gives them with whole events; an event's first half waits for the second."""


class Chunks(Protocol):
    """Reads one stream as it passes."""

    @property
    def shown(self) -> int | None:
        """Bytes of text, thought and tool calls so far: no fewer than their tokens. None where they bound nothing."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the stream has said why it ends."""
        ...

    def add(self, chunk: Any) -> Sequence[Delta]:
        """Take in the chunk that the stream has just given; what is new in it."""
        ...

    def reply(self) -> Reply:
        """What it came to. Raises BackendReplyError if it broke off."""
        ...

    def cut(self) -> Reply:
        """What it came to so far, as a reply that reached its limit unless it has ended.

        `usage_known` only where it was counted.
        """
        ...

    def trimmed(self, chunk: Any) -> Any:
        """The chunk that came last, as a stream may end with it: without an event's first half."""
        ...

    def ending(self, usage: Usage, *, told: bool) -> Sequence[Any]:
        """The chunks that end the stream as one that reached its limit; only what is missing where it has ended.

        `told`: the client wants the usage of a stream, where that is asked for.
        """
        ...


class Wire(Protocol):
    """One request format. Stateless; never changes what it is given."""

    call_type: str
    bucket: str
    """Under which field the proxy keeps what it knows of a request, as a rule."""
    limit: str
    """The field that says how many tokens the output may have."""
    reads: frozenset[str]
    """The fields of the format that Governor reads or that what it holds depends on."""

    def asking(self, data: Mapping[str, Any]) -> Asking | None:
        """None where the request is of a kind that is not governed. UnreadableError where it is none at all."""
        ...

    def least(self, dialect: Dialect) -> int:
        """The output tokens that LiteLLM asks for at least, whatever a request says; they must be held as well."""
        ...

    def fields(self, rung: Rung, dialect: Dialect, data: Mapping[str, Any]) -> Fields:
        """The fields that make a request ask this rung. PolicyError for what the dialect can't express."""
        ...

    def following(self, data: Mapping[str, Any], more: Sequence[Message], instruction: str | None) -> Fields:
        """The conversation with messages added to its end, and an instruction to its system message."""
        ...

    def reply(self, raw: Any, call: Call, dialect: Dialect) -> Reply:
        """Raises BackendReplyError for a response that holds no answer."""
        ...

    async def send(self, router: Any, fields: Mapping[str, Any], bucket: Mapping[str, Any]) -> Any:
        """Send a request through LiteLLM's router, below the proxy's hooks."""
        ...

    def chunks(self, call: Call, dialect: Dialect, source: Any = None, *, cuttable: bool = False) -> Chunks:
        """A reader of one stream of a call; `source` is LiteLLM's object that gives it.

        Only one that is `cuttable` can tell what a stream that was ended early came to, and end it in its format.
        """
        ...

    def splitter(self) -> Splitter:
        """A cutter of one stream into chunks that hold whole events."""
        ...

    def waits(self, chunk: Any) -> bool:
        """Whether a whole event may be shown only at the end: it is neither text nor thought, nor what they stand in.

        What a stream came to, and the tools that it calls, are never shown before it is accepted.
        """
        ...

    def listening(self, call: Call, dialect: Dialect, data: Mapping[str, Any], *, told: bool) -> Fields:
        """More fields of a request: what its call's stop rules and verifiers read; `told`: a stream's usage is."""
        ...

    def veiled(self, chunk: Any, data: Mapping[str, Any]) -> Any:
        """A chunk, or a whole response, without what is only told because rules or verifiers read it."""
        ...

    def charged(self, raw: Any, usage: Usage) -> Any:
        """A copy of a response whose usage is this: LiteLLM's own books must see the original."""
        ...

    def charged_chunk(self, chunk: Any, usage: Usage) -> Any:
        """The same for a chunk of a stream; a chunk without usage is given back as it is."""
        ...

    def detailed(self, raw: Any, details: Mapping[str, Any]) -> Any:
        """A copy of a response with `governor` beside its own fields."""
        ...


def effort(*said: Any) -> str | None:
    """The first effort word among these, each a word itself or an object that holds one: LiteLLM takes both."""
    words = (one.get("effort") if isinstance(one, Mapping) else one for one in said)
    return next((word for word in words if word and isinstance(word, str)), None)


def budget(thinking: Any) -> int | None:
    """The thinking tokens that Anthropic's `thinking` allows; None where it sets no number."""
    if not isinstance(thinking, Mapping):
        return None
    if thinking.get("type") == "disabled":
        return 0
    return smallest(thinking.get("budget_tokens"))


def smallest(*limits: Any) -> int | None:
    """The least of the positive whole numbers among these: 5 and 5.0, which models take alike."""
    numbers = (limit for limit in limits if isinstance(limit, int | float) and not isinstance(limit, bool))
    return min((int(number) for number in numbers if number > 0 and number % 1 == 0), default=None)


class UnreadableError(GovernorError):
    """A request whose conversation is none: it can't be weighed, and no model could answer it."""


def conversation(items: Any) -> tuple[Mapping[str, Any], ...]:
    """The messages, or items, of a request. UnreadableError where they are none."""
    found = mappings(items)
    if isinstance(items, str) or not found:
        raise UnreadableError("messages must be a list of messages")
    for message in found:
        if not isinstance(message.get("role", ""), str):
            raise UnreadableError("a message's role must be text")
        content = message.get("content")
        if not (content is None or isinstance(content, str) or (isinstance(content, list) and _parts(content))):
            raise UnreadableError("a message's content must be text or a list of parts")
        if mappings(message.get("tool_calls") or ()) is None:
            raise UnreadableError("a message's tool_calls must be a list of calls")
    return found


def offered(tools: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools of a request. UnreadableError where they are none."""
    found = mappings(tools or ())
    if found is None or isinstance(tools, str):
        raise UnreadableError("tools must be a list of tools")
    return found


HOSTED = (
    *("websearch", "webfetch", "filesearch", "mcp", "codeinterpreter", "codeexecution", "imagegeneration"),
    *("urlcontext", "googlesearch", "googlemaps", "enterprisewebsearch"),
)
"""What the types of tools begin with that the provider runs itself, putting what they find into the input."""


def hosted(tools: Sequence[Mapping[str, Any]]) -> str:
    """The first tool's type that the provider runs itself; empty where the client runs them all."""
    kinds = (kind for tool in tools for kind in ((str(tool["type"]),) if tool.get("type") else map(str, tool)))
    return next((kind for kind in kinds if kind.replace("_", "").lower().startswith(HOSTED)), "")


def extra_body(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that a client adds for its server alone. UnreadableError where they are none."""
    extra = data.get("extra_body") or {}
    if not isinstance(extra, Mapping):
        raise UnreadableError("extra_body must be an object")
    return extra


def _parts(content: list[Any]) -> bool:
    return all(isinstance(part, Mapping) and isinstance(part.get("text", ""), str) for part in content)


def mappings(items: Any) -> tuple[Mapping[str, Any], ...] | None:
    """The items as a tuple where they are a list of mappings, else None."""
    if isinstance(items, Sequence) and all(isinstance(item, Mapping) for item in items):
        return tuple(items)
    return None


def extended(content: Any, instruction: str) -> Any:
    """A system text, or its parts, with an instruction at the end."""
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [*content, {"type": "text", "text": instruction}]
    return f"{content}\n\n{instruction}" if content else instruction
