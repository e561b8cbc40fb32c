"""What a step's outcome teaches: each verdict against what was forecast of it, and what all of them say of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from governor.estimate.adjusted import lifted
from governor.estimate.answers import agreement
from governor.estimate.curves import Floats
from governor.estimate.evidence import Ints
from governor.estimate.recalibration import Observed
from governor.records import Attempt, Forecast, Outcome


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


_APART = 1e-8
"""Forecasts closer than this can't tell a verifier's rates: below, rounding would."""


def observations(begun: Begun, outcome: Outcome) -> Iterator[tuple[Observed, float]]:
    """What an outcome teaches, and the P(accept) that was told of it: one for each verdict, and each cut reply.

    A verifier's rates are read off the attempt's own forecasts, which follow them: P(accept) = p s + (1 - p) f. Where
    these can't tell (one rung, or no verifier) a verdict teaches nothing.
    """
    for attempt in outcome.attempts:
        found = _forecast(begun, attempt)
        if found is not None:
            seen = _verdict(begun, attempt, found[0])
            if seen is not None:
                told = found[1]
                yield seen, told.p_success if attempt.failure == "truncated" else told.p_accept


Lesson: TypeAlias = tuple[Observed, float]
"""What became of an answer, and the P(accepted) that was told of it."""

_LEAST = 1e-3
"""Of the difference that an answer's being right must make to be told of it."""


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """The answer that a step shipped, for a label that may come: what each label would teach.

    The answer itself comes first, the one that it was compared with after it. `verdict` is what a verifier has taught
    of it already.
    """

    if_right: tuple[Lesson, ...]
    if_wrong: tuple[Lesson, ...]
    verdict: Observed | None
    sketch: Ints

    def labelled(self, correct: bool) -> tuple[Lesson, ...]:
        """What this label teaches."""
        return self.if_right if correct else self.if_wrong


def unlabelled(begun: Begun, outcome: Outcome) -> Unlabelled | None:
    """What a label of the outcome's answer would teach; None where it shipped none, or nothing was told."""
    shipped = next((one for one in outcome.attempts if one.reply is not None and one.reply is outcome.reply), None)
    found = None if shipped is None else _forecast(begun, shipped)
    if shipped is None or found is None:
        return None
    p, told = found
    verdict = _verdict(begun, shipped, p)
    right = Observed(shipped.rung.id, begun.cluster, p, True), _given(verdict, told.p_success)
    wrong = replace(right[0], accepted=False), right[1]
    other = _compared(begun, outcome, shipped)
    return Unlabelled((right, *other[0]), (wrong, *other[1]), verdict, begun.sketch)


def _compared(begun: Begun, outcome: Outcome, shipped: Attempt) -> tuple[tuple[Lesson, ...], tuple[Lesson, ...]]:
    """What the label says of the answer that the shipped one was compared with: where it is right, and where not.

    What ships was chosen by what both said: its label alone would flatter the rung whose answers were confirmed.
    """
    last = next((one for one in reversed(outcome.attempts) if agreement(one) is not None), None)
    if last is None:
        return (), ()
    before = (one for one in reversed(outcome.attempts[: last.number - 1]) if one.reply is not None)
    other = next(before, None) if shipped is last else last
    found = None if other is None else _forecast(begun, other)
    if other is None or found is None:
        return (), ()
    p, told = found
    right = Observed(other.rung.id, begun.cluster, p, True)
    wrong = replace(right, accepted=False)
    if agreement(last):
        return ((right, told.p_success),), ((wrong, told.p_success),)
    # Both may be wrong where they differ: how likely then, if this one is right, and if it is not?
    if_right, if_wrong = _fails_beside(begun, shipped.rung.id, other.rung.id)
    unsure = replace(wrong, sensitivity=1.0 - if_right, false_accept=1.0 - if_wrong)
    accepted = 1.0 - told.p_success * if_right - (1.0 - told.p_success) * if_wrong
    return ((wrong, told.p_success),), ((unsure, accepted),) if if_wrong - if_right > _LEAST else ()


def _fails_beside(begun: Begun, one: str, other: str) -> tuple[float, float]:
    """P(`one` is wrong | `other` is right) and P(`one` is wrong | `other` is wrong), by what was believed at first."""
    answer = lifted(begun.answer, begun.odds)
    weights = np.full(answer.shape[1], 1.0 / answer.shape[1]) if begun.weights is None else begun.weights
    first, second = (answer[begun.heads.index(rung)] for rung in (one, other))
    return _mean(weights * second, 1.0 - first), _mean(weights * (1.0 - second), 1.0 - first)


def _mean(weights: Floats, values: Floats) -> float:
    total = float(weights.sum())
    return float(weights @ values) / total if total > 0.0 else 0.5


def _given(verdict: Observed | None, p: float) -> float:
    """P(correct) after a verdict, by Bayes."""
    if verdict is None:
        return p
    seen, passed = verdict.sensitivity, verdict.false_accept
    if not verdict.accepted:
        seen, passed = 1.0 - seen, 1.0 - passed
    both = p * seen + (1.0 - p) * passed
    return p * seen / both if both > 0.0 else p


def _forecast(begun: Begun, attempt: Attempt) -> tuple[float, Forecast] | None:
    """P(correct) of an attempt as it came, not recalibrated, and the forecast that was told."""
    told = {forecast.rung: forecast for forecast in attempt.forecasts}.get(attempt.rung.id)
    if told is None or attempt.rung.id not in begun.heads:
        return None
    column = begun.heads.index(attempt.rung.id)
    first = attempt.number == 1
    return float(begun.raw[column]) if first else _without(told.p_success, float(begun.odds[column])), told


def _verdict(begun: Begun, attempt: Attempt, p: float) -> Observed | None:
    if attempt.failure == "truncated":  # not accepted, whoever would have judged it
        return Observed(attempt.rung.id, begun.cluster, p, False)
    judged = attempt.verdict is not None and attempt.verdict.decision in ("accept", "reject")
    rates = rates_of(attempt.forecasts)
    if not judged or rates is None or attempt.reply is None:
        return None
    return Observed(attempt.rung.id, begun.cluster, p, not attempt.rejected, *rates)


def rates_of(forecasts: tuple[Forecast, ...]) -> tuple[float, float] | None:
    """Sensitivity and false-accept rate of the verifier that these forecasts count on; None where they can't tell."""
    if not forecasts:
        return None
    low, high = min(forecasts, key=_success), max(forecasts, key=_success)
    if high.p_success - low.p_success < _APART:
        return None
    slope = (high.p_accept - low.p_accept) / (high.p_success - low.p_success)
    passed = low.p_accept - slope * low.p_success
    passed, seen = min(max(passed, 0.0), 1.0), min(max(passed + slope, 0.0), 1.0)
    return (seen, passed) if seen - passed > _LEAST else None


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
