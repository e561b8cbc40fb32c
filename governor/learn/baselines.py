"""What others would do with the same records: the one-shot routers a reader expects, and two that know the answers.

A router sees the labels of training questions and the texts of all; each question is judged by a fit that never saw
its fold. Shapes: Q questions, K rungs, S samples, D = 41 dials, dial 0 the most accurate and the last the cheapest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from governor.errors import MissingExtraError
from governor.estimate.curves import Floats
from governor.learn.frontier import hull
from governor.learn.intervals import Spread
from governor.learn.ladder import Ladder
from governor.learn.table import Table

Rows = npt.NDArray[np.intp]
Forecaster = Callable[[Rows, Rows], Floats]
"""(training rows, test rows) -> P(correct) of the test rows, shape (test, K)."""

PRICES: Floats = np.concatenate(([0.0], np.geomspace(2e-3, 50.0, 39), [1e6]))
"""Accuracy that the best fixed rung's whole cost must buy: nothing at the first dial, everything at the last."""

LENGTH_BINS = 20
NEIGHBOURS = 20
_PRIOR = 10.0  # pseudo-questions at the base rate in each bin of length
_ALL_ORDERS = 8  # rungs; of more, only unbroken runs are tried
_BLOCK = 512  # rows of similarities held at once


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What a router may be judged by: `correct` (0 or 1) and `cost` are (Q, K, S), NaN where nothing is recorded.

    `known` (Q, K) is the part of the cost that the question's text gives away; `last` (Q, K, S) marks thoughts that
    ended by themselves, after which a continuing ladder has no higher rung. `look` is what each earlier look at a
    continuing thought costs, None on ladders whose rungs start afresh.
    """

    texts: tuple[str, ...]
    correct: Floats
    cost: Floats
    known: Floats
    last: npt.NDArray[np.bool_]
    look: float | None = None

    @classmethod
    def of(cls, table: Table, ladder: Ladder) -> Outcomes:
        """From records whose labels are strict already (0 or 1, drawn where they were fractions)."""
        return cls(
            texts=table.questions,
            correct=table.correct,
            cost=table.cost,
            known=known_cost(table, ladder),
            last=table.finished if ladder.continues else np.zeros(table.correct.shape, dtype=np.bool_),
            look=1.0 if ladder.continues else None,
        )

    @property
    def accuracy(self) -> Floats:
        """Mean over samples, (Q, K)."""
        return _over_samples(self.correct)

    @property
    def paid(self) -> Floats:
        """Mean cost over samples, (Q, K)."""
        return _over_samples(self.cost)


def known_cost(table: Table, ladder: Ladder) -> Floats:
    """USD of the input alone, a token being four characters, (Q, K); 0 on ladders of any other unit."""
    if ladder.unit != "usd":
        return np.zeros(table.correct.shape[:2])
    tokens = np.array([len(text) / 4.0 for text in table.questions])
    prices = np.array([ladder.costs[rung].input_per_million for rung in table.rungs])
    return np.outer(tokens, prices / 1e6)


def out_of_fold(fold: Rows, rungs: int, forecaster: Forecaster) -> Floats:
    """P(correct) of every question, (Q, K), by a fit on the other folds; `fold` (Q,) says which fold tests it."""
    p = np.empty((len(fold), rungs))
    for train, test in splits(fold):
        p[test] = forecaster(train, test)
    return p


def splits(fold: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(training rows, test rows) of every fold, in their order."""
    for part in np.unique(fold):
        yield np.flatnonzero(fold != part), np.flatnonzero(fold == part)


def one_shot(outcomes: Outcomes, fold: Rows, p: Floats, prices: Floats = PRICES) -> Spread:
    """Each question on the rung of greatest `p - price * expected cost`, out of fold.

    Expected cost is what the text gives away plus the mean of the rest on training questions, in units of the best
    fixed rung's mean cost there.
    """
    chosen = np.empty((len(prices), len(fold)), dtype=np.intp)
    for train, test in splits(fold):
        rest = np.nanmean(outcomes.paid[train] - outcomes.known[train], axis=0)
        unit = float(np.nanmean(outcomes.paid[train], axis=0)[_best(outcomes, train)]) or 1.0
        chosen[:, test] = choose(p[test], (outcomes.known[test] + rest) / unit, prices)
    return taken(outcomes, chosen)


def choose(p: Floats, cost: Floats, prices: Floats) -> Rows:
    """argmax of `p - price * cost` at each price, (D, Q); ties to the cheaper. Of rungs without a forecast, none."""
    order = np.argsort(cost.mean(axis=0), kind="stable")
    worth = p[None, :, order] - prices[:, None, None] * cost[None, :, order]
    return order[np.argmax(np.where(np.isnan(worth), -np.inf, worth), axis=2)]


def taken(outcomes: Outcomes, chosen: Rows) -> Spread:
    """Cost and accuracy of the chosen rungs, (D, Q)."""
    at = np.arange(chosen.shape[1])
    return Spread(outcomes.paid[at, chosen], outcomes.accuracy[at, chosen])


def by_score(outcomes: Outcomes, fold: Rows, score: Floats, dials: int = len(PRICES)) -> Spread:
    """Harder-looking questions on dearer rungs: the hull's mixtures, drawn by a score (Q,) instead of at random.

    Along the hull of fixed rungs on the training folds, each dial shares the questions between two neighbours; the
    threshold is that quantile of the training questions' scores.
    """
    chosen = np.empty((dials, len(fold)), dtype=np.intp)
    for train, test in splits(fold):
        rungs = _hull_rungs(outcomes, train)
        for dial, place in enumerate(np.linspace(len(rungs) - 1.0, 0.0, dials).tolist()):
            lower = min(int(place), len(rungs) - 1)
            upper = min(lower + 1, len(rungs) - 1)
            threshold = np.quantile(score[train], 1.0 - (place - lower))
            chosen[dial, test] = np.where(score[test] > threshold, rungs[upper], rungs[lower])
    return taken(outcomes, chosen)


def length_forecast(outcomes: Outcomes) -> Forecaster:
    """Share correct among training questions of about the same length: 20 bins, each shrunk to the base rate."""
    length = np.array([float(len(text)) for text in outcomes.texts])

    def forecast(train: Rows, test: Rows) -> Floats:
        y = outcomes.accuracy[train]
        edges = np.unique(np.quantile(length[train], np.arange(1, LENGTH_BINS) / LENGTH_BINS))
        into, base = np.searchsorted(edges, length[train], side="right"), np.nanmean(y, axis=0)
        member = np.eye(len(edges) + 1)[into].T
        hits, seen = member @ np.nan_to_num(y), member @ np.isfinite(y).astype(float)
        p: Floats = (hits + _PRIOR * base) / (seen + _PRIOR)
        return p[np.searchsorted(edges, length[test], side="right")]

    return forecast


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Counts of words and pairs of words in every question, a sparse (Q, V) matrix: counted once for all folds."""

    counts: Any

    @classmethod
    def of(cls, texts: Sequence[str]) -> Vocabulary:
        counter = _sklearn("feature_extraction.text").CountVectorizer(ngram_range=(1, 2), dtype=np.float64)
        return cls(counter.fit_transform(texts).tocsr())

    def tfidf(self, train: Rows, test: Rows) -> tuple[Any, Any]:
        """Sublinear TF-IDF of training and test rows; vocabulary (at least two questions) and IDF from training only."""
        learned = self.counts[train]
        kept = np.bincount(learned.indices, minlength=learned.shape[1]) >= 2
        weigher = _sklearn("feature_extraction.text").TfidfTransformer(sublinear_tf=True)
        return weigher.fit_transform(learned[:, kept]), weigher.transform(self.counts[test][:, kept])


def tfidf_forecast(outcomes: Outcomes, vocabulary: Vocabulary, strength: float = 1.0) -> Forecaster:
    """One logistic regression per rung on TF-IDF of words and pairs; C = `strength`, scikit-learn's default of 1."""

    def forecast(train: Rows, test: Rows) -> Floats:
        known, asked = vocabulary.tfidf(train, test)
        labels = outcomes.accuracy[train].T
        return np.stack([_logistic(known, y, asked, strength) for y in labels], axis=1)

    return forecast


def _logistic(known: Any, y: Floats, asked: Any, strength: float) -> Floats:
    """P(correct) of the rows asked; a share of samples correct counts as that share of a right and a wrong answer."""
    right, wrong = np.flatnonzero(y > 0.0), np.flatnonzero(y < 1.0)
    if len(right) == 0 or len(wrong) == 0:
        return np.full(asked.shape[0], float(np.nanmean(y)))
    rows = np.concatenate((right, wrong))
    label = np.repeat([1, 0], [len(right), len(wrong)])
    weight = np.concatenate((y[right], 1.0 - y[wrong]))
    model = _sklearn("linear_model").LogisticRegression(C=strength, max_iter=500)
    p: Floats = model.fit(known[rows], label, sample_weight=weight).predict_proba(asked)[:, 1]
    return p


def knn_forecast(outcomes: Outcomes, vocabulary: Vocabulary, neighbours: int = NEIGHBOURS) -> Forecaster:
    """Mean outcome of the 20 training questions nearest by cosine of TF-IDF."""

    def forecast(train: Rows, test: Rows) -> Floats:
        known, asked = vocabulary.tfidf(train, test)
        y, near = outcomes.accuracy[train], min(neighbours, len(train))
        base, p = np.nanmean(y, axis=0), np.empty((len(test), y.shape[1]))
        for start in range(0, len(test), _BLOCK):
            alike = (asked[start : start + _BLOCK] @ known.T).toarray()
            nearest = y[np.argpartition(-alike, near - 1, axis=1)[:, :near]]
            p[start : start + _BLOCK] = np.where(np.isnan(nearest), base, nearest).mean(axis=1)
        return p

    return forecast


def complexity_scores(texts: Sequence[str]) -> Floats | None:
    """LiteLLM's complexity score of every prompt, higher for harder; None where litellm is not installed.

    It depends on the text alone: score once per ladder.
    """
    if find_spec("litellm") is None:
        return None
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the scorer needs no price list from the network
    module: Any = import_module("litellm.router_strategy.complexity_router.complexity_router")
    # The scorer itself never uses the router it is made with.
    scorer = module.ComplexityRouter("replay", None, default_model="small", derive_savings_baseline=False)
    return np.array([float(scorer.classify(text)[1]) for text in texts])


def perfect(outcomes: Outcomes, fold: Rows, prices: Floats = PRICES) -> Spread:
    """A verifier that is never wrong: climbs from cheap to dear until an answer is right and pays every attempt.

    Which rungs to climb is chosen on the training folds at each price: all subsets in order of mean cost (above eight
    rungs, all unbroken runs of that order).
    """
    cost, accuracy = np.empty((len(prices), len(fold))), np.empty((len(prices), len(fold)))
    by_cost = np.argsort(np.nanmean(outcomes.paid, axis=0), kind="stable").tolist()
    climbs = [_climb(outcomes, [by_cost[at] for at in order]) for order in _orders(len(by_cost))]
    costs, reached = np.stack([c for c, _ in climbs]), np.stack([a for _, a in climbs])
    for train, test in splits(fold):
        unit = float(np.nanmean(outcomes.paid[train], axis=0)[_best(outcomes, train)]) or 1.0
        worth = reached[:, train].mean(axis=1) - prices[:, None] * costs[:, train].mean(axis=1) / unit
        picked = np.argmax(worth, axis=1)
        cost[:, test], accuracy[:, test] = costs[picked][:, test], reached[picked][:, test]
    return Spread(cost, accuracy)


def oracle(outcomes: Outcomes, prices: Floats = PRICES) -> Spread:
    """Knows every answer beforehand: each item on its cheapest right rung where the price allows, else the cheapest."""
    best = _best(outcomes, np.arange(len(outcomes.texts)))
    unit = float(np.nanmean(outcomes.paid, axis=0)[best]) or 1.0
    cost, accuracy = [], []
    for price in prices.tolist():
        worth = outcomes.correct - price * outcomes.cost / unit - 1e-9 * outcomes.cost / unit
        chosen = np.argmax(np.where(np.isnan(worth), -np.inf, worth), axis=1)[:, None]
        cost.append(_over_samples(np.take_along_axis(outcomes.cost, chosen, axis=1))[:, 0])
        accuracy.append(_over_samples(np.take_along_axis(outcomes.correct, chosen, axis=1))[:, 0])
    return Spread(np.stack(cost), np.stack(accuracy))


def forecasts(outcomes: Outcomes, fold: Rows, vocabulary: Vocabulary) -> Mapping[str, Floats]:
    """P(correct) out of fold, (Q, K), of every baseline that forecasts."""
    rungs = outcomes.correct.shape[1]
    return {
        "length": out_of_fold(fold, rungs, length_forecast(outcomes)),
        "tfidf": out_of_fold(fold, rungs, tfidf_forecast(outcomes, vocabulary)),
        "knn": out_of_fold(fold, rungs, knn_forecast(outcomes, vocabulary)),
    }


def _orders(rungs: int) -> list[tuple[int, ...]]:
    if rungs > _ALL_ORDERS:
        return [tuple(range(a, b)) for a in range(rungs) for b in range(a + 1, rungs + 1)]
    return [order for size in range(1, rungs + 1) for order in combinations(range(rungs), size)]


def _climb(outcomes: Outcomes, order: Sequence[int]) -> tuple[Floats, Floats]:
    """(cost, accuracy) per question, (Q,), of climbing these rungs until one is right."""
    shape = (outcomes.correct.shape[0], outcomes.correct.shape[2])
    going, right, paid, looks = np.ones(shape, np.bool_), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    recorded = np.isfinite(outcomes.correct).any(axis=1)
    for rung in order:
        tried = going & np.isfinite(outcomes.correct[:, rung])
        cost = outcomes.cost[:, rung]
        if outcomes.look is None:
            paid = np.where(tried, paid + cost, paid)
        else:  # one thought: what it has run to so far, and every look taken before
            paid, looks = np.where(tried, cost + outcomes.look * looks, paid), looks + tried
        success = tried & (outcomes.correct[:, rung] > 0.5)
        right = np.where(success, 1.0, right)
        going = going & ~success & ~(tried & outcomes.last[:, rung])
    paid, right = np.where(recorded, paid, np.nan), np.where(recorded, right, np.nan)
    return np.nanmean(paid, axis=1), np.nanmean(right, axis=1)


def _best(outcomes: Outcomes, rows: Rows) -> int:
    """The best fixed rung on these questions."""
    accuracy, cost = np.nanmean(outcomes.accuracy[rows], axis=0), np.nanmean(outcomes.paid[rows], axis=0)
    return int(np.lexsort((cost, -accuracy))[0])


def _hull_rungs(outcomes: Outcomes, rows: Rows) -> Rows:
    """Positions of the rungs on the hull of these questions, cheapest first."""
    accuracy, cost = np.nanmean(outcomes.accuracy[rows], axis=0), np.nanmean(outcomes.paid[rows], axis=0)
    curve = hull(cost, accuracy)
    at = [int(np.flatnonzero((cost == x) & (accuracy == y))[0]) for x, y in zip(curve.cost, curve.accuracy, strict=True)]
    return np.array(at, dtype=np.intp)


def _over_samples(figures: Floats) -> Floats:
    """Mean over the recorded samples of (Q, K, S): (Q, K), NaN where there is none."""
    seen = np.isfinite(figures)
    total = np.where(seen, figures, 0.0).sum(axis=2)
    counted = seen.sum(axis=2)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def _sklearn(module: str) -> Any:
    if find_spec("sklearn") is None:
        raise MissingExtraError("fitting the baselines of replay", "learn")
    return import_module(f"sklearn.{module}")
