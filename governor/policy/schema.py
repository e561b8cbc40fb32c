"""The typed policy: one frozen model per mapping of the file. What each key means is said here, once.

The docstrings under the fields become the descriptions of the JSON Schema that editors show. The models
judge shape, type and range; what spans several keys (unknown rungs, `dial` beside `keep`) is judged in
`governor.policy.consistency`, which `load_policy` and `policy_from` always run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, PrivateAttr, Tag

from governor.policy.budget import Budget
from governor.policy.engine import EngineSpec
from governor.policy.part import Part
from governor.policy.rewind import OnFail, ToolRule
from governor.policy.scalars import (
    APP_FORM,
    LEDGER_FORM,
    Count,
    Effort,
    Keep,
    Money,
    Regex,
    RungId,
    Seconds,
    Share,
    StateValue,
    Text,
    Tokens,
    TokenWindow,
    VerifySpec,
)
from governor.policy.stops import StopsSpec
from governor.records import Price, Rung

VERSION = 1

FILES: tuple[Literal["calibration", "certificate"], ...] = ("calibration", "certificate")
"""Keys that name a file beside the policy."""


class PriceSpec(Part):
    """USD per million tokens."""

    input: Money = Field(default=0.0, examples=[0.25])
    """Price of a million input tokens."""
    output: Money = Field(default=0.0, examples=[2.0])
    """Price of a million output tokens; thinking counts as output."""
    cached_input: Money | None = Field(default=None, examples=[0.025])
    """Price of a million input tokens read from the provider's prompt cache (default: the input price)."""
    cache_write: Money | None = Field(default=None, examples=[0.3125])
    """Price of a million input tokens written to the provider's prompt cache (default: the input price)."""

    @property
    def price(self) -> Price:
        """As the record that does sums."""
        return Price(self.input, self.output, self.cached_input, self.cache_write)


class ModelSpec(Part):
    """What Governor must know of a model that it can't ask the provider."""

    api_base: Text | None = Field(default=None, examples=["http://localhost:8000/v1"])
    """Address of the server, for models that are not at their provider's usual one."""
    api_key_env: Text | None = Field(default=None, examples=["OPENAI_API_KEY"])
    """Name of the environment variable that holds the key; keys themselves never stand in a policy."""
    price: PriceSpec | None = None
    """USD per million tokens. Money limits and the dial see a model without price as free."""
    context_window: TokenWindow | None = Field(default=None, examples=[272_000])
    """Tokens of prompt and output together."""
    max_output_tokens: TokenWindow | None = Field(default=None, examples=[128_000])
    """Most tokens of one reply, thinking included."""
    wire: Text | None = Field(default=None, examples=["hosted-vllm"])
    """Dialect of the effort table, where the model's name does not tell which one its server speaks."""
    engine: EngineSpec | None = None
    """What is asked of the engine itself, for models named `vllm/NAME`."""


class RungSpec(Part):
    """One way to spend: a model, how hard it thinks, and how long its answer may be."""

    id: RungId = Field(examples=["mini-low"])
    """Name of the rung in this policy, its records and reports."""
    model: Text = Field(examples=["openai/gpt-5-mini"])
    """The model as LiteLLM names it; must stand under `models` where that is given."""
    effort: Effort | None = Field(default=None, examples=["low", "high"])
    """The provider's word for how hard to think; left out: nothing is sent."""
    thinking_tokens: Tokens = Field(default=0, examples=[4096])
    """Thinking tokens: a hard cap where the backend takes a number, elsewhere a reserve inside max_tokens."""
    answer_tokens: Annotated[int, Field(gt=0, le=10_000_000)] = Field(default=1024, examples=[1024])
    """Tokens for the answer itself; max_tokens is always thinking and answer together."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, examples=[0.7])
    """Sampling temperature; left out: the provider's own default."""
    samples: Annotated[int, Field(ge=1, le=64)] = Field(default=1, examples=[3])
    """Answers drawn for one attempt (an agreement verifier compares them)."""
    timeout: Seconds = Field(default=120.0, examples=[60])
    """Seconds until a call on this rung is given up."""
    price: PriceSpec | None = None
    """Overrides the model's price on this rung."""
    instruction: Text | None = Field(default=None, examples=["Think step by step, then answer."])
    """Added to the system message: the only lever on models without reasoning."""
    stops: StopsSpec | None = Field(default=None, examples=[{"repeat": 4}])
    """When this rung's thoughts are ended early; replaces the rule's and the policy's `stops`."""

    def rung(self, models: Mapping[str, ModelSpec]) -> Rung:
        """The rung as a record, priced by its own price, else by its model's, else at zero."""
        model = models.get(self.model)
        spec = self.price or (model.price if model else None) or PriceSpec()
        return Rung(
            id=self.id,
            model=self.model,
            effort=self.effort,
            thinking_tokens=self.thinking_tokens,
            answer_tokens=self.answer_tokens,
            temperature=self.temperature,
            samples=self.samples,
            timeout=self.timeout,
            price=spec.price,
            instruction=self.instruction,
            stops=self.stops.stops if self.stops else None,
        )


class Canary(Part):
    """A share of sessions is governed; the rest runs as in shadow."""

    canary: Share = Field(examples=[0.1])
    """Share of sessions that are governed, 0 to 1."""


# Tags of unions begin with '<' so that they can be told from keys in the place of an error.
def _mode_tag(value: Any) -> str | None:
    return "<word>" if isinstance(value, str) else "<canary>" if isinstance(value, dict | Canary) else None


def _rung_tag(value: Any) -> str | None:
    return "<id>" if isinstance(value, str) else "<rung>" if isinstance(value, dict | RungSpec) else None


def _node_tag(value: Any) -> str | None:
    return "<glob>" if isinstance(value, str) else "<globs>" if isinstance(value, list | tuple) else None


Mode: TypeAlias = Annotated[
    Annotated[Literal["on", "shadow"], Tag("<word>")] | Annotated[Canary, Tag("<canary>")],
    Discriminator(_mode_tag, custom_error_type="mode", custom_error_message="must be on, shadow or {canary: SHARE}"),
]
RungRef: TypeAlias = Annotated[
    Annotated[RungId, Tag("<id>")] | Annotated[RungSpec, Tag("<rung>")],
    Discriminator(_rung_tag, custom_error_type="rung", custom_error_message="must be a rung's id, or a rung"),
]
Globs: TypeAlias = Annotated[
    Annotated[Text, Tag("<glob>")]
    | Annotated[tuple[Text, ...], Field(strict=False, min_length=1), Tag("<globs>")],
    Discriminator(_node_tag, custom_error_type="globs", custom_error_message="must be a glob, or a list of globs"),
]  # fmt: skip


class Match(Part):
    """Conditions on a step; all that are given must hold. An empty match holds for every step."""

    node: Globs | None = Field(default=None, examples=["solve", ["plan*", "review"]])
    """Name of the graph node, or a list of names; `*`, `?` and `[...]` as in file names, case matters."""
    tools: bool | None = Field(default=None, examples=[True])
    """Whether the step offers tools to the model."""
    schema_: bool | None = Field(default=None, alias="schema", examples=[True])
    """Whether the step asks for an answer in a JSON Schema."""
    min_prompt_chars: Count | None = Field(default=None, examples=[2000])
    """Least length of the last user message, in characters."""
    max_prompt_chars: Count | None = Field(default=None, examples=[200])
    """Greatest length of the last user message, in characters."""
    prompt: Regex | None = Field(default=None, examples=["(?i)refund|chargeback"])
    """Python regular expression searched for in the last user message."""
    state: Mapping[Text, StateValue] = Field(default_factory=dict, examples=[{"tier": "gold"}])
    """Values that the step's state must hold, key by key."""


class Backtrack(Part):
    """How an answer that was not accepted may be followed up."""

    modes: Annotated[
        tuple[Literal["continue", "more", "feedback", "fresh", "again", "agree", "compare", "verify"], ...],
        Field(strict=False),
    ] = ("continue", "more", "feedback", "fresh", "again", "agree", "compare", "verify")
    """continue a cut reply; more thinking on the same model; a higher rung with the verdict's feedback, or fresh; the
    same rung again; a second sample (agree) or another rung's answer (compare) to compare; another verdict (verify)."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Most attempts of one step, the first included."""


class Sandbox(Part):
    """Limits of the process that runs code out of replies."""

    allow_unsandboxed: bool = False
    """Run such code even where the machine offers no isolation (bubblewrap, user namespaces)."""
    wall_seconds: Seconds = 10.0
    """Seconds of wall-clock time."""
    cpu_seconds: Seconds = 8.0
    """Seconds of processor time."""
    memory_mb: Annotated[int, Field(gt=0, le=1_048_576)] = 1024
    """Memory in MiB."""


class RecordsSpec(Part):
    """Which texts may stand in the decision records."""

    prompts: bool = False
    """Keep the text of prompts."""
    answers: bool = False
    """Keep the text of answers."""


def _dial_or_keep(schema: dict[str, Any]) -> None:
    schema["not"] = {"required": ["dial", "keep"]}


class Rule(Part):
    """Overrides for the steps that match; the first matching rule of the list is the only one used."""

    model_config = ConfigDict(json_schema_extra=_dial_or_keep)

    match: Match = Match()
    """Conditions; left out, the rule holds for every step."""
    ladder: Annotated[tuple[RungRef, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, examples=[["mini-low", "top"]]
    )
    """The rungs for these steps, cheapest first: ids of the policy's ladder, or rungs of their own."""
    dial: Share | None = Field(default=None, examples=[0.5])
    """Replaces the policy's `dial` or `keep`."""
    keep: Keep | None = Field(default=None, examples=[0.98])
    """Replaces the policy's `dial` or `keep`."""
    verify: VerifySpec = Field(default=None, examples=["complete", {"regex": "^yes|no$"}])
    """Replaces the policy's `verify`; null: no verification."""
    budget: Budget | None = None
    """The keys given here replace those of the policy's budget."""
    backtrack: Backtrack | None = None
    """The keys given here replace those of the policy's backtrack."""
    difficulty: Share | None = Field(default=None, examples=[0.8])
    """Stated difficulty, 0 trivial to 1 hardest, instead of the estimate."""
    deadline: Seconds | None = Field(default=None, examples=[30])
    """Seconds a step may take, all attempts together."""
    mode: Mode | None = Field(default=None, examples=["shadow"])
    """Replaces the policy's mode."""
    harm: Money | None = Field(default=None, examples=[2.0])
    """Replaces the policy's harm."""
    latency: Money | None = Field(default=None, examples=[0.001])
    """Replaces the policy's latency."""
    on_fail: OnFail | None = Field(default=None, examples=[{"backtrack": {"to": "plan", "rung": 1, "max": 2}}])
    """What happens when a step of this rule fails for good, in a graph that can rewind."""
    stops: StopsSpec | None = Field(default=None, examples=[{"repeat": 4, "margin": 0.1}])
    """Replaces the policy's `stops`."""


def _ladder_or_extends(schema: dict[str, Any]) -> None:
    _dial_or_keep(schema)
    schema["description"] = schema["description"].partition("\n")[0]
    schema["required"] = [key for key in schema["required"] if key != "ladder"]
    schema["anyOf"] = [{"required": ["ladder"]}, {"required": ["extends"]}]


class Policy(Part):
    """A compute-governor policy: which models may think how much, for which steps, within which budget.

    Made by `load_policy` or `policy_from`, which also check what spans several keys. Equal policies have
    equal digests; a policy can be a dictionary key.
    """

    model_config = ConfigDict(json_schema_extra=_ladder_or_extends)

    version: Literal[1]
    """Version of this file format."""
    app: Annotated[str, Field(pattern=APP_FORM, max_length=64)] = Field(default="default", examples=["support-desk"])
    """Name of the application: the key of its budget and records."""
    extends: Text | None = Field(default=None, examples=["balanced", "../shared/base.yaml"])
    """A shipped policy's name, or the path of a policy file relative to this one. Mappings merge, lists replace."""
    dial: Share | None = Field(default=None, examples=[0.3])
    """0 quality first .. 1 thrift (default 0.3). Not together with `keep`."""
    keep: Keep | None = Field(default=None, examples=[0.98])
    """Share of the top rung's quality to keep, at the lowest cost. Not together with `dial`."""
    harm: Money = Field(default=0.5, examples=[0.5])
    """Loss of a wrong answer that is accepted, where a right one gains 1."""
    latency: Money = Field(default=0.0, examples=[0.0002])
    """What a second of waiting is worth in USD: slow rungs then cost more."""
    mode: Mode = Field(default="on", examples=["on", "shadow", {"canary": 0.1}])
    """on: decide; shadow: record what would be decided, call the baseline; canary: decide for a share of sessions."""
    fail: Literal["open", "closed"] = "closed"
    """When Governor itself can't work (ledger or records down): answer ungoverned, or refuse."""
    stream: Literal["buffer", "speculate", "pass"] | None = Field(default=None, examples=["speculate"])
    """In a proxy, a stream that has a verifier: held back until it is accepted, shown a sentence at a time as long as
    the verifier has no doubt, or shown as it comes and not verified. Left out: as the proxy is set up."""
    require_hard: bool = False
    """Refuse rungs whose thinking_tokens the backend can't enforce."""
    models: Mapping[Text, ModelSpec] = Field(default_factory=dict)
    """Facts about models by LiteLLM name. Once given, every rung's model must stand here."""
    ladder: Annotated[tuple[RungSpec, ...], Field(strict=False, min_length=1)]
    """The rungs, cheapest first; the last is the top rung."""
    baseline: RungId | None = Field(default=None, examples=["top"])
    """The rung that would answer without Governor, for shadow and control arms (default: the top rung)."""
    verify: VerifySpec = Field(default=None, examples=["complete", {"all": ["complete", {"regex": r"\d+"}]}])
    """How answers are checked: a verifier's name, `{name: options}`, a list (all must accept), or all / any / then."""
    budget: Budget = Budget()
    """Hard limits on tokens, money, time and calls."""
    backtrack: Backtrack = Backtrack()
    """What may follow an answer that was not accepted."""
    stops: StopsSpec | None = Field(default=None, examples=[{"repeat": 4}])
    """When thoughts are ended early (default: never), on rungs that say nothing of their own."""
    deadline: Seconds | None = Field(default=None, examples=[60])
    """Seconds a step may take, all attempts together."""
    steps: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """Rules for particular steps; the first that matches is used."""
    tools: Annotated[Mapping[Text, ToolRule], Field(max_length=1_000)] = Field(
        default_factory=dict, examples=[{"send_*": {"on_rewind": "forbid", "max_calls": 1}}]
    )
    """Rules of tools by name or glob, the first that matches; a tool that none matches has the defaults."""
    ungoverned: Literal["error", "pass"] = "error"
    """When a governed node calls a chat model that can't take the rung: an error, or the call as it is."""
    sandbox: Sandbox = Sandbox()
    """Limits for code out of replies."""
    records: RecordsSpec = RecordsSpec()
    """Which texts the records may hold."""
    ledger: Annotated[str, Field(pattern=LEDGER_FORM)] | None = Field(default=None, examples=["sqlite:///governor.db"])
    """Where spend is booked, and what is learned while serving is kept."""
    calibration: Text | None = Field(default=None, examples=["support.npz"])
    """A file of `governor fit`, relative to this one: forecasts are learned ones, and the dial follows its frontier."""
    online: bool = False
    """Recalibrate forecasts by the outcomes that are seen while serving. Decisions then change with time."""
    certificate: Text | None = Field(default=None, examples=["certificate.json"])
    """A file of `governor certify`, relative to this one: no thriftier dial than it shows is used."""
    safe_dial: Share = Field(default=0.0, examples=[0.1])
    """The dial where the certificate does not fit what is loaded, or audits refute it."""
    audit: Share = Field(default=0.0, examples=[0.02])
    """Share of steps whose answers the application promises to label; their outcomes say `audit: true`."""

    _folders: dict[str, Path] = PrivateAttr(default_factory=dict)

    def file_of(self, key: Literal["calibration", "certificate"]) -> Path | None:
        """Where the file under `key` lies: relative to the policy file that names it, else to the working folder."""
        name: str | None = getattr(self, key)
        return None if name is None else self._folders.get(key, Path()) / name

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the merged content: key order (but that of globs), comments, inheritance don't matter."""
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"extends"})
        budgets = [part.get("budget") or {} for part in (content, *content.get("steps", ()))]
        for holder, key in ((content, "tools"), *((budget, "model") for budget in budgets)):
            if key in holder:
                holder[key] = [*holder[key].items()]  # the first glob that matches holds
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every budget that it states: its own, and those of rules."""
        return (self.budget, *(rule.budget for rule in self.steps if rule.budget is not None))

    @cached_property
    def rungs(self) -> Mapping[str, Rung]:
        """Every rung by id: the ladder's in order, then those that rules bring themselves."""
        own = [spec for rule in self.steps for spec in rule.ladder or () if isinstance(spec, RungSpec)]
        return {spec.id: spec.rung(self.models) for spec in [*self.ladder, *own]}

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, Policy) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy whose digest and rungs are its own, not remembered from the original."""
        copied = super().model_copy(update=update, deep=deep)
        for remembered in ("digest", "rungs"):
            vars(copied).pop(remembered, None)
        return copied
