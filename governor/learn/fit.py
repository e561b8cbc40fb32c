"""Records -> Calibration: heads, recalibration on held-out folds, latent loadings, lengths, scores, verifier rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from governor.errors import CalibrationError
from governor.estimate.calibration import Calibration, Frontier, Text
from governor.estimate.curves import Floats
from governor.estimate.learned import mixed
from governor.estimate.trees import Forest
from governor.learn.certify import group_digest
from governor.learn.chained import fit_chain
from governor.learn.comparisons import fit_agreement
from governor.learn.factor import loadings
from governor.learn.familiarity import fit_familiar
from governor.learn.heads import (
    STRENGTHS,
    Design,
    Rows,
    Shape,
    fit_axes,
    fit_linear,
    fit_trees,
    inverse_frequency,
    most_rounds,
    shapes,
    text_of,
)
from governor.learn.ladder import Ladder
from governor.learn.lengths import fit_lengths
from governor.learn.outcomes import over_samples
from governor.learn.pricing import priced
from governor.learn.routing import splits
from governor.learn.scored import fit_scores
from governor.learn.shrink import shrinkage
from governor.learn.table import Table, folds
from governor.learn.worth import worth
from governor.records import Step

FOLDS = 5
MIXES = (0.3, 0.5, 0.7)
"""Weights of the trees beside the linear heads: each alone forecasts worse than both."""

GROWN = (0.3, 0.6, 1.0)
"""Shares of the trees, of which held-out log loss picks one."""

PROBED = 1500
"""Questions on whose held-out forecasts strength and shape are chosen: more tell no more and take longer."""

FEWEST = 20
"""Questions without which nothing is fitted."""

Parts: TypeAlias = Sequence[tuple[Rows, Rows]]
"""(training rows, test rows) of each fold."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Forecasts of every question by fits that did not see it, and the settings that made them best.

    `raw` and `linear` are log-odds (Q, K) of heads with trees and of linear heads alone.
    """

    raw: Floats
    linear: Floats
    strength: float
    shape: Shape
    grown: float
    mix: float


def fit(table: Table, ladder: Ladder | None = None, *, seed: int = 0) -> Calibration:
    """Fit forecasts of every rung of a table, and what the dial means where a ladder says how answers are verified.

    Everything that is judged (recalibration, loadings, scores, the report) uses forecasts of questions by fits that did
    not see their group. Raises CalibrationError where there is too little to learn from.
    """
    y, weight = _outcomes(table)
    if len(table.qids) < FEWEST or (weight.sum(axis=0) < FEWEST).any():
        raise CalibrationError(_too_few(table, weight))
    design = Design.of(steps_of(table))
    fold = folds(table.groups, FOLDS, seed)
    held = _held_out(design, y, weight, fold, seed)
    groups = np.unique(np.array(table.groups), return_inverse=True)[1].astype(np.float64)
    shrunk = shrinkage(held.raw, y, weight, groups)
    odds = shrunk.applied(held.raw)
    text, trees, axes = _final(design, y, weight, held, seed)
    places = np.column_stack([axes, design.numbers[:, 0]])
    lengths = fit_lengths(places, table.output_tokens, table.finished)
    found = Calibration(
        rungs=table.rungs,
        base_rate=(y * weight).sum(axis=0) / weight.sum(axis=0),
        centre=shrunk.centre,
        slope=shrunk.slope,
        level=shrunk.level,
        loading=loadings(*_items(odds, table.correct)),
        mean_cost=_mean(table.cost),
        mix=held.mix,
        text=text,
        trees=trees,
        lengths=lengths,
        frontier=_unknown_frontier(),
        scores=fit_scores(odds, table.correct, table.score),
        agreement=fit_agreement(odds, table.correct, table.answers, groups.astype(np.intp)),
        familiar=fit_familiar(design, fold),
        rates=verifier_rates(table),
        report=worth(table, odds, y, weight, shrunk, lengths, places, seed),
        fitted_on=frozenset(map(group_digest, table.groups)),
    )
    return found if ladder is None else _applied(found, table, ladder, odds, seed)


def _applied(found: Calibration, table: Table, ladder: Ladder, odds: Floats, seed: int) -> Calibration:
    """What only a ladder tells: how a growing thought's scores move, and what the dial means under its verifier."""
    if ladder.continues and found.scores is not None and len(table.rungs) > 1:
        ended = table.finished.astype(np.float64)
        chain = fit_chain(found.scores, table.correct, table.score, table.output_tokens, ended)
        found = replace(found, chain=chain)
    return priced(found, table, ladder, odds, seed)


def steps_of(table: Table) -> list[Step]:
    """Each question as the step that the estimator would see."""
    contexts = table.contexts or ({},) * len(table.qids)
    return [
        Step(id=f"fit:{at}", messages=({"role": "user", "content": text},), node=node, **context)
        for at, (text, node, context) in enumerate(zip(table.questions, table.nodes, contexts, strict=True))
    ]


def verifier_rates(table: Table, fewest: int = 30) -> dict[str, tuple[float, float, int]]:
    """Per node, P(accept | correct), P(accept | wrong) and how many verdicts with a true label there were.

    Both with one pseudo-observation of each kind. A node with fewer than `fewest` such verdicts is left out;
    the node "" is all of them together.
    """
    if table.verdict is None:
        return {}
    known = ~np.isnan(table.verdict) & ~np.isnan(table.correct)
    if table.noisy is not None:
        known &= ~table.noisy
    nodes = np.array(table.nodes)
    found: dict[str, tuple[float, float, int]] = {}
    for node in ("", *sorted(set(table.nodes))):
        rows = known & ((nodes == node)[:, None, None] if node else True)
        right, accepted = table.correct[rows] >= 0.5, table.verdict[rows] > 0.5
        if right.size >= fewest:
            found[node] = (_share(accepted[right]), _share(accepted[~right]), int(right.size))
    return found


def _share(hits: npt.NDArray[np.bool_]) -> float:
    return float((hits.sum() + 1.0) / (len(hits) + 2.0))


def _outcomes(table: Table) -> tuple[Floats, Floats]:
    """Mean outcome over samples and whether there is one, both (Q, K)."""
    mean = over_samples(table.correct)
    return np.nan_to_num(mean), (~np.isnan(mean)).astype(np.float64)


def _held_out(design: Design, y: Floats, weight: Floats, fold: Rows, seed: int) -> Held:
    """Trees learn from held-out log-odds of the linear heads, as they will meet them."""
    parts = list(splits(fold))
    probed = parts[: _probed(parts)]
    views, places = [], []
    for train, _ in parts:
        words, x = design.weighted(inverse_frequency(design.counts[train]))
        views.append(x)
        places.append(words @ fit_axes(words[train], seed))
    linear_by = _linear_by(views, y, weight, parts)
    strength = _strength(linear_by, y, weight, probed)
    linear = _together(parts, [linear_by(strength, at) for at in range(len(parts))])
    trees_by = _trees_by([np.hstack([linear, design.numbers, axes]) for axes in places], y, weight, parts)
    tried = shapes(y.shape[1])
    shape = tried[0] if len(tried) == 1 else _shape(tried, trees_by, linear, y, weight, probed)
    raw = _blends(linear, _together(parts, [trees_by(shape, at) for at in range(len(parts))]))
    grown, mix = min(raw, key=lambda one: _log_loss(raw[one], y, weight))
    return Held(raw[grown, mix], linear, strength, shape, grown, mix)


def _linear_by(views: list[Any], y: Floats, weight: Floats, parts: Parts) -> Callable[[float, int], Floats]:
    """Log-odds (T, K) of a fold's questions by linear heads of some strength that did not see them; each fitted once.

    `views` are what the heads read (Q, B), one for each fold.
    """

    @cache
    def fitted(strength: float, at: int) -> Floats:
        (train, test), x = parts[at], views[at]
        coefficients, intercepts = fit_linear(x[train], y[train], weight[train], strength)
        odds: Floats = x[test] @ coefficients + intercepts
        return odds

    return fitted


def _trees_by(rows: list[Floats], y: Floats, weight: Floats, parts: Parts) -> Callable[[Shape, int], Floats]:
    """Sums of trees of some shape that did not see a fold (len(GROWN), T, K) of its questions; each fitted once."""

    @cache
    def fitted(shape: Shape, at: int) -> Floats:
        (train, test), x = parts[at], rows[at]
        return fit_trees(x[train], y[train], weight[train], most_rounds(y.shape[1]), shape).many(x[test], GROWN)

    return fitted


def _together(parts: Parts, found: list[Floats]) -> Floats:
    """What was found of each fold's questions (..., T, K), in the order of all (..., Q, K)."""
    order = np.argsort(np.concatenate([test for _, test in parts]))
    return np.concatenate(found, axis=-2)[..., order, :]


def _probed(parts: Parts) -> int:
    """How many folds hold PROBED questions."""
    sizes = np.array([len(test) for _, test in parts]).cumsum()
    return int(np.searchsorted(sizes, min(PROBED, int(sizes[-1])))) + 1


def _strength(linear_by: Callable[[float, int], Floats], y: Floats, weight: Floats, probed: Parts) -> float:
    """The strength of least held-out log loss."""
    best, least = STRENGTHS[0], np.inf
    for strength in STRENGTHS:
        loss = sum(_log_loss(linear_by(strength, at), y[test], weight[test]) for at, (_, test) in enumerate(probed))
        if loss >= least:
            break
        best, least = strength, loss
    return best


def _shape(
    tried: Sequence[Shape],
    trees_by: Callable[[Shape, int], Floats],
    linear: Floats,
    y: Floats,
    weight: Floats,
    probed: Parts,
) -> Shape:
    """The shape of least held-out log loss, beside the linear heads."""
    tests = np.concatenate([test for _, test in probed])

    def loss(shape: Shape) -> float:
        trees = np.concatenate([trees_by(shape, at) for at in range(len(probed))], axis=-2)
        return min(_log_loss(odds, y[tests], weight[tests]) for odds in _blends(linear[tests], trees).values())

    return min(tried, key=loss)


def _blends(linear: Floats, trees: Floats) -> dict[tuple[float, float], Floats]:
    """Log-odds (Q, K) of heads and trees together, by how many of the trees and their weight."""
    return {(grown, mix): mixed(linear, trees[at], mix) for at, grown in enumerate(GROWN) for mix in MIXES}


def _final(design: Design, y: Floats, weight: Floats, held: Held, seed: int) -> tuple[Text, Forest, Floats]:
    """What is served, fitted on everything, and every question's place along the axes."""
    idf = inverse_frequency(design.counts)
    words, x = design.weighted(idf)
    coefficients, intercepts = fit_linear(x, y, weight, held.strength)
    text = text_of(idf, coefficients, intercepts, fit_axes(words, seed))
    places = words @ text.axes.astype(np.float64)
    rounds = max(round(held.grown * most_rounds(y.shape[1])), 1)
    trees = fit_trees(np.hstack([held.linear, design.numbers, places]), y, weight, rounds, held.shape)
    return text, trees, places


def _items(odds: Floats, correct: Floats) -> tuple[Floats, Floats, Floats]:
    """Forecasts, outcomes and whether there is one of every (question, sample), in the questions' order."""
    samples = correct.shape[2]
    outcome = correct.transpose(0, 2, 1).reshape(-1, correct.shape[1])
    return np.repeat(odds, samples, axis=0), np.nan_to_num(outcome), (~np.isnan(outcome)).astype(np.float64)


def _log_loss(odds: Floats, y: Floats, weight: Floats) -> float:
    return float((weight * (np.logaddexp(0.0, odds) - y * odds)).sum())


def _mean(values: Floats) -> Floats:
    """Mean per rung (K,) over all that is known, NaN where nothing is."""
    return np.array([np.nanmean(values[:, k]) if not np.isnan(values[:, k]).all() else np.nan
                     for k in range(values.shape[1])])  # fmt: skip


def _unknown_frontier() -> Frontier:
    empty = np.empty(0)
    return Frontier(price=empty, cost=empty, quality=empty, surely=empty, unit=1.0)


def _too_few(table: Table, weight: Floats) -> str:
    counts = {rung: int(n) for rung, n in zip(table.rungs, weight.sum(axis=0), strict=True)}
    return f"too few outcomes to learn from: {counts}; at least {FEWEST} questions a rung are needed"
