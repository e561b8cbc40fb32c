"""`stops` of a policy file: when a thought is ended early. What the keys mean is told once, in docs/stops.md."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from governor.policy.part import Part
from governor.policy.scalars import Share, Tokens
from governor.stops.settings import MAX_PERIOD, MAX_PHRASE, MAX_STEPS, MAX_TOP, MAX_WINDOW, MIN_WINDOW, Stops

_Phrase = Annotated[str, Field(min_length=1, max_length=MAX_PHRASE)]
_Margin = Annotated[float, Field(ge=0, le=1000)]


class StopsSpec(Part):
    """Rules that end a thought, or a reply that is stuck. Off by default; their benefit is not measured."""

    budget: Tokens | None = Field(default=None, examples=[4000])
    """Most tokens of thought, what ends it included."""
    least: Tokens = Field(default=0, examples=[200])
    """Fewest tokens of thought (engine only)."""
    reserve: Tokens = Field(default=0, examples=[300])
    """Tokens of the output limit that are kept for the answer (engine only)."""
    phrase: _Phrase | None = None
    """Words that lead over to the answer where the budget ends the thought (engine only)."""
    again: _Phrase | None = Field(default=None, examples=["Wait"])
    """Words that lead back into the thought where the model would end it before `least` (engine only)."""
    margin: _Margin | None = Field(default=None, examples=[0.1])
    """End at a sentence's end where the end of thought is this close to the likeliest token, in logits."""
    wide_margin: _Margin | None = Field(default=None, examples=[1.0])
    """The same while the model hesitates, by the step rule."""
    group: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, examples=[17.0])
    """End as stuck where the mean confidence of a window falls below this."""
    group_window: Annotated[int, Field(ge=MIN_WINDOW, le=MAX_WINDOW)] = 2048
    """Tokens of that window."""
    group_top: Annotated[int, Field(ge=1, le=MAX_TOP)] = MAX_TOP
    """Likeliest tokens that a token's confidence is the mean of."""
    low_confidence: Share | None = None
    """A step below this, with a variance of at least `high_variance`, hesitates."""
    high_confidence: Share | None = None
    """A step above this, with a variance of at most `low_variance`, is suspiciously sure."""
    low_variance: Share | None = None
    """See `high_confidence`."""
    high_variance: Share | None = None
    """See `low_confidence`."""
    step_window: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 2
    """Steps over which the variance is taken."""
    few: Tokens = 0
    """Tokens of thought below which suspicious sureness forbids an end by the margin."""
    repeat: Annotated[int, Field(ge=2, le=1000)] | None = Field(default=None, examples=[4])
    """End as stuck where a pattern stands this often in a row."""
    repeat_period: Annotated[int, Field(ge=1, le=MAX_PERIOD)] = 32
    """Longest such pattern, in tokens."""
    repeat_tokens: Annotated[int, Field(ge=1, le=10_000)] = 24
    """Fewest tokens that the repetitions must have together."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _ = self.stops  # ValueError where keys contradict each other
        return self

    @property
    def stops(self) -> Stops:
        """As the record that the rules read."""
        return Stops(**self.model_dump())
