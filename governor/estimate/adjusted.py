"""A belief whose forecasts are recalibrated: every rung's success curve is moved by a constant on the logit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from governor.estimate.agreement import Pairs, pairs_of
from governor.estimate.curves import GRID, Floats
from governor.estimate.latent import Grid, rates
from governor.estimate.learned import LearnedBelief
from governor.protocols import Belief, Situation
from governor.records import Forecast, Rung

_NOTICEABLE = 0.2  # logits, or latent units: below it a shift is not worth a reason
_LEAST = 1e-6
_SAME = 0.002  # in probability: closer than it, nothing is worth the work
_SCALE: Floats = 1.0 / (1.0 + np.exp(-GRID))  # difficulty 0..1 at the grid's points


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned while serving, as far as it bears on one belief: for `explain`.

    `factor` multiplies the odds of the rung that moved most, `outcomes` taught it (old ones count less), `session` is
    the move of difficulty on the latent scale, `alarmed` are rungs whose forecasts drifted, `problem` says why the
    shared state is not in use.
    """

    factor: float = 1.0
    outcomes: float = 0.0
    session: float = 0.0
    alarmed: tuple[str, ...] = ()
    problem: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """In a few words each."""
        said: list[str] = []
        if self.alarmed:
            said.append(f"forecasts of {', '.join(self.alarmed)} drifted from outcomes: held less sure")
        shift = math.log(max(self.factor, 1e-12))
        if abs(shift) >= _NOTICEABLE:
            better = "better" if shift > 0 else "worse"
            taught = f"{shift:+.1f} logits, {self.outcomes:.0f} outcomes"
            said.append(f"like steps went {better} than forecast ({taught})")
        if abs(self.session) >= _NOTICEABLE:
            said.append(f"this session's steps were {'harder' if self.session > 0 else 'easier'} than they looked")
        if self.problem:
            said.append(self.problem)
        return tuple(said)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdjustedBelief:
    """Belief (governor.protocols) around another: its joint grid with moved success curves and moved weights.

    `odds` (K,) multiplies the odds of success of the rungs `heads`; rungs that are not among them stay as they are.
    `weights` (G,) replaces the inner belief's weights, None where that has no grid.
    """

    inner: Belief
    heads: tuple[str, ...]
    odds: Floats
    weights: Floats | None = None
    prior: Floats | None = None
    learned: Learned = Learned()

    @property
    def difficulty(self) -> float:
        """Posterior mean difficulty, 0 (trivial) to 1 (hardest)."""
        if self.weights is None:
            return self.inner.difficulty
        if isinstance(self.inner, LearnedBelief):
            return replace(self.inner, weights=self.weights).difficulty
        return float(_SCALE @ self.weights) if self.weights.size == GRID.size else self.inner.difficulty

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was learned while serving comes first."""
        return (*self.learned.reasons, *self.inner.reasons)

    def grid(self, situation: Situation) -> Grid:
        """The joint belief for this situation's ladder; G = 1 where the inner belief has none."""
        odds = self._odds(situation.terms.ladder)
        found = joint(self.inner, situation)
        weights = found.weights if self.weights is None else self.weights
        prior = found.prior if self.prior is None else self.prior
        success = lifted(found.success, odds)
        answer = success if found.answer is found.success else lifted(found.answer, odds)
        return replace(found, weights=weights, prior=prior, answer=answer, success=success)

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        """The inner belief's forecasts with recalibrated P(correct); tokens, money and time are as they were."""
        forecasts = self.inner.forecasts(situation)
        if self.weights is None:
            found = np.array([forecast.p_success for forecast in forecasts])
            success = lifted(found[:, None], self._odds(situation.terms.ladder))[:, 0]
        else:
            curves = joint(self.inner, situation).success
            success = lifted(curves, self._odds(situation.terms.ladder)) @ self.weights
        seen, passed = situation.sensitivity, situation.false_accept
        return tuple(
            Forecast(
                rung=old.rung,
                p_success=p,
                p_accept=p * seen + (1.0 - p) * passed,
                output_tokens=old.output_tokens,
                micros=old.micros,
                seconds=old.seconds,
                index=old.index,
                spread=old.spread,
            )
            for old, p in zip(forecasts, success.tolist(), strict=True)
        )

    def pairs(self, situation: Situation) -> Pairs | None:
        """What comparing two answers would tell, with every rung's odds moved alike before and after."""
        found = pairs_of(self.inner, situation)
        if found is None:
            return None
        odds = self._odds(situation.terms.ladder)
        p, after = lifted(found.p[:, None], odds)[:, 0], lifted(found.after[..., None], odds)[..., 0]
        return Pairs(p, found.equal, after)

    def after(self, rung: Rung, decision: str, situation: Situation) -> AdjustedBelief:
        """The inner belief after the verdict, and Bayes on the moved curves wherever the inner weights moved."""
        inner = self.inner.after(rung, decision, situation)
        if inner is self.inner:
            return self
        if self.weights is None:
            return replace(self, inner=inner)
        before, now = joint(self.inner, situation), joint(inner, situation)
        if np.array_equal(before.weights, now.weights):  # a cut reply: it says something of lengths only
            return replace(self, inner=inner)
        if decision not in {"accept", "reject"}:  # a second sample that was compared: as far as the inner one moved
            moved = self.weights * now.weights / np.maximum(before.weights, _LEAST)
            return replace(self, inner=inner, weights=moved / moved.sum())
        row = situation.terms.ladder.index(rung)
        correct = lifted(before.answer, self._odds(situation.terms.ladder))[row]
        return replace(self, inner=inner, weights=reweighted(self.weights, correct, decision == "accept", situation))

    def _odds(self, ladder: tuple[Rung, ...]) -> Floats:
        """The odds factors in this ladder's order."""
        if len(ladder) == len(self.heads) and all(
            rung.id == head for rung, head in zip(ladder, self.heads, strict=True)
        ):
            return self.odds
        known = dict(zip(self.heads, self.odds.tolist(), strict=True))
        return np.array([known.get(rung.id, 1.0) for rung in ladder])


def joint(belief: Belief, situation: Situation) -> Grid:
    """The belief's own grid; where it has none, one point at which rungs succeed independently as forecast."""
    made = getattr(belief, "grid", None)
    if made is not None:
        found: Grid = made(situation)
        return found
    success = np.array([[forecast.p_success] for forecast in belief.forecasts(situation)])
    one = np.ones(1)
    return Grid(one, one, success, success)


def lifted(success: Floats, odds: Floats) -> Floats:
    """Probabilities (K, G) whose odds are multiplied by `odds` (K,)."""
    by = odds[:, None]
    moved: Floats = success * by / (1.0 + success * (by - 1.0))
    return moved


def odds_for(success: Floats, weights: Floats, mean: Floats, wanted: Floats) -> Floats:
    """Factors (K,) by which the odds must grow for each rung's mean success, now `mean`, to become about `wanted`.

    The mean follows a shift of the logit about as a logistic curve of lower slope does (MacKay 1992, eq. 10). So
    Newton's method, taken on the mean's logit, is within 0.02 after two rounds. Exact for G = 1.
    """
    if np.abs(wanted - mean).max(initial=0.0) < _SAME:
        return np.ones_like(mean)
    aim = np.log((wanted + _LEAST) / (1.0 - wanted + _LEAST))
    logs: Floats = aim - np.log((mean + _LEAST) / (1.0 - mean + _LEAST))
    if weights.size == 1:
        return np.exp(logs)
    logs *= (mean * (1.0 - mean) + _LEAST) / (mean - (success * success) @ weights + _LEAST)
    rest = 1.0 / np.maximum(success, _LEAST) - 1.0
    now = 1.0 / (1.0 + rest * np.exp(-logs)[:, None])
    reached = now @ weights
    short = aim - np.log((reached + _LEAST) / (1.0 - reached + _LEAST))
    logs += short * ((reached * (1.0 - reached) + _LEAST) / (reached - (now * now) @ weights + _LEAST))
    return np.exp(logs)


def reweighted(weights: Floats, correct: Floats, accepted: bool, situation: Situation) -> Floats:
    """Bayes on a verdict over the weights (G,), `correct` (G,) being P(correct); unchanged where it is impossible."""
    if accepted:
        seen, passed = situation.sensitivity, situation.false_accept
    else:
        seen, passed = (1.0 - rate for rate in rates(situation))
    moved: Floats = weights * (correct * seen + (1.0 - correct) * passed)
    total = float(moved.sum())
    return moved / total if total > 0.0 else weights
