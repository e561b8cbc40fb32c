"""How far forecasts are off, learned while serving: a shift and slope of the logit, pooled over rungs and like prompts.

A forecast p of rung k for a prompt of cluster c becomes, with x = logit p,

    sigmoid( x + (b + b_k) + (a + a_k) x + u_c + v_ck )

with Gaussian priors around "nothing is off": b and a are shared by all rungs (under transfer they are off alike), b_k
and a_k are a rung's own (Platt 1999), u_c is how much a cluster's prompts are easier than forecast, v_ck what a rung
adds to that. Each outcome becomes a Gaussian factor on its cell (c, k) whose moments match (assumed density filtering:
Opper 1998, "A Bayesian approach to on-line learning"). So the state is a table of sums, which replicas merge by adding,
and the parameters are the exact solution of a linear hierarchical model on those sums.

Whether anything is off, and how much clusters differ, can't be known beforehand. Several priors on it stand side by
side on the same sums, the first of them "nothing is off", and their forecasts are averaged by how well each has
foretold the outcomes. So the whole loss stays within ln 5 nats of the best one's, unrecalibrated forecasts included,
but for what forgetting adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.estimate.evidence import BANDS, OTHERS, Evidence, Ints

SPREADS = ((0.0, 0.0), (0.3, 0.2), (1.2, 0.8), (4.0, 3.0))
"""Prior variances of (u, v) that stand side by side, in squared logits; with the first, clusters do not count."""

_VARIANCES = (1.0, 0.09, 0.25, 0.04)  # of b, a, b_k, a_k
_LEAST = 0.001  # forecasts that are surer are read as if they were as sure as this
_JITTER = 0.02  # of a cell's variance: keeps a sure cell teachable
_FLATTEST = 0.1  # smallest slope
_EVERYBODY = 1e-9  # a variance of nothing


def logit(p: Floats) -> Floats:
    """ln(p / (1 - p)), p cut at 0.001 and 0.999."""
    kept = np.minimum(np.maximum(p, _LEAST), 1.0 - _LEAST)
    found: Floats = np.log(kept / (1.0 - kept))
    return found


@dataclass(frozen=True, slots=True)
class Observed:
    """One outcome: what a rung's answer was forecast (a probability, not recalibrated) and what became of it.

    `accepted` by a verifier that accepts a right answer with `sensitivity` and a wrong one with `false_accept`;
    1 and 0 for a label that is known.
    """

    head: str
    cluster: str
    p: float
    accepted: bool
    sensitivity: float = 1.0
    false_accept: float = 0.0


@dataclass(frozen=True, eq=False)  # no slots: what follows from the evidence is computed once and kept
class Recalibration:
    """The map from forecasts to recalibrated ones that evidence amounts to. Without evidence it is the identity."""

    evidence: Evidence = field(default_factory=Evidence)

    def apply(self, p: Floats, heads: tuple[str, ...], cluster: str = OTHERS) -> Floats:
        """Recalibrated probabilities (K,) of these rungs on a prompt of this cluster; unknown names are allowed."""
        slopes, shifts = self._maps(heads)[self.row(cluster)]
        z = slopes * logit(p) + shifts
        mixed: Floats = self.weights @ (1.0 / (1.0 + np.exp(-z)))
        return mixed

    def row(self, cluster: str) -> int:
        """The row of a cluster; the last is that of all that are unknown."""
        return self._rows.get(cluster, len(self.evidence.clusters))

    def columns(self, heads: tuple[str, ...]) -> npt.NDArray[np.intp]:
        """The columns of rungs; the last is that of all that are unknown."""
        known = {head: column for column, head in enumerate(self.evidence.heads)}
        return np.array([known.get(head, len(known)) for head in heads], dtype=np.intp)

    def learned(self, seen: Observed, sketch: Ints | None = None) -> Evidence:
        """What this outcome adds, as evidence of its own: `evidence.faded(1).plus(learned(...))` is the next one."""
        row, column = self.row(seen.cluster), int(self.columns((seen.head,))[0])
        x = float(logit(np.array([seen.p]))[0])
        centres, gains, variances = (array[row, :, column] for array in self._solved[:3])
        lines = self._solved[3][:, :, column] @ np.array([1.0, 2.0 * x, x * x])
        means = centres + gains * x
        best = 1 + int(np.argmax(self.weights[1:]))  # one that can learn
        weight, centre = _factor(float(means[best]), float(variances[best] + lines[best]) + _JITTER, seen)
        shift = centre - x
        sums = weight * np.array([1.0, x, x * x, shift, x * shift])
        kept = (OTHERS,) if seen.cluster == OTHERS else (OTHERS, seen.cluster)
        table, sketches = np.zeros((len(kept), 1, 5)), np.zeros((len(kept), BANDS), dtype=np.uint32)
        table[-1, 0] = sums
        if sketch is not None and len(kept) > 1:
            sketches[-1] = sketch
        return Evidence((seen.head,), kept, sketches, table, -np.log(_foretold(means, variances, seen)), 1.0)

    @cached_property
    def weights(self) -> Floats:
        """How much each of the PRIORS counts (M,): by how well it has foretold the outcomes."""
        weights: Floats = np.exp(self.evidence.losses.min() - self.evidence.losses)
        weights /= weights.sum()
        return weights

    def prepare(self) -> None:
        """Solve for the parameters now, rather than at the first use (which then costs a millisecond less)."""
        _ = self._map, self.weights

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.evidence.clusters)}

    @cached_property
    def _solved(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Centres, gains and variances of the logits: (C + 1, M, K + 1), the last row and column for the unknown.

        The variances are those of u + v; the fourth, (M, 3, K + 1), is of the lines: of shift, of both, of slope.
        """
        nothing = np.zeros((len(self.evidence.clusters) + 1, len(self.evidence.heads) + 1))
        parts = [_solution(self.evidence.sums, *spread) for spread in SPREADS]
        parts.insert(0, (nothing, nothing + 1.0, nothing, np.zeros_like(parts[0][3])))
        centres, gains, variances, lines = zip(*parts, strict=True)
        return np.stack(centres, 1), np.stack(gains, 1), np.stack(variances, 1), np.stack(lines)

    @cached_property
    def _map(self) -> Floats:
        """Slopes and shifts (C + 1, 2, M, K + 1) of logits, how unsure the parameters are taken into account."""
        centres, gains, variances, _ = self._solved
        shrunk = moderation(variances)
        return np.stack([gains * shrunk, centres * shrunk], axis=1)

    def _maps(self, heads: tuple[str, ...]) -> Floats:
        found = self._ladders.get(heads)
        if found is None:
            found = self._ladders[heads] = self._map[..., self.columns(heads)]
        return found

    @cached_property
    def _ladders(self) -> dict[tuple[str, ...], Floats]:
        return {}


def moderation(variance: Floats) -> Floats:
    """By what a logit shrinks where it is only known with this variance (MacKay 1992, eq. 10)."""
    shrunk: Floats = 1.0 / np.sqrt(1.0 + math.pi * variance / 8.0)
    return shrunk


def _foretold(means: Floats, variances: Floats, seen: Observed) -> Floats:
    """P(what was seen) under each prior."""
    correct = 1.0 / (1.0 + np.exp(-means * moderation(variances)))
    accepted = seen.false_accept + (seen.sensitivity - seen.false_accept) * correct
    foretold = accepted if seen.accepted else 1.0 - accepted
    return np.maximum(foretold, 1e-6)


def _factor(mean: float, variance: float, seen: Observed) -> tuple[float, float]:
    """Precision and centre of the Gaussian factor that moves N(mean, variance) as the outcome does.

    The curvature is the expected one, so that it is never negative, also for verdicts that are noisy.
    """
    shrunk = 1.0 / math.sqrt(1.0 + math.pi * variance / 8.0)
    correct = 1.0 / (1.0 + math.exp(-shrunk * mean))
    accepted = seen.false_accept + (seen.sensitivity - seen.false_accept) * correct
    accepted = min(max(accepted, 1e-6), 1.0 - 1e-6)
    slope = (seen.sensitivity - seen.false_accept) * correct * (1.0 - correct) * shrunk
    curvature = slope * slope / (accepted * (1.0 - accepted))
    if curvature < 1e-12:  # a verdict that does not depend on the answer, or nothing left to learn from it
        return 0.0, mean
    towards = slope / accepted if seen.accepted else -slope / (1.0 - accepted)
    return curvature / (1.0 - variance * curvature), mean + towards / curvature


def _solution(sums: Floats, cluster_variance: float, cell_variance: float) -> tuple[Floats, Floats, Floats, Floats]:
    """What `_solved` holds, under one prior: v, then u, are eliminated by Schur complements."""
    own = 1.0 / max(cell_variance, _EVERYBODY)
    shared = 1.0 / max(cluster_variance, _EVERYBODY)
    weight, _, _, rest, _ = np.moveaxis(sums, 2, 0)
    freed = own / (own + weight)
    freed[0] = 1.0  # OTHERS are no cluster: nothing is theirs alone
    left = _without_cells(sums, own)
    total = shared + left[..., 0].sum(axis=1)
    total[0] = math.inf
    drift = left[..., 3].sum(axis=1)
    cross = np.concatenate([left[..., 0], left[..., 1]], axis=1)  # (C, 2K)
    gain = math.sqrt(1.0 + math.pi * (cluster_variance + cell_variance) / 8.0)
    (common, flat), lines, covariance = _lines(left.sum(axis=0), cross, drift, total, gain)
    shift, slope = lines
    ease = (drift - cross @ lines.ravel()) / total
    still = rest - sums[..., 1] * slope - weight * (shift + ease[:, None])
    cells = still / (own + weight)
    cells[0] = 0.0
    knows = 1.0 / (own + weight) + freed**2 / total[:, None]
    unknown = 1.0 / total + cell_variance
    knows[0] = unknown[0] = cluster_variance + cell_variance
    return (
        _framed(shift + ease[:, None] + cells, shift, common + ease, common),
        _framed(np.broadcast_to(1.0 + slope, weight.shape), 1.0 + slope, 1.0 + flat, 1.0 + flat),
        _framed(knows, cluster_variance + cell_variance, unknown, cluster_variance + cell_variance),
        covariance,
    )


def _without_cells(sums: Floats, own: float) -> Floats:
    """The sums once v_ck is integrated out of every cell but those of OTHERS."""
    weight, first, _, rest, _ = np.moveaxis(sums, 2, 0)
    scale = 1.0 / (own + weight)
    lost = np.stack([weight * weight, weight * first, first * first, weight * rest, first * rest], axis=2)
    lost *= scale[..., None]
    lost[0] = 0.0
    left: Floats = sums - lost
    return left


def _lines(
    summed: Floats, cross: Floats, drift: Floats, total: Floats, gain: float
) -> tuple[tuple[float, float], Floats, Floats]:
    """The shared (b, a); each rung's (b + b_k, a + a_k) as (2, K), u_c being integrated out; and their covariances.

    `gain` is what a slope is before anything is known: what integrating over clusters takes from it again.
    """
    heads = len(summed)
    each = np.arange(heads)
    precision = np.zeros((2 * heads, 2 * heads))
    precision[each, each] = summed[:, 0]
    precision[each, heads + each] = precision[heads + each, each] = summed[:, 1]
    precision[heads + each, heads + each] = summed[:, 2]
    precision -= (cross / total[:, None]).T @ cross
    pull = np.concatenate([summed[:, 3], summed[:, 4]]) - cross.T @ (drift / total)
    shown = np.zeros((2 * heads, 2 + 2 * heads))
    shown[:heads, 0] = shown[heads:, 1] = 1.0
    shown[np.arange(2 * heads), 2 + np.arange(2 * heads)] = 1.0
    prior = 1.0 / np.repeat(_VARIANCES, (1, 1, heads, heads))
    start = np.zeros(2 + 2 * heads)
    start[1] = gain - 1.0
    covariance = np.linalg.inv(np.diag(prior) + shown.T @ precision @ shown)
    found = covariance @ (prior * start + shown.T @ pull)
    lines = (shown @ found).reshape(2, heads)
    np.maximum(lines[1], _FLATTEST - 1.0, out=lines[1])  # few outcomes must not turn a forecast round
    spread = np.empty((3, heads + 1))
    told = shown @ covariance @ shown.T
    spread[:, :-1] = told[each, each], told[each, heads + each], told[heads + each, heads + each]
    own = np.array([_VARIANCES[2], 0.0, _VARIANCES[3]])
    spread[:, -1] = covariance[[0, 0, 1], [0, 1, 1]] + own
    return (float(found[0]), max(float(found[1]), _FLATTEST - 1.0)), lines, spread


def _framed(inner: Floats, row: Floats | float, column: Floats | float, corner: float) -> Floats:
    """`inner` (C, K) with a last row for an unknown cluster and a last column for an unknown rung."""
    framed = np.empty((inner.shape[0] + 1, inner.shape[1] + 1))
    framed[:-1, :-1], framed[-1, :-1], framed[:-1, -1], framed[-1, -1] = inner, row, column, corner
    return framed
