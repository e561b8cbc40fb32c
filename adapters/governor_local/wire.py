"""Call -> the request of llama.cpp's server, and its stream of chunks -> Reply.

Field names: github.com/ggml-org/llama.cpp/tree/master/tools/server (chat completions), each tried on a running
server. Requests are always streamed: an unstreamed reply repeats the prefix and can't be stopped half-way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from governor.errors import BackendError, BackendReplyError, BackendRequestError, BackendUnavailableError
from governor.plan import thought
from governor.plan.bounds import output_bound
from governor.plan.messages import messages_of
from governor.protocols import Delta
from governor.records import Call, Reply, ToolCall, Usage
from governor.stops.tokens import Token

_SEED_RANGE = 1 << 32


def request_of(call: Call) -> dict[str, Any]:
    """The body of one chat request.

    Without a temperature the model answers greedily. `thinking_tokens` is a hard cap on models whose chat
    template knows thinking (the server ends the thought there) and part of `max_tokens` on others; 0 turns
    thinking off where the template can.
    """
    rung = call.rung
    thinks = rung.thinking_tokens > 0 and (not call.prefix or thought.is_open(call.prefix))
    body: dict[str, Any] = {
        "messages": [_with_thought(message) for message in messages_of(call)],
        "max_tokens": output_bound(call),
        "temperature": rung.temperature or 0.0,
        "chat_template_kwargs": _template_options(rung.effort, thinks=thinks),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # a sign of life, and so a chance to stop, during long prompts
        "timings_per_token": True,  # counts tokens as they come: usage is exact even when a call is cut
    }
    if thinks:
        body["thinking_budget_tokens"] = rung.thinking_tokens
    if call.seed is not None:
        body["seed"] = call.seed % _SEED_RANGE
    if call.logprobs:
        body |= {"logprobs": True, "top_logprobs": max(call.top_logprobs, 1)}  # 0 switches them off
    if call.tools:
        body["tools"] = [dict(tool) for tool in call.tools]
        if call.tool_choice is not None:
            body["tool_choice"] = call.tool_choice
    if call.response_schema is not None:
        schema = {"name": "reply", "schema": dict(call.response_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _template_options(effort: str | None, *, thinks: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"enable_thinking": thinks}
    return options | {"reasoning_effort": effort} if effort not in (None, "none") else options


def _with_thought(message: dict[str, Any]) -> dict[str, Any]:
    """An assistant message whose thought stands where chat templates look for it."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return message
    thinking, answer = thought.read(content)
    return message | {"content": answer, "reasoning_content": thinking} if thinking else message


@dataclass(slots=True)
class Transcript:
    """What has come so far of one reply."""

    call: Call
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tools: dict[int, dict[str, str]] = field(default_factory=dict)
    finish_reason: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    begun: bool = False

    def feed(self, chunk: Mapping[str, Any]) -> Delta | None:
        """Take one chunk; the text it adds, if any. Raises BackendError for a chunk that tells a fault."""
        if "error" in chunk:
            raise self._fault(chunk["error"])
        self.begun = True
        self._count(chunk)
        choices = chunk.get("choices")
        return self._choice(choices[0]) if choices else None

    @property
    def usage(self) -> Usage:
        """Tokens so far; exact, whether the reply is whole or was cut."""
        return Usage(self.input_tokens, self.output_tokens, self.thinking_tokens, self.cached_tokens)

    def reply(self, seconds: float) -> Reply:
        """The whole reply; `text` is only what was added to the call's prefix.

        `logprobs` has one value per streamed piece: of a character made of several tokens the last one's.
        Raises BackendReplyError if the stream broke off.
        """
        if not self.finish_reason:
            message = f"{self.call.rung.model}: the answer broke off after {self.output_tokens} tokens"
            raise BackendReplyError(message, model=self.call.rung.model, usage=self.usage, seconds=seconds)
        return Reply(
            text="".join(self.text),
            thinking="".join(self.thinking),
            tool_calls=tuple(ToolCall(**self.tools[index]) for index in sorted(self.tools)),
            finish_reason=self.finish_reason,
            usage=self.usage,
            seconds=seconds,
            logprobs=tuple(self.logprobs) if self.call.logprobs else None,
            model=self.call.rung.model,
        )

    def _count(self, chunk: Mapping[str, Any]) -> None:
        if progress := chunk.get("prompt_progress"):
            self.input_tokens, self.cached_tokens = progress["processed"], progress["cache"]
        if timings := chunk.get("timings"):
            self.output_tokens = timings["predicted_n"]
        if usage := chunk.get("usage"):
            self.input_tokens, self.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
            self.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]

    def _choice(self, choice: Mapping[str, Any]) -> Delta | None:
        delta = choice["delta"]
        text, thinking = delta.get("content") or "", delta.get("reasoning_content") or ""
        self.text.append(text)
        self.thinking.append(thinking)
        if thinking:
            self.thinking_tokens = self.output_tokens
        for part in delta.get("tool_calls") or ():
            self._tool(part)
        told = (choice.get("logprobs") or {}).get("content") or ()
        self.logprobs.extend(entry["logprob"] for entry in told)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        counted = text or thinking or delta.get("tool_calls")  # a tool call's tokens count as well
        tokens = tuple(map(_token, told)) if self.call.top_logprobs else ()
        return Delta(text, thinking, self.usage, tokens) if counted else None

    def _tool(self, part: Mapping[str, Any]) -> None:
        tool = self.tools.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        tool["id"] = part.get("id") or tool["id"]
        function = part.get("function") or {}
        tool["name"] += function.get("name") or ""
        tool["arguments"] += function.get("arguments") or ""

    def _fault(self, error: Mapping[str, Any]) -> BackendError:
        model, message = self.call.rung.model, str(error.get("message", error))
        if error.get("type") == "exceed_context_size_error":
            message = (
                f"the prompt has {error['n_prompt_tokens']} tokens and the context {error['n_ctx']}:"
                " shorten it or raise the model's context_window"
            )
        if error.get("code") == 500:  # after the first token: output that the template's parser can't read
            kind = BackendReplyError if self.output_tokens else BackendUnavailableError
            return kind(f"{model}: {message}", model=model, usage=self.usage)
        return BackendRequestError(f"{model}: {message}", model=model, sent=self.begun, usage=self.usage)


def _token(entry: Mapping[str, Any]) -> Token:
    top = tuple((one["token"], one["logprob"]) for one in entry.get("top_logprobs") or ())
    return Token(entry["token"], entry["logprob"], top)
