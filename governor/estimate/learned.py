"""Step -> belief, learned: one calibrated forecast per rung, held together by a latent difficulty they share.

`P_k(d) = sigmoid(a_k - b_k d)`, d ~ N(0, 1): the loading b_k says how far the rung's failures are those of the others,
and a_k is set so that the mean over d is the calibrated forecast. Rungs differ in kind, not only in strength: one
scalar difficulty alone forecasts worse than one head per rung.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from governor.estimate.agreement import Pairs, comparison, odds_after, pairs_for, untold
from governor.estimate.answers import told
from governor.estimate.calibration import Calibration, Scores
from governor.estimate.chain import Look
from governor.estimate.cost import expected_micros, expected_seconds
from governor.estimate.curves import Floats
from governor.estimate.features import Features, features
from governor.estimate.hashed import Sparse, context_of, words_of
from governor.estimate.latent import Grid, LatentBelief, rates
from governor.estimate.rules import RuleEstimator
from governor.protocols import Belief, Estimator, Situation, Terms
from governor.records import Attempt, Forecast, Rung, Step

NODES, _QUADRATURE = np.polynomial.hermite_e.hermegauss(11)
WEIGHTS: Floats = _QUADRATURE / _QUADRATURE.sum()
"""Prior weights of the difficulties NODES: Gauss-Hermite quadrature of the standard normal."""

SURE = 7.0
"""Log-odds beyond this are not believed of any forecast."""

FOREIGN = "the question is unlike those that were fitted on"

_UNKNOWN_SPREAD = 0.7  # of log tokens, as is assumed before anything was measured
_NUMBERS = (*(name for name in Features.__slots__ if name not in {"state", "input_tokens"}), "input_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the heads see of a step: weighted words (L2 norm 1) and context, and the dense row of the trees."""

    words: Sparse
    context: Sparse
    numbers: Floats
    input_tokens: float


def seen_of(step: Step, idf: Floats) -> Seen:
    """Read a step for heads of `len(idf)` buckets. Words count by `(1 + log tf) * idf`, normalised to length 1."""
    words = words_of(step.prompt, len(idf))
    value = words.value * idf[words.at]
    length = math.sqrt(float(value @ value))
    numbers = numbers_of(step)
    scaled = Sparse(words.at, value / length if length > 0 else value)
    return Seen(scaled, context_of(step, len(idf)), numbers, math.expm1(float(numbers[-1])))


def numbers_of(step: Step) -> Floats:
    """log(1 + x) of every plain number of `features` but those of the state; the last is of the input tokens."""
    found = features(step)
    result: Floats = np.log1p(np.array([getattr(found, name) for name in _NUMBERS]))
    return result


class LearnedEstimator:
    """Estimator (governor.protocols) by a calibration; rules where the ladder has a rung that it does not know."""

    def __init__(self, calibration: Calibration, otherwise: Estimator | None = None) -> None:
        self.calibration = calibration
        self._otherwise: Estimator = otherwise or RuleEstimator()
        self._idf = calibration.text.idf.astype(np.float64)

    def estimate(self, step: Step, terms: Terms) -> Belief:
        """One pass over the text, then heads, trees and recalibration; no I/O."""
        known = self.calibration
        places = known.places(tuple(rung.id for rung in terms.ladder))
        if places is None:
            return _saying_why(self._otherwise.estimate(step, terms), known, terms)
        seen = seen_of(step, self._idf)
        axes = axes_of(known, seen)
        foreign = known.familiar is not None and known.familiar.foreign(seen.words, seen.numbers)
        odds = logit(known.base_rate) if foreign else recalibrated(known, raw_odds(known, seen, axes))
        tokens = _lengths(known, axes, seen)
        return LearnedBelief.of(known, tuple(places), terms, odds, tokens, seen.input_tokens, foreign=foreign)


def _saying_why(belief: Belief, known: Calibration, terms: Terms) -> Belief:
    strange = ", ".join(rung.id for rung in terms.ladder if rung.id not in known.rungs)
    reason = f"by rules, as the calibration knows no {strange}"
    return replace(belief, reasons=(reason, *belief.reasons)) if isinstance(belief, LatentBelief) else belief


def axes_of(known: Calibration, seen: Seen) -> Floats:
    """The text's place along the axes (D,)."""
    place: Floats = seen.words.value @ known.text.axes[seen.words.at].astype(np.float64)
    return place


def linear_odds(known: Calibration, seen: Seen) -> Floats:
    """Log-odds of the linear heads (K,)."""
    weight = known.text.weight
    odds: Floats = (
        known.text.bias
        + seen.words.value @ weight[seen.words.at].astype(np.float64)
        + seen.context.value @ weight[seen.context.at].astype(np.float64)
    )
    return odds


def raw_odds(known: Calibration, seen: Seen, axes: Floats) -> Floats:
    """Log-odds of the mean of linear heads and trees (K,), before recalibration."""
    linear = linear_odds(known, seen)
    trees = known.trees.sums(np.concatenate([linear, seen.numbers, axes]))
    return mixed(linear, trees, known.mix)


def recalibrated(known: Calibration, raw: Floats) -> Floats:
    """Log-odds (K,) as held-out outcomes bore them out."""
    return known.level + known.slope * (raw - known.centre)


def mixed(linear: Floats, trees: Floats, mix: float) -> Floats:
    """Log-odds of the mean probability of two forecasts."""
    mean = (1.0 - mix) * sigmoid(linear) + mix * sigmoid(trees)
    return logit(mean)


def sigmoid(odds: Floats) -> Floats:
    """Log-odds -> probability."""
    result: Floats = 1.0 / (1.0 + np.exp(-odds))
    return result


def logit(p: Floats) -> Floats:
    """Probability -> log-odds, kept finite."""
    kept = np.clip(p, 1e-4, 1.0 - 1e-4)
    result: Floats = np.log(kept / (1.0 - kept))
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnedBelief:
    """Belief (governor.protocols) over NODES. Verdicts move the weights, scores move the log-odds of every rung.

    `odds` (K,) are the calibrated log-odds of the ladder's rungs, `every` those of all that the calibration
    knows, `success` (K, G) the curves that average to them,
    `tokens` (K,) expected output tokens (NaN: unknown). `foreign` says that the question is unlike those fitted on: it
    has the base rates, and comparing answers tells nothing of it.
    """

    calibration: Calibration
    places: tuple[int, ...]
    odds: Floats
    every: Floats
    success: Floats
    weights: Floats
    tokens: Floats
    input_tokens: float
    foreign: bool = False

    @classmethod
    def of(
        cls,
        known: Calibration,
        places: tuple[int, ...],
        terms: Terms,
        every: Floats,
        tokens: Floats,
        asked: float,
        *,
        foreign: bool = False,
    ) -> LearnedBelief:
        every = np.clip(every, -SURE, SURE)
        odds = every[list(places)]
        return cls(
            calibration=known,
            places=places,
            odds=odds,
            every=every,
            success=curves_of(odds, known.loading[list(places)]),
            weights=WEIGHTS,
            tokens=np.minimum(tokens[list(places)], [rung.max_tokens * max(rung.samples, 1) for rung in terms.ladder]),
            input_tokens=asked,
            foreign=foreign,
        )

    @property
    def difficulty(self) -> float:
        """1 less the mean probability of success over the ladder, as believed now."""
        return float(1.0 - (self.success @ self.weights).mean())

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the forecast stands on, and for which rungs it is the base rate alone."""
        known, at = self.calibration, list(self.places)
        if self.foreign:
            return (f"{FOREIGN}: base rates {_listed(known.base_rate[at])}, no comparisons",)
        blind = [known.rungs[place] for place in at if known.slope[place] == 0.0]
        told = f"learned forecast {_listed(sigmoid(self.odds))} (base rates {_listed(known.base_rate[at])})"
        return (told, f"base rate only for {', '.join(blind)}") if blind else (told,)

    def grid(self, situation: Situation) -> Grid:
        """The joint belief now, every score that was seen taken into account."""
        known, at = self.calibration, list(self.places)
        odds = self._compared(situation)
        shift = _shift(known.scores, self.places, situation)
        if shift is not None:
            odds = (self.odds if odds is None else odds) + shift
        success = self.success if odds is None else curves_of(odds, known.loading[at])
        return Grid(self.weights, WEIGHTS, success, success, looks=_looks(known.scores, at))

    def pairs(self, situation: Situation) -> Pairs | None:
        """What comparing two answers would tell; None where nothing was learned of that."""
        del situation
        known = self.calibration.agreement
        if known is None:
            return None
        return untold(self.odds) if self.foreign else pairs_for(known, self.places, self.every)

    def _compared(self, situation: Situation) -> Floats | None:
        """Log-odds of every rung once two answers were compared; None where none were, or it tells nothing."""
        known = self.calibration.agreement
        if known is None or self.foreign or situation.verified or len(situation.attempts) < 2:
            return None
        found, ids = comparison(situation.attempts), [rung.id for rung in situation.terms.ladder]
        if found is None or not {found.first, found.second} <= set(ids):
            return None
        first, second = self.places[ids.index(found.first)], self.places[ids.index(found.second)]
        if np.isnan(known.equal[first, second, 0]):
            return None
        return odds_after(known, self.places, self.every, first, second, found.equal)

    def look(self, situation: Situation) -> Look | None:
        """Where a growing thought stands; None where nothing was looked at, or no chain was learned of this ladder."""
        known, chain = self.calibration, self.calibration.chain
        last = situation.attempts[-1] if situation.attempts else None
        ids = [rung.id for rung in situation.terms.ladder]
        if chain is None or known.scores is None or list(self.places) != chain.order.tolist() or last is None:
            return None
        if last.verdict is None or last.verdict.score is None or last.rung.id not in ids:
            return None
        number = ids.index(last.rung.id)
        at = self.places[number]
        z = standardised(last.verdict.score, float(known.scores.centre[at]), float(known.scores.width[at]))
        shift = self.odds - logit(known.base_rate[list(self.places)])
        return Look(chain, number, chain.bin_of(number, z), sigmoid(logit(chain.right) + shift[:, None]))

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        """One forecast per rung: expected tokens, money at the rung's price, a rough time."""
        success: list[float] = (self.grid(situation).success @ self.weights).tolist()
        seen, passed = situation.sensitivity, situation.false_accept
        return tuple(
            Forecast(
                rung=rung.id,
                p_success=p,
                p_accept=p * seen + (1.0 - p) * passed,
                output_tokens=out,
                micros=micros,
                seconds=expected_seconds(rung, out),
                spread=spread,
            )
            for rung, p, out, micros, spread in zip(
                situation.terms.ladder, success, *self._costs(situation), self._spreads(), strict=True
            )
        )

    def _spreads(self) -> list[float]:
        """Standard deviation of log tokens around each rung's forecast."""
        spreads = self.calibration.lengths.spread[list(self.places)]
        known: list[float] = np.where(np.isnan(spreads), _UNKNOWN_SPREAD, spreads).tolist()
        return known

    def _costs(self, situation: Situation) -> tuple[list[float], list[float]]:
        """Tokens and micro-USD of each rung; a rung without lengths costs what it did on the records, in their unit."""
        mean = self.calibration.mean_cost[list(self.places)]
        tokens, micros = [], []
        for rung, out, usual in zip(situation.terms.ladder, self.tokens.tolist(), mean.tolist(), strict=True):
            known = not math.isnan(out)
            tokens.append(out if known else float(rung.max_tokens))
            priced = known and (rung.price.input > 0 or rung.price.output > 0)
            micros.append(expected_micros(rung, self.input_tokens, out) if priced else 0.0 if known else 1e6 * usual)
        return tokens, micros

    def after(self, rung: Rung, decision: str, situation: Situation) -> LearnedBelief:
        """Bayes on a verdict, given the difficulty; scores and comparisons are read by `grid`, faults tell nothing."""
        ids = [one.id for one in situation.terms.ladder]
        last = situation.attempts[-1] if situation.attempts else None
        if rung.id not in ids or (
            last is not None and last.rung.id == rung.id and last.failure in {"fault", "truncated"}
        ):
            return self
        if decision in {"agree", "disagree"} and self.calibration.agreement is not None and not situation.verified:
            return self  # what was compared is read by `grid`
        if last is not None and last.rung.id == rung.id and last.mode in {"again", "agree", "verify"}:
            return self._moved(told(situation.attempts, self.grid(situation).known(situation)).likelihood)
        if decision not in {"accept", "reject"}:
            return self
        correct = self.success[ids.index(rung.id)]
        if decision == "accept":
            seen, passed = situation.sensitivity, situation.false_accept
        else:
            right, wrong = rates(situation)
            seen, passed = 1.0 - right, 1.0 - wrong
        return self._moved(correct * seen + (1.0 - correct) * passed)

    def _moved(self, likelihood: Floats) -> LearnedBelief:
        moved = self.weights * likelihood
        total = float(moved.sum())
        return replace(self, weights=moved / total) if total > 0.0 else self


def curves_of(odds: Floats, loading: Floats) -> Floats:
    """`sigmoid(a - b d)` at NODES (K, G) with `a` such that its mean under the prior is `sigmoid(odds)`.

    Begins at `a = odds * sqrt(1 + pi b^2 / 8)` (MacKay 1992, eq. 10) and takes two Newton steps.
    """
    wanted = sigmoid(odds)
    centre = odds * np.sqrt(1.0 + math.pi * loading**2 / 8.0)
    drop = loading[:, None] * NODES[None, :]
    for _ in range(2):
        curve = sigmoid(centre[:, None] - drop)
        gradient = (curve * (1.0 - curve)) @ WEIGHTS
        centre = centre - np.clip((curve @ WEIGHTS - wanted) / np.maximum(gradient, 1e-6), -1.0, 1.0)
    return sigmoid(centre[:, None] - drop)


def _listed(rates: Floats) -> str:
    return " / ".join(f"{p:.2f}" for p in rates.tolist())


def _shift(scores: Scores | None, places: tuple[int, ...], situation: Situation) -> Floats | None:
    """What scores seen so far add to each rung's log-odds (K,); None where there is nothing.

    Looks at one growing thought are not independent: the latest replaces those before it.
    """
    scored = [one for one in situation.attempts if one.verdict is not None and one.verdict.score is not None]
    if scores is None or not scored:
        return None
    if situation.terms.one_thought:
        scored = scored[-1:]
    total = np.zeros(len(places))
    for attempt in scored:
        total += _one_shift(scores, places, attempt, situation.terms)
    return total


def _one_shift(scores: Scores, places: tuple[int, ...], attempt: Attempt, terms: Terms) -> Floats:
    ids = [rung.id for rung in terms.ladder]
    if attempt.rung.id not in ids or attempt.verdict is None or attempt.verdict.score is None:
        return np.zeros(len(places))
    at = places[ids.index(attempt.rung.id)]
    if math.isnan(scores.centre[at]):
        return np.zeros(len(places))
    z = standardised(attempt.verdict.score, float(scores.centre[at]), float(scores.width[at]))
    shift: Floats = (scores.base[at] + scores.gain[at] * z)[list(places)]
    return shift


def standardised(score: float, centre: float, width: float) -> float:
    """Log-odds of a score in units of their spread on the records, kept within three of them."""
    kept = min(max(score, 1e-4), 1.0 - 1e-4)
    return min(max((math.log(kept / (1.0 - kept)) - centre) / width, -3.0), 3.0)


def _looks(scores: Scores | None, at: Sequence[int]) -> tuple[Floats, Floats] | None:
    if scores is None:
        return None
    return scores.seen[at], scores.passed[at]


def _lengths(known: Calibration, axes: Floats, seen: Seen) -> Floats:
    """Expected output tokens (K,), NaN where lengths are unknown: the mean of the log-normal."""
    row = np.append(axes, seen.numbers[0])  # numbers[0] is log(1 + characters)
    centre = known.lengths.start + row @ known.lengths.slope
    tokens: Floats = np.exp(np.minimum(centre + known.lengths.spread**2 / 2.0, 14.0))
    return tokens
