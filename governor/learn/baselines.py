"""What others would do with the same records: the one-shot routers that a reader expects.

A router sees the labels of training questions and the texts of all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from governor.errors import MissingExtraError
from governor.estimate.curves import Floats
from governor.learn.outcomes import Outcomes, Rows
from governor.learn.routing import Forecaster, out_of_fold

_LENGTH_BINS = 20
_NEIGHBOURS = (20, 80)
_STRENGTHS = (0.3, 1.0, 3.0)
_PRIOR = 10.0  # pseudo-questions at the base rate in each bin of length
_BLOCK = 512  # rows of similarities held at once


def picked(outcomes: Outcomes, fold: Rows, candidates: Sequence[Forecaster]) -> Forecaster:
    """The candidate of least Brier score on one of the training folds, fitted on all of them.

    That fold is held out as `fold` cuts it, so what may not stand on both sides of a split does not here either; the
    first candidate is taken where training rows are all of one fold.
    """

    def forecast(train: Rows, test: Rows) -> Floats:
        held = fold[train] == fold[train].min()
        if held.all():
            return candidates[0](train, test)
        inner, aside = train[~held], train[held]
        errors = [np.nanmean((one(inner, aside) - outcomes.accuracy[aside]) ** 2) for one in candidates]
        return candidates[int(np.argmin(errors))](train, test)

    return forecast


def length_forecast(outcomes: Outcomes, fold: Rows) -> Forecaster:
    """From the question's characters: means of 20 equal bins, or a logistic line, as `picked`."""
    length = np.log1p(np.array([float(len(text)) for text in outcomes.texts]))
    return picked(outcomes, fold, (_by_bin(outcomes, length), _by_line(outcomes, length)))


def _by_bin(outcomes: Outcomes, figure: Floats) -> Forecaster:
    """Share correct among training questions of about the same figure, shrunk to the base rate."""

    def forecast(train: Rows, test: Rows) -> Floats:
        y = outcomes.accuracy[train]
        edges = np.unique(np.quantile(figure[train], np.arange(1, _LENGTH_BINS) / _LENGTH_BINS))
        into, base = np.searchsorted(edges, figure[train], side="right"), np.nanmean(y, axis=0)
        member = np.eye(len(edges) + 1)[into].T
        hits, seen = member @ np.nan_to_num(y), member @ np.isfinite(y).astype(float)
        p: Floats = (hits + _PRIOR * base) / (seen + _PRIOR)
        return p[np.searchsorted(edges, figure[test], side="right")]

    return forecast


def _by_line(outcomes: Outcomes, figure: Floats) -> Forecaster:
    """One logistic regression per rung on this figure alone."""

    def forecast(train: Rows, test: Rows) -> Floats:
        spread = float(figure[train].std()) or 1.0
        scaled = ((figure - figure[train].mean()) / spread)[:, None]
        return _logistic_heads(scaled[train], outcomes.accuracy[train], scaled[test], 1.0)

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
        """Sublinear TF-IDF of training and test rows; vocabulary (two questions or more) and IDF of training only."""
        learned = self.counts[train]
        kept = np.bincount(learned.indices, minlength=learned.shape[1]) >= 2
        weigher = _sklearn("feature_extraction.text").TfidfTransformer(sublinear_tf=True)
        return weigher.fit_transform(learned[:, kept]), weigher.transform(self.counts[test][:, kept])


def tfidf_forecast(outcomes: Outcomes, vocabulary: Vocabulary, fold: Rows) -> Forecaster:
    """One logistic regression per rung on TF-IDF of words and pairs; C of .3, 1 or 3, as `picked`."""

    def of(strength: float) -> Forecaster:
        def forecast(train: Rows, test: Rows) -> Floats:
            known, asked = vocabulary.tfidf(train, test)
            return _logistic_heads(known, outcomes.accuracy[train], asked, strength)

        return forecast

    return picked(outcomes, fold, [of(strength) for strength in _STRENGTHS])


def _logistic_heads(known: Any, labels: Floats, asked: Any, strength: float) -> Floats:
    return np.stack([_logistic(known, y, asked, strength) for y in labels.T], axis=1)


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


def knn_forecast(outcomes: Outcomes, vocabulary: Vocabulary, fold: Rows) -> Forecaster:
    """Mean outcome of the 20 or 80 training questions nearest by cosine of TF-IDF, as `picked`."""
    return picked(outcomes, fold, [_nearest(outcomes, vocabulary, number) for number in _NEIGHBOURS])


def _nearest(outcomes: Outcomes, vocabulary: Vocabulary, neighbours: int) -> Forecaster:
    """Mean outcome of so many nearest training questions."""

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


def forecasts(outcomes: Outcomes, fold: Rows, vocabulary: Vocabulary) -> Mapping[str, Floats]:
    """P(correct) out of fold, (Q, K), of every baseline that forecasts."""
    rungs = outcomes.correct.shape[1]
    return {
        "length": out_of_fold(fold, rungs, length_forecast(outcomes, fold)),
        "tfidf": out_of_fold(fold, rungs, tfidf_forecast(outcomes, vocabulary, fold)),
        "knn": out_of_fold(fold, rungs, knn_forecast(outcomes, vocabulary, fold)),
    }


def _sklearn(module: str) -> Any:
    if find_spec("sklearn") is None:
        raise MissingExtraError("fitting the baselines of replay", "learn")
    return import_module(f"sklearn.{module}")
