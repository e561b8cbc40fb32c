"""vLLM's stream chunks, of chats and of plain completions -> Reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from governor.errors import BackendReplyError
from governor.plan import thought
from governor.protocols import Delta
from governor.records import Call, Reply, ToolCall, Usage
from governor.stops.phrases import BUDGET, NAMES, REPEAT, ended_by
from governor.stops.tokens import Token
from governor.watched import marked
from governor_vllm.link import shaped
from governor_vllm.marks import Answer, Splitter


@dataclass(slots=True)
class Transcript:
    """What has come so far of one reply, over one request or two; `usage` is exact at every piece."""

    call: Call
    splitter: Splitter
    answer: Answer = field(init=False)
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tools: dict[int, dict[str, str]] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    usage: Usage = Usage()
    known: bool = False
    before: Usage = Usage()
    """What earlier requests of the same call came to."""
    ends_at: int | None = None
    """Tokens of thought at which a budget has ended it, whatever its last words are."""
    _unsent: list[Token] = field(default_factory=list)
    """Tokens that have shown no text yet: a part of a letter, or what may become a mark."""
    _thought: bool = False
    """Whether a thought stands before the answer: in what the call goes on from, or in what came."""

    def __post_init__(self) -> None:
        begun, answered = thought.read(self.call.prefix)
        self._thought = bool(begun)
        self.answer = Answer(begun=bool(answered))

    def feed(self, event: Mapping[str, Any]) -> Delta | None:
        """Take one chunk; what it adds, if anything. Raises BackendReplyError for one of another shape than vLLM's."""
        with shaped(self.call.rung.model):
            return self._fed(event)

    def _fed(self, event: Mapping[str, Any]) -> Delta | None:
        choices = event.get("choices") or ()
        choice: Mapping[str, Any] = choices[0] if choices else {}
        delta: Mapping[str, Any] = choice.get("delta") or {}
        thinking, text = self._parts(delta, delta.get("content") or choice.get("text") or "")
        self._count(event.get("usage"), thinking=bool(thinking))
        for part in delta.get("tool_calls") or ():
            self._tool(part)
        tokens = _tokens(choice.get("logprobs") or {})
        self.logprobs.extend(one.logprob for one in tokens)
        self._unsent.extend(tokens if self.call.top_logprobs else ())
        if choice.get("finish_reason"):
            self.finish = str(choice["finish_reason"])
            more, rest = self.splitter.close()
            thinking, text = thinking + more, text + rest
        shown = self._added(thinking, text, counted=bool(delta.get("tool_calls")))
        if shown is None:
            return None
        told, self._unsent = tuple(self._unsent), []
        return replace(shown, tokens=told)

    def again(self) -> None:
        """Another request goes on with the answer; its tokens come on top."""
        self.before, self.finish = self.usage, ""
        self.splitter = Splitter()

    def thinking_so_far(self) -> str:
        """All that was thought so far, what is held back as a possible mark included."""
        rest, _ = self.splitter.close()
        if rest:
            self.thinking.append(rest)
        return "".join(self.thinking)

    def cut(self, seconds: float) -> Reply:
        """What came so far, as a reply that ended at its limit."""
        self.finish = "length"
        return self.reply(seconds)

    def reply(self, seconds: float) -> Reply:
        """The whole reply. Raises BackendReplyError if the stream broke off."""
        model = self.call.rung.model
        if not self.finish:
            text = f"{model}: the stream broke off after {self.usage.output_tokens} tokens"
            raise BackendReplyError(text, model=model, usage=self.usage if self.known else None, seconds=seconds)
        whole = Reply(
            text="".join(self.text),
            thinking=self._thinking(),
            tool_calls=tuple(ToolCall(**self.tools[index]) for index in sorted(self.tools)),
            finish_reason=self.finish,
            usage=self.usage,
            usage_known=self.known,
            seconds=seconds,
            logprobs=tuple(self.logprobs) if self.call.logprobs and self.logprobs else None,
            model=model,
        )
        return marked(whole, NAMES[REPEAT] if self.finish == "repetition" else ended_by(whole.thinking) or self._budget)

    @property
    def _budget(self) -> str:
        """That the budget has ended the thought: it may have had no room for its words."""
        spent = self.ends_at is not None and self.usage.thinking_tokens >= self.ends_at
        return NAMES[BUDGET] if spent and self._thought else ""

    def _thinking(self) -> str:
        """The thought that was added.

        One that the call began and that ended at once has the line break of its end: without it, the answer would read
        as more of the thought.
        """
        added = "".join(self.thinking)
        ended = not added and thought.is_open(self.call.prefix) and any(self.text)
        return "\n" if ended else added

    def _parts(self, delta: Mapping[str, Any], content: str) -> tuple[str, str]:
        """Thought and answer of a chunk: as the server's parser says, else by their marks."""
        parsed = str(delta.get("reasoning") or delta.get("reasoning_content") or "")
        if parsed:
            self.splitter.inside = False  # the server tells them apart itself, and the piece in which one ends is both
        thinking, text = self.splitter.feed(content) if content else ("", "")
        return parsed + thinking, text

    def _added(self, thinking: str, text: str, *, counted: bool) -> Delta | None:
        if thinking:
            self.thinking.append(thinking)
            self._thought = True
        if self._thought:
            text = self.answer.feed(text) + (self.answer.close() if self.finish else "")
        self.text.append(text)
        return Delta(text, thinking, self.usage) if thinking or text or counted else None

    def _count(self, usage: Mapping[str, Any] | None, *, thinking: bool) -> None:
        if not usage:
            return
        self.known = True
        made = usage.get("completion_tokens") or 0
        said = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        thoughts = said or (made if thinking else self.usage.thinking_tokens - self.before.thinking_tokens)
        now = Usage(
            input_tokens=usage.get("prompt_tokens") or 0,
            output_tokens=made,
            thinking_tokens=thoughts,
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        )
        self.usage = self.before + now

    def _tool(self, part: Mapping[str, Any]) -> None:
        tool = self.tools.setdefault(part.get("index") or 0, {"id": "", "name": "", "arguments": ""})
        function: Mapping[str, Any] = part.get("function") or {}
        tool["id"] = part.get("id") or tool["id"]
        tool["name"] += function.get("name") or ""
        tool["arguments"] += function.get("arguments") or ""


def _tokens(told: Mapping[str, Any]) -> tuple[Token, ...]:
    """The tokens of a chunk with the likeliest ones in their place: a chat's, or a plain completion's."""
    if told.get("content"):
        return tuple(
            Token(
                str(one["token"]),
                float(one["logprob"]),
                tuple((str(other["token"]), float(other["logprob"])) for other in one.get("top_logprobs") or ()),
            )
            for one in told["content"]
        )
    texts, values = told.get("tokens") or (), told.get("token_logprobs") or ()
    likeliest = told.get("top_logprobs") or [{}] * len(texts)
    return tuple(
        Token(str(text), float(value), tuple((str(other), float(at)) for other, at in (top or {}).items()))
        for text, value, top in zip(texts, values, likeliest, strict=True)
        if value is not None
    )
