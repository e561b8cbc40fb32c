"""How far a stream may run on what is reserved: a quantile of its forecast, then a step more at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

from governor.plan.bounds import output_bound
from governor.protocols import Terms
from governor.records import Amount, Call, Forecast, Plan

_ASKS = 8
"""How often within each step a stream asks for more where it was refused: others may have settled meanwhile."""

_AHEAD = 2
"""Steps before its end at which it begins to ask: more is cut short with one."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Output `tokens` that are held for a call, of `most` that it may take; `step` more are asked for at a time.

    With less than `least` it is not begun: that would hardly ever hold a whole answer. `beside` is what is held with it
    for what follows: its verifier.
    """

    tokens: int
    most: int
    step: int
    least: int = 1
    beside: Amount = Amount()

    def until(self, at: int = 0) -> int | None:
        """Output tokens up to which a stream that stands at `at` runs before it asks for more; None: to its end.

        It asks some steps ahead (half-way where less is held) so that it need not wait, and again from there.
        """
        if self.tokens >= self.most:
            return None
        ahead = max(self.tokens - _AHEAD * self.step, self.tokens // 2)
        return ahead if at <= ahead else min(max(at, ahead) + max(self.step // _ASKS, 1), self.tokens)

    def longer(self, at: int) -> Reach:
        """One step more than what is held, at least up to `at`."""
        return replace(self, tokens=min(max(self.tokens + self.step, at), self.most))

    def shortened(self, least: int, fits: Callable[[Reach], bool]) -> Reach | None:
        """The longest of at least `least` tokens that fits, no longer than this; None if none does."""
        low, high = least - 1, self.tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(replace(self, tokens=middle)) else (low, middle - 1)
        return replace(self, tokens=low) if low >= least else None


def opening(call: Call, plan: Plan, terms: Terms, beside: Amount) -> Reach | None:
    """What is held for a call that can be cut; None where it is not one, and its whole bound is held."""
    streams = terms.streams
    limited = terms.limits or any(model == call.rung.model for model, _ in terms.models)
    if call.rung.id not in streams.rungs or not limited or terms.reserve == "ladder":
        return None
    most = output_bound(call)
    forecast = next((one for one in plan.forecasts if one.rung == call.rung.id), None)
    if forecast is None:
        return None
    tokens = min(max(math.ceil(tokens_at(forecast, streams.quantile)), streams.step), most)
    least = min(math.ceil(tokens_at(forecast, 0.5)), tokens)
    return Reach(tokens, most, streams.step, least, beside)


def tokens_at(forecast: Forecast, quantile: float) -> float:
    """Output tokens below which a reply stays with probability `quantile`: its length is taken as log-normal."""
    mean, spread = max(forecast.output_tokens, 1.0), max(forecast.spread, 1e-6)
    return math.exp(NormalDist(math.log(mean) - spread**2 / 2.0, spread).inv_cdf(quantile))
