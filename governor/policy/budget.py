"""`budget` of a policy file: hard limits, their scopes and windows, and what is reserved for a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag

from governor.policy.part import Part
from governor.policy.period import TOTAL, Per, placed
from governor.policy.scalars import Count, Money, Text, Weight
from governor.records import Limit, Window


class Limits(Part):
    """Ceilings; each is counted on its own and what is left out is not limited."""

    tokens: Count | None = Field(default=None, examples=[50_000])
    """Input and output tokens together."""
    input_tokens: Count | None = Field(default=None, examples=[40_000])
    """Tokens of the prompts."""
    thinking_tokens: Count | None = Field(default=None, examples=[8_000])
    """Tokens of thought. Where a server does not say how many these were, all its output counts as answer."""
    answer_tokens: Count | None = Field(default=None, examples=[2_000])
    """Tokens of the answers, without thought."""
    usd: Money | None = Field(default=None, examples=[0.05])
    """Money in USD."""
    seconds: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = Field(default=None, examples=[60])
    """Seconds of model and verifier time, summed; of a call its time limit, of a step its deadline."""
    calls: Count | None = Field(default=None, examples=[10])
    """Requests to models."""

    def limit(self, scope: str, window: Window = TOTAL) -> Limit:
        """The same ceilings in the ledger's units: micro-USD and milliseconds."""
        micros = None if self.usd is None else round(self.usd * 1_000_000)
        millis = None if self.seconds is None else round(self.seconds * 1000)
        parts = self.input_tokens, self.thinking_tokens, self.answer_tokens
        return Limit(scope, self.tokens, micros, millis, self.calls, *parts, window)


def _inheritable(schema: dict[str, Any]) -> None:
    del schema["required"]  # a file that extends another may leave to it what the merged policy must have


class PeriodLimits(Limits):
    """Ceilings of what many sessions share, anew each period."""

    model_config = ConfigDict(json_schema_extra=_inheritable)

    per: Per = Field(examples=["day"])
    """The period, in UTC; weeks begin on Monday. total: for good."""
    sliding: bool = Field(default=False, examples=[True])
    """Count the last 60 seconds, hour, 24 hours, 7 or 30 days at every moment, instead of calendar periods."""
    pace: Annotated[tuple[Weight, ...], Field(strict=False, min_length=1, max_length=1_000)] | None = Field(
        default=None, examples=[[1]]
    )
    """Spread the money over the period: weights of equal slices of it, [1] evenly, 24 for the hours of a day. Spend
    ahead of this makes dear rungs dearer until it is caught up; the limit itself holds as without."""

    def limit_at(self, scope: str, when: float) -> Limit:
        """The ceilings on the scope of the period that `when` (POSIX seconds) falls into."""
        return self.limit(*placed(scope, self.per, self.sliding, when))


def _periods_tag(value: Any) -> str | None:
    one = isinstance(value, dict | PeriodLimits)
    return "<period>" if one else "<periods>" if isinstance(value, list | tuple) else None


Periods: TypeAlias = Annotated[
    Annotated[PeriodLimits, Tag("<period>")]
    | Annotated[tuple[PeriodLimits, ...], Field(strict=False, min_length=1), Tag("<periods>")],
    Discriminator(
        _periods_tag, custom_error_type="periods", custom_error_message="must be limits with a period, or a list"
    ),
]


def periods(value: PeriodLimits | tuple[PeriodLimits, ...] | None) -> tuple[PeriodLimits, ...]:
    """One, several or no limits as a tuple."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


class StreamsSpec(Part):
    """How much is reserved for a call whose stream can be cut: the backend counts its tokens as it runs."""

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Reserve what the output stays below with this probability, by the forecast, instead of its bound."""
    step: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Tokens by which a running stream is extended; where that is refused it is cut at what it holds."""


class Budget(Part):
    """Hard limits. Spend is reserved before each call, so that none is ever passed; the tightest limit wins."""

    call: Limits | None = None
    """Limits of each single model request."""
    step: Limits | None = None
    """Limits of one governed step with all its attempts and verifiers."""
    session: Limits | None = None
    """Limits of one session; a step without session is a session of its own."""
    run: Limits | None = Field(default=None, examples=[{"usd": 0.05}])
    """Limits of one run of a graph (`Step.run`: one invoke); a step without run is a run of its own."""
    app: Periods | None = Field(default=None, examples=[{"usd": 20, "per": "day"}])
    """Limits of the application in each period, or a list of several."""
    tenant: Periods | None = Field(default=None, examples=[{"usd": 1, "per": "day"}])
    """Limits of each tenant (`Step.tenant`: a customer, a key); steps that name none share the tenant without a
    name."""
    node: Periods | None = Field(default=None, examples=[{"tokens": 200_000, "per": "hour"}])
    """Limits of each graph node by itself."""
    model: Annotated[Mapping[Text, Periods], Field(max_length=1_000)] = Field(
        default_factory=dict, examples=[{"openai/*": {"usd": 10, "per": "day"}}]
    )
    """Limits of models by name or glob, the first that matches: each model by itself, whatever step calls it."""
    on_exhausted: Literal["refuse", "degrade", "best_so_far"] = "best_so_far"
    """What happens when a limit would be passed: an error, a cheaper rung that fits, or the best answer held."""
    reserve: Literal["attempt", "ladder"] = "attempt"
    """Reserve for one attempt at a time, or for the whole ladder before the first."""
    streams: StreamsSpec = StreamsSpec()
    """Of streams that can be cut less is reserved, so that more of them fit side by side."""
    emergency: Limits | None = Field(default=None, examples=[{"usd": 0.5}])
    """What each process may spend while the ledger's store can't be reached; it is booked there afterwards. Left out:
    nothing where money is limited, and with `fail: open` everything else."""
    tell: bool = False
    """Tell the model what is left of its budget after tool results."""

    def parts(self) -> Iterator[tuple[tuple[str | int, ...], Limits]]:
        """Every limit with its path under `budget`."""
        for name in ("call", "step", "session", "run", "emergency"):
            part = getattr(self, name)
            if part is not None:
                yield (name,), part
        for name in ("app", "tenant", "node"):
            held = getattr(self, name)
            for position, part in enumerate(periods(held)):
                yield ((name, position) if isinstance(held, tuple) else (name,)), part
        for name, held in self.model.items():
            for position, part in enumerate(periods(held)):
                yield (("model", name, position) if isinstance(held, tuple) else ("model", name)), part

    def of_model(self, model: str) -> tuple[PeriodLimits, ...]:
        """The limits of one model: those of the first glob that its name matches."""
        return next((periods(held) for glob, held in self.model.items() if fnmatchcase(model, glob)), ())

    @property
    def shared(self) -> bool:
        """Whether anything is limited that outlives a session or run."""
        return bool(self.model) or any(periods(part) for part in (self.app, self.tenant, self.node))
