"""The belief about one step: weights over a grid of latent difficulties, moved by every verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from governor.estimate.answers import COLLISION, REPEAT, Known, told
from governor.estimate.cost import expected_micros, expected_seconds
from governor.estimate.curves import GRID, Curves, Floats, curves, need_after
from governor.protocols import Situation, Terms
from governor.records import Attempt, Failure, Forecast, Rung

SENSITIVITY, FALSE_ACCEPT = 0.98, 0.5
"""Assumed of a rejection where the step has no measured verifier: a built-in check of form, which sees half."""


# Difficulty on the scale 0..1 at each grid point: the logistic function of the latent value.
_DIFFICULTY: Floats = 1.0 / (1.0 + np.exp(-GRID))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A belief as the planner reads it: everything that is known, jointly over rungs and difficulties.

    `weights` (G,) sum to 1; `prior` (G,) are the weights before any verdict; `answer` and `success`
    (K, G) are P(correct | whole reply) and P(correct) per rung. A belief without a grid has G = 1.
    `repeat` (K,) is the share of second samples that repeat the first one's outcome (None: REPEAT for all),
    `collision` P(two wrong answers of a rung are equal). `looks` are P(an answer looks good | correct) and P(an answer
    looks good | wrong) per rung (K,), where a score that decides nothing tells them apart.
    """

    weights: Floats
    prior: Floats
    answer: Floats
    success: Floats
    repeat: Floats | None = None
    collision: float = COLLISION
    looks: tuple[Floats, Floats] | None = None
    curves: Curves | None = None
    """What `answer` and `success` were read off, where nothing else came in: what follows from them is then kept."""

    def known(self, situation: Situation) -> Known:
        """The same by rung, for reading what attempts showed."""
        ids = [rung.id for rung in situation.terms.ladder]
        shares = [REPEAT] * len(ids) if self.repeat is None else self.repeat.tolist()
        answer = dict(zip(ids, self.answer, strict=True))
        return Known(answer, dict(zip(ids, shares, strict=True)), *rates(situation), self.collision)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentBelief:
    """Belief (governor.protocols) over GRID: `P_k(d) = floor + (1 - floor) * sigmoid(slope_k * (ability_k - d))`.

    One verdict moves what is believed of all rungs, because they share the step's difficulty. `length`
    shifts log answer tokens, `need` is what truncated replies taught, `input_tokens` is the prompt's size.
    """

    weights: Floats
    prior: Floats
    curves: Curves
    reasons: tuple[str, ...] = ()
    length: float = 0.0
    need: float = 0.0
    input_tokens: float = 0.0

    @classmethod
    def normal(
        cls,
        mean: float,
        sd: float,
        terms: Terms,
        *,
        reasons: tuple[str, ...] = (),
        length: float = 0.0,
        input_tokens: float = 0.0,
    ) -> LatentBelief:
        """Difficulty ~ N(mean, sd^2) on the latent scale, to a hundredth, cut to the grid."""
        weights = normal_weights(round(mean, 2), max(round(sd, 2), 0.01))
        return cls(
            weights=weights,
            prior=weights,
            curves=curves(terms.ladder, length),
            reasons=reasons,
            length=length,
            input_tokens=input_tokens,
        )

    @property
    def difficulty(self) -> float:
        """Posterior mean difficulty, 0 (trivial) to 1 (hardest)."""
        return float(_DIFFICULTY @ self.weights)

    def grid(self, situation: Situation) -> Grid:
        """The joint belief for this situation's ladder."""
        known = self._curves(situation.terms)
        return Grid(self.weights, self.prior, known.answer, known.success, curves=known)

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        """One forecast per rung: expected tokens of all samples, money at the rung's price, a rough time."""
        return _forecasts(self, self._curves(situation.terms), situation.sensitivity, situation.false_accept)

    def after(self, rung: Rung, decision: str, situation: Situation) -> LatentBelief:
        """Bayes on a verdict, `w(d) *= P(1-s) + (1-P)(1-f)` on reject and `P s + (1-P) f` on accept.

        A truncated reply is an outcome of its own: it says nothing of ability, but more tokens are then
        expected of every rung. It is told by decision "truncated", or by the last of `situation.attempts`
        where that is this rung's. "unsure", a fault, or a rung outside the ladder change nothing.
        A second sample, a second verdict and "agree" or "disagree" are read from the last of `situation.attempts`,
        given what was seen before (`governor.estimate.answers`).
        """
        if decision == "truncated" or _failed_by(rung, situation.attempts, "truncated"):
            need = max(self.need, need_after(rung))
            return replace(self, need=need, curves=curves(self.curves.ladder, self.length, need))
        ladder = situation.terms.ladder
        if rung not in ladder or _failed_by(rung, situation.attempts, "fault"):
            return self
        last = situation.attempts[-1] if situation.attempts else None
        if last is not None and last.rung.id == rung.id and last.mode in {"again", "agree", "verify"}:
            likelihood = told(situation.attempts, self.grid(situation).known(situation)).likelihood
            return replace(self, weights=_moved(self.weights, likelihood))
        if decision not in {"accept", "reject"}:
            return self
        correct = self._curves(situation.terms).answer[ladder.index(rung)]
        return replace(self, weights=_reweighted(self.weights, correct, decision, situation))

    def _curves(self, terms: Terms) -> Curves:
        if terms.ladder is self.curves.ladder:
            return self.curves
        return curves(terms.ladder, self.length, self.need)


@lru_cache(maxsize=64)  # a step asks again after each attempt, and mostly nothing was learned from it
def _forecasts(belief: LatentBelief, known: Curves, sensitivity: float, false_accept: float) -> tuple[Forecast, ...]:
    success: list[float] = (known.success @ belief.weights).tolist()
    tokens: list[float] = (known.tokens @ belief.weights).tolist()
    return tuple(
        Forecast(
            rung=rung.id,
            p_success=p,
            p_accept=p * sensitivity + (1.0 - p) * false_accept,
            output_tokens=out,
            micros=expected_micros(rung, belief.input_tokens, out),
            seconds=expected_seconds(rung, out),
        )
        for rung, p, out in zip(known.ladder, success, tokens, strict=True)
    )


@lru_cache(maxsize=4096)
def normal_weights(mean: float, sd: float) -> Floats:
    """The normal density at the grid points, summing to 1; read-only."""
    weights: Floats = np.exp(-0.5 * ((GRID - mean) / sd) ** 2)
    weights /= weights.sum()
    weights.setflags(write=False)
    return weights


def latent(difficulty: float) -> float:
    """Difficulty 0..1 -> latent value; the ends are kept inside the grid."""
    kept = min(max(difficulty, 0.03), 0.97)
    return math.log(kept / (1.0 - kept))


def rates(situation: Situation) -> tuple[float, float]:
    """Sensitivity and false-accept rate by which a *rejection* is to be read."""
    if situation.sensitivity >= 1.0 and situation.false_accept >= 1.0:
        return SENSITIVITY, FALSE_ACCEPT
    return situation.sensitivity, situation.false_accept


def _reweighted(weights: Floats, correct: Floats, decision: str, situation: Situation) -> Floats:
    if decision == "accept":
        seen, passed = situation.sensitivity, situation.false_accept
        likelihood = correct * seen + (1.0 - correct) * passed
    else:
        seen, passed = rates(situation)
        likelihood = correct * (1.0 - seen) + (1.0 - correct) * (1.0 - passed)
    return _moved(weights, likelihood)


def _moved(weights: Floats, likelihood: Floats) -> Floats:
    moved: Floats = weights * likelihood
    total = float(moved.sum())
    if total <= 0.0:  # an impossible verdict under these rates: nothing can be learned from it
        return weights
    moved /= total
    moved.setflags(write=False)
    return moved


def _failed_by(rung: Rung, attempts: Sequence[Attempt], failure: Failure) -> bool:
    return bool(attempts) and attempts[-1].rung.id == rung.id and attempts[-1].failure == failure
