"""The values that flow: Step -> Forecast -> Plan -> Call -> Reply -> Verdict -> Attempt -> Outcome.

All are frozen. Units everywhere: tokens are counts, money is integer micro-USD (a price in USD per million
tokens is the same number in micro-USD per token), durations are seconds unless a name ends in `_millis`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from governor.errors import Refusal
from governor.stops.settings import Stops

Message = Mapping[str, Any]
"""One chat message in the OpenAI shape: `role`, `content`, optionally `tool_calls`, `tool_call_id`, `name`."""

Decision = Literal["accept", "reject", "unsure"]
Failure = Literal["", "truncated", "empty", "refusal", "format", "wrong", "disagreement", "stuck", "fault"]
BacktrackMode = Literal["first", "more", "continue", "fresh", "feedback", "again", "agree", "compare", "verify"]
Status = Literal["accepted", "unverified", "best_so_far", "refused", "error"]
Arm = Literal["governed", "shadow", "control"]

STOCHASTIC_FAILURES: frozenset[Failure] = frozenset({"truncated", "fault"})
"""Failures that say nothing about the rung's ability: after these the same rung may simply be asked once more."""

COMPARISONS: frozenset[BacktrackMode] = frozenset({"agree", "compare"})
"""Modes that compare the answer in hand: with a second sample of its rung, or with another rung's answer."""

SECOND_LOOKS: frozenset[BacktrackMode] = frozenset({"agree", "compare", "verify"})
"""Modes that look again at an answer in hand: one more answer to compare it with, or one more verdict."""

ANSWERLESS_FAILURES: frozenset[Failure] = frozenset({"truncated", "empty", "refusal", "stuck", "fault"})
"""Failures that leave no answer to ship."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity in every dimension a budget can limit: tokens, micro-USD, milliseconds, calls.

    `input`, `thinking` and `answer` are tokens too. Each figure stands for itself: of a bound, the three may add up to
    more than `tokens`, because thought and answer share one `max_tokens` and either may take all of it.
    """

    tokens: int = 0
    micros: int = 0
    millis: int = 0
    calls: int = 0
    input: int = 0
    thinking: int = 0
    answer: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.tokens + other.tokens,
            self.micros + other.micros,
            self.millis + other.millis,
            self.calls + other.calls,
            self.input + other.input,
            self.thinking + other.thinking,
            self.answer + other.answer,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Which of a scope's spend counts. The default is a rolling total: all of it, for good.

    `until`: a fixed window. It is part of the scope's name, and this is when the next one begins (seconds since the
    epoch). `sliding`: what was booked within the last so many seconds. It leaves in steps of 1/60 of the window and
    never early, so that no stretch of that length ever holds more than the limit.
    `idle`: seconds without any booking after which a store may forget the sums.
    """

    until: float | None = None
    sliding: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A ceiling on a scope. None means that the dimension is not limited.

    `scope` is the full key under which spend is summed, for example `app:support@2026-11-21` for one day
    of one application: a period's window is part of the key, so that stores need no calendar. All limits of a scope
    have the same `window`.
    """

    scope: str
    tokens: int | None = None
    micros: int | None = None
    millis: int | None = None
    calls: int | None = None
    input: int | None = None
    thinking: int | None = None
    answer: int | None = None
    window: Window = Window()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more calls; `thinking_tokens` are part of the output.

    Part of the input are `cached_tokens`, read from the provider's prompt cache, and `written_tokens`, written to it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.thinking_tokens + other.thinking_tokens,
            self.cached_tokens + other.cached_tokens,
            self.written_tokens + other.written_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def answer_tokens(self) -> int:
        """Output tokens that were not thought."""
        return self.output_tokens - self.thinking_tokens


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, which is micro-USD per token.

    `cached_input` is of input read from the provider's prompt cache, `cache_write` of input written to it (Anthropic:
    1.25 times the input price, 2 times for an hour); None means the input price.
    """

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None

    @property
    def dearest_input(self) -> float:
        """What an input token can cost at most."""
        return max(price for price in (self.input, self.cached_input, self.cache_write) if price is not None)

    def micros(self, usage: Usage) -> int:
        """Cost of `usage` in micro-USD, rounded up so that many small calls are never free."""
        read = self.input if self.cached_input is None else self.cached_input
        write = self.input if self.cache_write is None else self.cache_write
        fresh = usage.input_tokens - usage.cached_tokens - usage.written_tokens
        given = fresh * self.input + usage.cached_tokens * read + usage.written_tokens * write
        exact = given + usage.output_tokens * self.output
        # 1e-9 absorbs binary rounding: 3 tokens at 0.1 must cost 1 micro-USD, not 2 of some other sum.
        return math.ceil(exact - 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to spend: model x effort x thinking tokens x answer tokens (and how often to sample).

    `thinking_tokens` is a hard cap where the backend takes a number and a reserve inside `max_tokens`
    elsewhere. `instruction` is added to the system message: the only lever on models without reasoning.
    """

    id: str
    model: str
    effort: str | None = None
    thinking_tokens: int = 0
    answer_tokens: int = 1024
    temperature: float | None = None
    samples: int = 1
    timeout: float = 120.0
    price: Price = Price()
    instruction: str | None = None
    stops: Stops | None = None
    """When its thought, or a reply that is stuck, is ended early; None: never."""

    @property
    def max_tokens(self) -> int:
        """Output limit sent to the backend: thinking and answer together, always."""
        return self.thinking_tokens + self.answer_tokens

    def __hash__(self) -> int:
        # Ladders are looked up at every step: what tells rungs apart is enough, all fields cost ten times as much.
        return hash((self.id, self.model, self.thinking_tokens, self.answer_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is asked now, and in which context.

    `id` is unique per governed step and is the ledger's idempotency key. `state` holds context features
    (for example `tool_errors`, `retrieval_chars`). `checks` are verifier specs of this step alone, in the
    policy's `verify` syntax. `deadline` is in seconds from the start of the step. `baseline` names the rung
    that would have answered without Governor (used by shadow and control arms; default: the top rung).
    """

    id: str
    messages: tuple[Message, ...]
    node: str = "default"
    session: str = ""
    tenant: str = ""
    """Whose budget this is booked on: a customer, a key."""
    run: str = ""
    """One run of a graph (one invoke): what `budget.run` is summed under. A step without run is a run of its own."""
    parent: str = ""
    """The id of the step that this one is a part of: a model call inside a governed node."""
    index: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    """Which tools must be called, in OpenAI's shape: `auto`, `none`, `required`, or one function."""
    response_schema: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Mapping[str, Any], ...] = ()
    deadline: float | None = None
    seed: int | None = None
    baseline: str | None = None

    @property
    def prompt(self) -> str:
        """Text of the last user message (joined text parts), the empty string if there is none."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return text_of(message)
        return ""


def text_of(message: Message) -> str:
    """Plain text of a chat message whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is expected of one rung on one step: P(correct), P(verifier accepts), tokens, money, time, index.

    `output_tokens` is the mean, `spread` the standard deviation of log tokens around the forecast.
    """

    rung: str
    p_success: float
    p_accept: float
    output_tokens: float
    micros: float
    seconds: float
    index: float = 0.0
    spread: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next attempt: which rung, how it follows from the last one, and why."""

    rung: Rung
    mode: BacktrackMode = "first"
    reason: str = ""
    forecasts: tuple[Forecast, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """No further attempt is worth its price, or none is allowed; `refusal` where a budget allows none."""

    reason: str
    forecasts: tuple[Forecast, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a model. `prefix` is text the answer must go on from (continuation of a truncated reply)."""

    step_id: str
    rung: Rung
    messages: tuple[Message, ...]
    purpose: Literal["answer", "sample", "judge"] = "answer"
    attempt: int = 1
    sample: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    response_schema: Mapping[str, Any] | None = None
    prefix: str = ""
    seed: int | None = None
    timeout: float = 120.0
    logprobs: bool = False
    top_logprobs: int = 0
    """With `logprobs`: how many of the likeliest tokens a stream tells beside each (`Delta.tokens`)."""
    hold: bool = True
    """False when a stream of this call may be shown at once, because no verifier needs the whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call that the model asks for. `arguments` is raw JSON, valid or not; a custom tool's free text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer. `finish_reason`: stop, length, tool_calls, content_filter, stuck, doubted or a backend's word.

    `logprobs` are natural logs of the chosen tokens' probabilities in order, None where not reported.
    `usage_known` is False when the backend reported none; the spend is then booked at the call's bound.
    `spent` is what it came to where it was made of several calls (a governed node's); None: one call of its rung.
    """

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = Usage()
    usage_known: bool = True
    seconds: float = 0.0
    logprobs: tuple[float, ...] | None = None
    model: str = ""
    spent: Amount | None = None
    stopped: str = ""
    """The stop rule that ended its thought, or the reply itself; empty where none did."""

    @property
    def stuck(self) -> bool:
        """True when it was ended because nothing came of it: such an answer is never trusted."""
        return self.finish_reason == "stuck"

    @property
    def doubted(self) -> bool:
        """True when it was ended because no answer that begins so is accepted."""
        return self.finish_reason == "doubted"

    @property
    def truncated(self) -> bool:
        """True when the reply was cut by its token limit."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier says of a reply. `score` is 0..1 where it has one; `feedback` is text a model can act on.

    `usage`, `micros`, `calls` and `seconds` are what the verification spent (judge calls, extra samples, its own time):
    the step's account counts and sets them, whatever a verifier says there.
    `error` is set when the verifier itself broke down; the decision is then `unsure`.
    """

    decision: Decision
    verifier: str
    score: float | None = None
    feedback: str = ""
    failure: Failure = ""
    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Call + reply + verdict + spend. `usage` and `micros` are the model's, the verifier's stand in the verdict."""

    number: int
    rung: Rung
    mode: BacktrackMode
    reply: Reply | None
    verdict: Verdict | None
    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0
    error: str = ""
    reason: str = ""
    forecasts: tuple[Forecast, ...] = ()

    @property
    def failure(self) -> Failure:
        """What went wrong; empty = nothing did. A cut reply that was not accepted is truncated, whatever else it is."""
        if self.reply is None:
            return "fault"
        verdict = self.verdict
        if verdict is not None and verdict.decision == "accept":
            return ""
        if self.reply.truncated:
            return "truncated"
        if verdict is None:
            return ""
        return verdict.failure or ("wrong" if verdict.decision == "reject" else "")

    @property
    def rejected(self) -> bool:
        """Whether the verifier called the answer wrong."""
        return self.verdict is not None and self.verdict.decision == "reject"

    @property
    def shippable(self) -> bool:
        """Whether there is an answer that could be shipped, if nothing better comes: whole, not refused or empty."""
        return self.reply is not None and not self.reply.doubted and self.failure not in ANSWERLESS_FAILURES

    @property
    def spent(self) -> Amount:
        """Everything this attempt used, its verifier included."""
        checked = self.verdict or Verdict(decision="unsure", verifier="")
        return Amount(
            tokens=self.usage.total_tokens + checked.usage.total_tokens,
            micros=self.micros + checked.micros,
            millis=math.ceil((self.seconds + checked.seconds) * 1000),
            calls=self.calls + checked.calls,
            input=self.usage.input_tokens + checked.usage.input_tokens,
            thinking=self.usage.thinking_tokens + checked.usage.thinking_tokens,
            answer=self.usage.answer_tokens + checked.usage.answer_tokens,
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What a step spent of one model that has a budget of its own, and the ledger's scopes that it was booked on."""

    model: str
    spent: Amount
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a step: the answer that ships, and everything that was tried and spent for it.

    `arm` says whether the step was governed; in the shadow and control arms `decided` is the rung that
    Governor would have called first. `saved`-type figures are never stored here: they need a baseline.
    """

    step_id: str
    status: Status
    answer: str = ""
    reply: Reply | None = None
    rung: str = ""
    attempts: tuple[Attempt, ...] = ()
    spent: Amount = Amount()
    usage: Usage = Usage()
    verifier_usage: Usage = Usage()
    seconds: float = 0.0
    arm: Arm = "governed"
    decided: str = ""
    difficulty: float | None = None
    reason: str = ""
    error: str = ""
    node: str = "default"
    session: str = ""
    run: str = ""
    parent: str = ""
    """The step that this one is a part of; its `spent` is told there too."""
    audit: bool = False
    """The application promised to label this step's answer: `Governor.feedback`."""
    refusal: Refusal | None = None
    """Where a budget ended the step: which, and when to come again."""
    scopes: tuple[str, ...] = ()
    """The ledger's scopes that `spent` was booked on; () where the step was booked nowhere."""
    shares: tuple[Share, ...] = ()
    """What of it was booked on the budgets of single models besides."""
