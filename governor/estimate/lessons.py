"""What a step's outcome teaches: each verdict against what was forecast of it, and what all of them say of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from governor.estimate.adjusted import lifted
from governor.estimate.curves import Floats
from governor.estimate.evidence import Ints
from governor.estimate.recalibration import Observed
from governor.records import Forecast, Outcome


@dataclass(frozen=True, slots=True)
class Begun:
    """What a step's outcome will be compared with: its forecasts (K,) as they came, and how they were changed."""

    heads: tuple[str, ...]
    raw: Floats
    odds: Floats
    cluster: str
    sketch: Ints
    weights: Floats | None
    answer: Floats


def observations(begun: Begun, outcome: Outcome) -> Iterator[tuple[Observed, float]]:
    """What an outcome teaches, and the P(accept) that was told of it: one for each verdict, and each cut reply.

    A verifier's rates are read off the attempt's own forecasts, which follow them: P(accept) = p s + (1 - p) f. Where
    these can't tell (one rung, or no verifier) a verdict teaches nothing.
    """
    for attempt in outcome.attempts:
        told = {forecast.rung: forecast for forecast in attempt.forecasts}.get(attempt.rung.id)
        if told is None or attempt.rung.id not in begun.heads:
            continue
        column = begun.heads.index(attempt.rung.id)
        first = attempt.number == 1
        p = float(begun.raw[column]) if first else _without(told.p_success, float(begun.odds[column]))
        if attempt.failure == "truncated":  # not accepted, whoever would have judged it
            yield Observed(attempt.rung.id, begun.cluster, p, False), told.p_success
            continue
        judged = attempt.verdict is not None and attempt.verdict.decision in ("accept", "reject")
        rates = rates_of(attempt.forecasts)
        if judged and rates is not None and attempt.reply is not None:
            accepted = not attempt.rejected
            yield Observed(attempt.rung.id, begun.cluster, p, accepted, *rates), told.p_accept


def rates_of(forecasts: tuple[Forecast, ...]) -> tuple[float, float] | None:
    """Sensitivity and false-accept rate of the verifier that these forecasts count on; None where they can't tell."""
    if not forecasts:
        return None
    low, high = min(forecasts, key=_success), max(forecasts, key=_success)
    if high.p_success - low.p_success < 1e-4:
        return None
    slope = (high.p_accept - low.p_accept) / (high.p_success - low.p_success)
    passed = low.p_accept - slope * low.p_success
    passed, seen = min(max(passed, 0.0), 1.0), min(max(passed + slope, 0.0), 1.0)
    return (seen, passed) if seen - passed > 1e-3 else None


def _success(forecast: Forecast) -> float:
    return forecast.p_success


def _without(p: float, odds: float) -> float:
    """The probability whose odds, times `odds`, are those of p."""
    return p / (p + (1.0 - p) * odds)


def posterior(begun: Begun, before: Floats, outcome: Outcome) -> Floats:
    """What all verdicts of a step make of the weights that were `before` them."""
    weights = before
    answer = lifted(begun.answer, begun.odds)
    for attempt in outcome.attempts:
        verdict, rates = attempt.verdict, rates_of(attempt.forecasts)
        if rates is None or verdict is None or verdict.decision == "unsure" or attempt.failure == "truncated":
            continue
        if attempt.rung.id not in begun.heads:
            continue
        correct = answer[begun.heads.index(attempt.rung.id)]
        accepted = rates[1] + (rates[0] - rates[1]) * correct
        weights = weights * (1.0 - accepted if attempt.rejected else accepted)
    total = float(weights.sum())
    return weights / total if total > 0.0 else before
