from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from governor.errors import MissingExtraError
from governor.estimate.curves import Floats
from governor.learn import baselines
from governor.learn.baselines import (
    Vocabulary,
    complexity_scores,
    forecasts,
    knn_forecast,
    length_forecast,
    picked,
    tfidf_forecast,
)
from governor.learn.outcomes import Outcomes, Rows
from governor.learn.routing import Forecaster, out_of_fold
from tests.learn.two_rungs import outcomes_of, told_by_words

needs_sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")


def brier(p: Floats, outcomes: Outcomes) -> float:
    return float(np.nanmean((p - outcomes.accuracy) ** 2))


def constant(outcomes: Outcomes, value: float) -> Forecaster:
    return lambda _train, test: np.full((len(test), outcomes.correct.shape[1]), value)


@needs_sklearn
def test_every_forecast_learns_what_the_words_or_the_length_tell() -> None:
    outcomes, fold = told_by_words()
    found = forecasts(outcomes, fold, Vocabulary.of(outcomes.texts))
    base = brier(np.broadcast_to(outcomes.accuracy.mean(axis=0), (len(fold), 2)), outcomes)
    assert sorted(found) == ["knn", "length", "tfidf"]
    for name, p in found.items():
        assert ((p >= 0.0) & (p <= 1.0)).all(), name
        assert brier(p, outcomes) < 0.6 * base, name
        assert brier(p[:, :1], replace(outcomes, correct=outcomes.correct[:, :1])) < 0.05, name


@needs_sklearn
@pytest.mark.parametrize("make", [tfidf_forecast, knn_forecast])
def test_a_forecast_never_reads_the_labels_of_its_own_fold(
    make: Callable[[Outcomes, Vocabulary, Rows], Forecaster],
) -> None:
    outcomes, fold = told_by_words(120)
    vocabulary, test = Vocabulary.of(outcomes.texts), fold == 3
    lied = outcomes.correct.copy()
    lied[test] = 1.0 - lied[test]
    told, other = replace(outcomes, correct=lied), np.flatnonzero(test)
    train = np.flatnonzero(~test)
    assert (make(outcomes, vocabulary, fold)(train, other) == make(told, vocabulary, fold)(train, other)).all()


@needs_sklearn
def test_the_vocabulary_and_its_weights_come_from_training_questions_only() -> None:
    texts = ("red red apple", "red apple pie", "blue sky", "blue sky above", "green green tea leaf")
    train, test = np.arange(4), np.array([4])
    known, asked = Vocabulary.of(texts).tfidf(train, test)
    again, _ = Vocabulary.of((*texts[:4], "red sky")).tfidf(train, test)
    assert known.shape[1] == 6, "red, apple, red apple, blue, sky, blue sky: each in two training questions"
    assert asked.nnz == 0, "words of the test question alone have no column"
    assert (known.toarray() == again.toarray()).all()


@needs_sklearn
def test_a_share_of_samples_counts_as_that_share_of_right_answers() -> None:
    rng = np.random.default_rng(0)
    shared = outcomes_of(
        np.full((200, 1, 1), 0.3), np.ones((200, 1, 1)), tuple(rng.choice(["a b", "c d"], 200).tolist())
    )
    p = tfidf_forecast(shared, Vocabulary.of(("aa bb", "cc dd") * 100), np.arange(200) % 4)
    assert p(np.arange(150), np.arange(150, 200)) == pytest.approx(0.3, abs=0.02)


@needs_sklearn
def test_a_rung_that_is_always_right_or_not_recorded_is_forecast_at_what_was_seen() -> None:
    outcomes, fold = told_by_words(60)
    correct = outcomes.correct.copy()
    correct[:, 1], correct[::2, 0] = 1.0, np.nan
    p = forecasts(replace(outcomes, correct=correct), fold, Vocabulary.of(outcomes.texts))
    assert (p["tfidf"][:, 1] == 1.0).all()
    assert all(np.isfinite(forecast).all() for forecast in p.values())


def test_the_better_candidate_is_picked_on_a_training_fold() -> None:
    outcomes, fold = told_by_words(100)
    rate = float(outcomes.accuracy.mean())
    choice = picked(outcomes, fold, (constant(outcomes, 0.05), constant(outcomes, rate)))
    assert (out_of_fold(fold, 2, choice) == rate).all()
    alone = np.zeros(100, dtype=np.intp)
    one_fold = picked(outcomes, alone, (constant(outcomes, 0.05), constant(outcomes, rate)))
    assert (one_fold(np.arange(90), np.arange(90, 100)) == 0.05).all(), "nothing to hold out: the first"


@needs_sklearn
def test_length_alone_tells_nothing_where_all_are_as_long() -> None:
    outcomes, fold = told_by_words(100)
    same = replace(outcomes, texts=("as long as any",) * 100)
    p = out_of_fold(fold, 2, length_forecast(same, fold))
    assert np.ptp(p[fold == 0], axis=0) == pytest.approx([0.0, 0.0])
    assert p.mean(axis=0) == pytest.approx(outcomes.accuracy.mean(axis=0), abs=0.02)


@pytest.mark.skipif(find_spec("litellm") is None, reason="LiteLLM is not installed")
@pytest.mark.filterwarnings("ignore")  # of its imports
def test_litellm_scores_a_proof_above_a_greeting() -> None:
    scores = complexity_scores(("hello", "Think step by step and prove the theorem, then implement the algorithm."))
    assert scores is not None
    assert scores[1] > scores[0]


def test_without_litellm_there_are_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda _name: None)
    assert complexity_scores(("hello",)) is None


def test_without_scikit_learn_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"compute-governor\[learn\]"):
        Vocabulary.of(("one", "two"))
