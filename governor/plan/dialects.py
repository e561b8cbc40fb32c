"""The one table of what each kind of backend understands: a row says how a rung's knobs are spelled and where they end.

Parameters are written as LiteLLM takes them; `"{effort}"` and `"{tokens}"` stand for the rung's values. Every row was
sent through LiteLLM 1.106.2 and read back from the wire (tests/governor_litellm/test_effort_wire.py). The first row
whose pattern matches the model's name wins; the last row of a name is the general one, chosen when a policy states
`wire: NAME` for a model that no pattern knows.

Sources: OpenAI and Anthropic levels and limits: LiteLLM's bundled model map; DeepSeek:
api-docs.deepseek.com/guides/thinking_mode; Gemini: ai.google.dev/gemini-api/docs/thinking; Qwen:
alibabacloud.com/help/en/model-studio/deep-thinking; vLLM: its 0.32 sources; llama.cpp: its server, run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

from governor.errors import PolicyError, Problem

Hardness = Literal["hard", "soft", "none"]
When = Literal["always", "when_off", "never"]
"""When a knob may be used: always, only while thinking is switched off, or never."""

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Every effort word, least thinking first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """How a truncated reply is resumed from its text.

    `message` joins the trailing assistant message, `request` the request body. `echoes`: the server repeats
    the prefix in front of what it adds.
    """

    when: When
    message: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    echoes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One row. `thinking` says what `thinking_tokens` does: a cap the backend enforces, a reserve, or nothing.

    `effort`, `off`, `on` and `budget` are the parameters for an effort word, for thinking switched off, for thinking
    switched on without a word, and for a number of thinking tokens. `off` None: thinking can't be switched off.
    `known` False: nothing tells whether the model thinks, nor whether it shows its thoughts. `limit` is the name
    under which the provider receives the output limit. `temperature` and `logprobs` say when they are accepted (a
    temperature of exactly 1 always is), `forces` when a tool may be forced on the model. `cautious` warns of
    temperatures under 1. `template_words`: effort words act only where the served chat template reads them.
    `counts`: the server tells the usage with every piece of a stream where it is asked to. `messages`: the provider
    speaks Anthropic's Messages API itself. `lacks`: fields of a chat request that its client refuses for the model,
    where it was asked. Limits are tokens, None where not stated.
    """

    name: str
    models: tuple[str, ...] = ()
    thinking: Hardness
    efforts: tuple[str, ...] = ()
    effort: Mapping[str, Any] | None = None
    off: Mapping[str, Any] | None = None
    on: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
    min_thinking: int = 0
    max_thinking: int | None = None
    thinks_by_default: bool = False
    known: bool = True
    template_words: bool = False
    limit: str = "max_tokens"
    temperature: When = "always"
    cautious: bool = False
    logprobs: When = "never"
    seed: bool = True
    forces: When = "always"
    counts: bool = False
    messages: bool = False
    max_output_tokens: int | None = None
    context_window: int | None = None
    continuation: Continuation | None = None
    lacks: frozenset[str] = frozenset()
    route: str = ""
    """LiteLLM prefix that reaches this dialect, put before a model name that lacks it."""

    def __hash__(self) -> int:
        return hash(self.name)  # its mappings have no hash, and rows of one name are few


LOW_HIGH = ("low", "medium", "high")
WORD: Mapping[str, Any] = {"reasoning_effort": "{effort}"}
WORD_OFF: Mapping[str, Any] = {"reasoning_effort": "none"}
TEMPLATE_OFF: Mapping[str, Any] = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}

PREFILL = Continuation(when="when_off")
CONTINUE_FINAL = {"continue_final_message": True, "add_generation_prompt": False}


def _openai(*names: str) -> tuple[str, ...]:
    return tuple(prefix + name for name in names for prefix in ("", "openai/"))


def _claude(*names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}claude-{name}*" for name in names for prefix in ("", "anthropic/"))


PLAIN = Dialect(name="plain", thinking="none", logprobs="always")
_OPENAI = Dialect(
    name="openai-chat",
    thinking="soft",
    efforts=LOW_HIGH,
    effort=WORD,
    thinks_by_default=True,
    limit="max_completion_tokens",
    temperature="never",
    max_output_tokens=128_000,
)
_SWITCHABLE = replace(
    _OPENAI, efforts=("none", *LOW_HIGH, "xhigh"), off=WORD_OFF, temperature="when_off", logprobs="when_off"
)
_CHAT: tuple[Dialect, ...] = (
    replace(_SWITCHABLE, models=_openai("gpt-6-sol*", "gpt-6-luna*")),
    replace(_OPENAI, models=_openai("gpt-6*"), efforts=(*LOW_HIGH, "xhigh")),
    replace(_SWITCHABLE, models=_openai("gpt-5.5*", "gpt-5.6*")),
    replace(_SWITCHABLE, models=_openai("gpt-5.2*", "gpt-5.4*"), thinks_by_default=False),
    replace(_SWITCHABLE, models=_openai("gpt-5.1*"), efforts=("none", *LOW_HIGH), thinks_by_default=False),
    replace(_OPENAI, models=_openai("gpt-5", "gpt-5-*"), efforts=("minimal", *LOW_HIGH)),
    replace(_OPENAI, models=_openai("o1*", "o3*", "o4*"), max_output_tokens=100_000),
)


def _responses(row: Dialect) -> Dialect:
    """The same model over OpenAI's Responses API, which alone takes `max` (the gpt-6 family)."""
    most = ("max",) if any("gpt-6" in name for name in row.models) else ()
    return replace(
        row,
        name="openai-responses",
        models=(*row.models, *(f"openai/responses/{name}" for name in row.models if "/" not in name)),
        efforts=(*row.efforts, *most),
        limit="max_output_tokens",
        logprobs="never",
        seed=False,
        route="openai/responses/",
    )


_RESPONSES_ONLY = replace(_responses(_OPENAI), route="")
_CLAUDE = Dialect(
    name="anthropic-budget",
    thinking="hard",
    efforts=("none",),
    off={"thinking": {"type": "disabled"}},
    budget={"thinking": {"type": "enabled", "budget_tokens": "{tokens}"}},
    min_thinking=1024,
    temperature="when_off",
    seed=False,
    forces="when_off",
    messages=True,
    max_output_tokens=64_000,
    context_window=200_000,
    continuation=PREFILL,
)
_ADAPTIVE = replace(
    _CLAUDE,
    name="anthropic-adaptive",
    thinking="soft",
    efforts=("none", *LOW_HIGH, "xhigh", "max"),
    effort=WORD,
    on={"thinking": {"type": "adaptive"}},
    budget=None,
    min_thinking=0,
    temperature="never",
    max_output_tokens=128_000,
    context_window=1_000_000,
    continuation=None,
)
_ALWAYS_ON = replace(_ADAPTIVE, efforts=_ADAPTIVE.efforts[1:], off=None, thinks_by_default=True)
_GEMINI_25 = Dialect(
    name="gemini-2.5",
    thinking="hard",
    efforts=("none",),
    off={"thinking": {"type": "enabled", "budget_tokens": 0}},
    budget={"thinking": {"type": "enabled", "budget_tokens": "{tokens}"}},
    min_thinking=1,
    max_thinking=24_576,
    thinks_by_default=True,
    limit="max_output_tokens",
    max_output_tokens=65_536,
    context_window=1_048_576,
)
_GEMINI_3 = replace(
    _GEMINI_25,
    name="gemini-3",
    thinking="soft",
    efforts=LOW_HIGH,
    effort=WORD,
    off=None,
    budget=None,
    min_thinking=0,
    max_thinking=None,
    cautious=True,
)
_DEEPSEEK = Dialect(
    name="deepseek",
    thinking="soft",
    efforts=("none", "low", "high", "max"),
    # LiteLLM turns `reasoning_effort` into on or off and loses the word: it has to travel in the body.
    effort={"thinking": {"type": "enabled"}, "extra_body": {"reasoning_effort": "{effort}"}},
    off={"thinking": {"type": "disabled"}},
    on={"thinking": {"type": "enabled"}},
    thinks_by_default=True,
    temperature="when_off",
    max_output_tokens=393_216,
    context_window=1_000_000,
    continuation=Continuation(when="when_off", message={"prefix": True}),
)
_QWEN = Dialect(
    name="dashscope",
    thinking="hard",
    efforts=("none",),
    off={"extra_body": {"enable_thinking": False}},
    budget={"extra_body": {"enable_thinking": True, "thinking_budget": "{tokens}"}},
    min_thinking=1,
    continuation=Continuation(when="when_off", message={"partial": True}),
)
_VLLM = Dialect(
    name="hosted-vllm",
    thinking="hard",
    efforts=EFFORTS,
    effort=WORD,
    off={**WORD_OFF, **TEMPLATE_OFF},
    budget={"extra_body": {"thinking_token_budget": "{tokens}"}},
    min_thinking=1,
    template_words=True,
    logprobs="always",
    counts=True,
    continuation=Continuation(when="always", request=CONTINUE_FINAL),
)
_LLAMA = Dialect(
    name="llama-cpp",
    thinking="hard",
    efforts=("none",),
    off=TEMPLATE_OFF,
    budget={"extra_body": {"thinking_budget_tokens": "{tokens}"}},
    min_thinking=1,  # 0 is read as "no budget" by the server of 2026-10
    logprobs="always",
    continuation=Continuation(when="always", echoes=True),
)
_GPT_OSS = Dialect(
    name="gpt-oss", models=("*gpt-oss*",), thinking="soft", efforts=LOW_HIGH, effort=WORD, thinks_by_default=True
)

DIALECTS: tuple[Dialect, ...] = (
    _GPT_OSS,
    replace(PLAIN, models=_openai("gpt-4*", "gpt-3.5*", "chatgpt-4o*")),
    replace(PLAIN, models=_openai("gpt-5*-chat*", "gpt-5-search*"), temperature="never", logprobs="never"),
    replace(_RESPONSES_ONLY, models=_openai("gpt-5-pro*"), efforts=("high",)),
    replace(_RESPONSES_ONLY, models=_openai("gpt-5.?-pro*"), efforts=("medium", "high", "xhigh")),
    replace(_RESPONSES_ONLY, models=_openai("gpt-5*codex*", "o1-pro*", "o3-pro*", "o?-*deep-research*")),
    *_CHAT,
    *(_responses(row) for row in _CHAT),
    replace(_responses(_OPENAI), models=("openai/responses/*",)),
    replace(_ALWAYS_ON, models=_claude("fable-5", "mythos-", "opus-5-5", "sonnet-5-5")),
    replace(_ADAPTIVE, models=_claude("opus-5", "sonnet-5", "haiku-5", "opus-4-7", "opus-4-8")),
    replace(
        _ADAPTIVE,
        models=_claude("opus-4-6", "sonnet-4-6"),
        efforts=("none", *LOW_HIGH, "max"),
        temperature="when_off",
    ),
    replace(
        _CLAUDE,
        models=_claude("opus-4-5"),
        efforts=("none", *LOW_HIGH),
        effort={"output_config": {"effort": "{effort}"}},
    ),
    replace(_CLAUDE, models=_claude("opus-4"), max_output_tokens=32_000),
    replace(_CLAUDE, models=_claude("3-7", "sonnet-4", "haiku-4-5")),
    replace(PLAIN, models=_claude("3", "2"), logprobs="never", seed=False, continuation=Continuation(when="always")),
    replace(
        _GEMINI_25, models=("gemini/gemini-2.5-pro*",), off=None, efforts=(), min_thinking=128, max_thinking=32_768
    ),
    replace(_GEMINI_25, models=("gemini/gemini-2.5-flash-lite*",), min_thinking=512, thinks_by_default=False),
    replace(_GEMINI_25, models=("gemini/gemini-2.5-flash*",)),
    replace(_GEMINI_3, models=("gemini/gemini-3-pro*",), efforts=("low", "high")),
    replace(_GEMINI_3, models=("gemini/gemini-3.[78]-flash*",)),
    replace(_GEMINI_3, models=("gemini/gemini-3*flash*",), efforts=("minimal", *LOW_HIGH)),
    replace(_GEMINI_3, models=("gemini/gemini-[3-9]*",)),
    replace(_DEEPSEEK, models=("deepseek/deepseek-v4*", "deepseek/deepseek-flash*", "deepseek/deepseek-reasoner*")),
    replace(PLAIN, models=("dashscope/*coder*", "dashscope/qwen-max*"), logprobs="never"),
    replace(
        _QWEN,
        models=("dashscope/*-thinking*", "dashscope/qwq*"),
        efforts=(),
        off=None,
        budget={"extra_body": {"thinking_budget": "{tokens}"}},
        thinks_by_default=True,
        continuation=None,
    ),
    replace(_QWEN, models=("dashscope/qwen3.[5-9]*",), thinks_by_default=True),
    replace(_QWEN, models=("dashscope/qwen*",)),
    replace(_VLLM, models=("hosted_vllm/*", "vllm/*")),
    replace(_LLAMA, models=("llamafile/*",)),
    replace(_LLAMA, name="llama-cpp-plain", thinking="none", efforts=(), off=None, budget=None, min_thinking=0),
    replace(PLAIN, models=("*",), known=False),
    PLAIN,
)

NAMES: tuple[str, ...] = tuple(dict.fromkeys(row.name for row in DIALECTS))
"""The words a policy may use for `wire`."""


def dialect_for(model: str, wire: str | None = None) -> Dialect:
    """The row for `model` as LiteLLM names it (`openai/gpt-5`); `wire` states the dialect of a server no name tells.

    A model that nothing is known about is `plain`: no reasoning knob is sent to it. One that `wire` says to be `plain`
    is known not to think. Raises PolicyError for an unknown `wire`.
    """
    rows = [row for row in DIALECTS if wire is None or (row.name == wire and row.known)]
    if not rows:
        close = get_close_matches(str(wire), NAMES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"one of {', '.join(NAMES)}"
        raise PolicyError([Problem(f"unknown dialect '{wire}'", field="wire", hint=hint)])
    name = model.lower()
    return next((row for row in rows if any(fnmatchcase(name, known) for known in row.models)), rows[-1])
