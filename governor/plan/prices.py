"""What everything costs: money, waiting, a prompt cache that a switch of model forfeits, and load, as prices.

Costs are in units of the dearest rung's expected cost; `Step.state` says what the world is like, by these keys:
`cached_model` and `cached_tokens` (the model of the session's last step, and how many of this prompt's tokens its
cache holds), and `load` (0 idle .. 1 full: queue or cache pressure of the engine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from governor.estimate.curves import Floats
from governor.plan.dial import price_at
from governor.protocols import Situation, Terms
from governor.records import Attempt, Forecast, Rung


@dataclass(frozen=True, slots=True)
class Unit:
    """What one unit of cost is: micro-USD, or tokens where nothing has a price. `latency` is micro-USD per second."""

    size: float
    tokens: bool = False
    latency: float = 0.0

    @classmethod
    def of(cls, forecasts: tuple[Forecast, ...], latency: float = 0.0) -> Unit:
        """The dearest rung's expected cost."""
        dearest = max((cost(one, latency) for one in forecasts), default=0.0)
        if dearest > 0.0:
            return cls(dearest, latency=latency)
        return cls(max((one.output_tokens for one in forecasts), default=0.0), tokens=True)

    def costs(self, forecasts: tuple[Forecast, ...]) -> Floats:
        """Of each rung; all alike where nothing costs anything."""
        spent = [one.output_tokens if self.tokens else cost(one, self.latency) for one in forecasts]
        return np.array(spent) / self.size if self.size > 0 else np.array(spent)

    @property
    def money(self) -> float:
        """The size in micro-USD, or in millionths of a token where nothing has a price."""
        return self.size * (1e6 if self.tokens else 1.0)

    def verdict(self, attempt: Attempt) -> float:
        """What judging this attempt's answer once more costs: what it cost before."""
        verdict = attempt.verdict
        if verdict is None or self.size <= 0:
            return 0.0
        spent = verdict.usage.output_tokens if self.tokens else verdict.micros + self.latency * verdict.seconds
        return spent / self.size


def cost(forecast: Forecast, latency: float) -> float:
    """Micro-USD of a forecast, its seconds priced at `latency` micro-USD each."""
    return forecast.micros + latency * forecast.seconds


def with_cache(forecasts: tuple[Forecast, ...], situation: Situation) -> tuple[Forecast, ...]:
    """The forecasts with the cached part of the prompt at its price on the rungs of the model that holds it.

    Prompt caches belong to a model: whoever switches pays the whole prompt anew, so the discount counts for the
    others as a cost that is theirs alone.
    """
    model, tokens = situation.step.state.get("cached_model"), _number(situation.step.state, "cached_tokens")
    if not model or tokens <= 0:
        return forecasts
    ladder = situation.terms.ladder
    return tuple(
        replace(one, micros=one.micros - _discount(rung, one, tokens)) if rung.model == model else one
        for rung, one in zip(ladder, forecasts, strict=True)
    )


def _discount(rung: Rung, forecast: Forecast, tokens: float) -> float:
    """Micro-USD saved by reading `tokens` of every sample's prompt from the cache, never more than the prompt's own."""
    if rung.price.cached_input is None or rung.price.input <= 0:
        return 0.0
    prompt = max(forecast.micros - forecast.output_tokens * rung.price.output, 0.0) / rung.price.input
    return min(tokens * max(rung.samples, 1), prompt) * max(rung.price.input - rung.price.cached_input, 0.0)


def added_price(terms: Terms, state: Mapping[str, Any], unit: Unit) -> float:
    """What is added to the dial's lambda: the shadow price of the period's budget, and load.

    `terms.mu` is value per micro-USD (per token where nothing has a price). A load of x costs what a dial of x
    does: waiting in a queue grows as x / (1 - x), and at 1 only the cheapest rung is admissible.
    """
    load = min(max(_number(state, "load"), 0.0), 1.0)
    return terms.mu * unit.size + price_at(load)


def _number(state: Mapping[str, Any], key: str) -> float:
    """A finite number of the state; 0 where there is none."""
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)
