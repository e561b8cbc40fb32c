"""`stops` of a policy file: when a thought is ended early. What the keys mean is told once, in docs/stops.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from governor.policy.part import Part
from governor.policy.scalars import Share, Text, Tokens
from governor.stops.presets import PRESETS, Name
from governor.stops.settings import MAX_PERIOD, MAX_PHRASE, MAX_STEPS, MAX_TOP, MAX_WINDOW, MIN_WINDOW, Stops

_Phrase = Annotated[str, Field(min_length=1, max_length=MAX_PHRASE)]
_Margin = Annotated[float, Field(ge=0, le=1000)]


class Shown(Part):
    """What `governor fit --stops` showed of one threshold, on which records."""

    rule: Annotated[Text, Field(examples=["repeat"])]
    """The key that this speaks of."""
    at: Annotated[float, Field(ge=0, strict=False)]
    """The threshold that was certified."""
    risk: Share
    """P(the stopped answer is wrong and the whole thought's right) is at most this ..."""
    delta: Share
    """... but for so large a share of such claims."""
    n: Annotated[int, Field(ge=1)]
    """Independent thoughts that were counted."""
    failures: Annotated[int, Field(ge=0)]
    """Those of them whose right answer the threshold would have lost."""
    bound: Share
    """The exact upper bound on the risk."""
    records: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the records."""
    window: Annotated[int, Field(ge=MIN_WINDOW, le=MAX_WINDOW)] = 2048
    """`group_window` of the group rule, as it was measured."""
    top: Annotated[int, Field(ge=1, le=MAX_TOP)] = 20
    """`group_top`."""
    period: Annotated[int, Field(ge=1, le=MAX_PERIOD)] = 32
    """`repeat_period` of the repetition rule."""
    tokens: Annotated[int, Field(ge=1, le=10_000)] = 24
    """`repeat_tokens`."""

    def conflict(self, stops: Stops) -> str:
        """Why these rules are not what was measured; empty where they are."""
        if getattr(stops, self.rule, None) != self.at:
            return f"{self.rule} was certified at {self.at:g}, and that is not what stands here"
        for key, measured in self._measured.items():
            if getattr(stops, key) != measured:
                return f"{self.rule} was certified with {key} {measured}, and here stands {getattr(stops, key)}"
        if self.rule == "margin" and stops.wide_margin not in (None, stops.margin):
            return f"margin was certified alone: wide_margin {stops.wide_margin:g} ends thoughts that it would not"
        return ""

    @property
    def _measured(self) -> Mapping[str, int]:
        """The keys that say what the threshold means, with the values that it was measured with."""
        if self.rule == "group":
            return {"group_window": self.window, "group_top": self.top}
        return {"repeat_period": self.period, "repeat_tokens": self.tokens} if self.rule == "repeat" else {}


class StopsSpec(Part):
    """Rules that end a thought, or a reply that is stuck. Off by default; their benefit is not measured."""

    preset: Name | None = Field(default=None, examples=["qwen3"])
    """Thresholds that others published for a model family, not measured here; keys that stand beside it win."""

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

    certified: Annotated[tuple[Shown, ...], Field(strict=False)] = ()
    """What `governor fit --stops` showed of these thresholds; one that is changed, or read otherwise, has no claim."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        found = self.stops  # ValueError where keys contradict each other
        if self.preset is not None and not found.acts:
            raise ValueError(f"preset: '{self.preset}' has no threshold of its own; give one beside it, such as group")
        for one in self.certified:
            if conflict := one.conflict(found):
                raise ValueError(f"certified: {conflict}")
            if one.failures > one.n or one.bound > one.risk:
                raise ValueError(f"certified: {one.failures} of {one.n} do not show a risk of {one.risk:g}")
        return self

    @property
    def stops(self) -> Stops:
        """As the record that the rules read: the keys given, over the preset's, over the defaults."""
        given = {key: getattr(self, key) for key in self.model_fields_set - {"preset", "certified"}}
        return Stops(**{**(PRESETS[self.preset].values if self.preset else {}), **given})
