"""What comparing recorded answers is found to tell."""

from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.agreement import Agreement, comparison, odds_after, pairs_for
from governor.estimate.curves import Floats
from governor.learn.comparisons import FEWEST, fit_agreement
from governor.learn.table import Texts
from governor.records import Attempt, BacktrackMode, Decision, Reply, Rung, Verdict

QUESTIONS = 600


def recorded(seed: int = 0, *, telling: bool = True, samples: int = 1) -> tuple[Floats, Floats, Texts]:
    """Three rungs, right half the time on their own; right answers are all "yes", wrong ones one of four."""
    rng = np.random.default_rng(seed)
    likely = rng.uniform(0.2, 0.8, (QUESTIONS, 1)).repeat(3, axis=1)
    correct = (rng.random((QUESTIONS, 3, samples)) < likely[..., None]).astype(np.float64)
    wrong = rng.choice(["a", "b", "c", "d"], correct.shape)
    answers = np.where(correct > 0, "yes", wrong) if telling else rng.choice(["x", "y"], correct.shape)
    return np.log(likely / (1 - likely)), correct, answers.astype(object)


def learned(**more: bool | int) -> Agreement:
    odds, correct, answers = recorded(**more)  # type: ignore[arg-type]  # names of its own
    found = fit_agreement(odds, correct, answers, np.arange(QUESTIONS))
    assert found is not None
    return found


def test_forecasts_after_a_comparison_are_those_of_bayes() -> None:
    pairs = pairs_for(learned(), (0, 1, 2), np.zeros(3))
    same = 0.25 + 0.25 * 0.25  # both right, or both wrong and alike
    assert pairs.p == pytest.approx(0.5)
    assert pairs.equal[0, 1] == pytest.approx(same, abs=0.05)
    assert pairs.after[1, 0, 1, :2] == pytest.approx(0.25 / same, abs=0.06)
    assert pairs.after[0, 0, 1, :2] == pytest.approx(0.25 / (1 - same), abs=0.06)
    assert pairs.after[:, 0, 1, 2] == pytest.approx(0.5, abs=0.07)


def test_both_orders_of_two_rungs_tell_the_same() -> None:
    pairs = pairs_for(learned(), (0, 1, 2), np.array([0.5, -0.5, 0.0]))
    off = ~np.eye(3, dtype=np.bool_)
    assert pairs.equal[off] == pytest.approx(pairs.equal.T[off])
    assert pairs.after[:, 0, 1] == pytest.approx(pairs.after[:, 1, 0])


def test_a_part_of_the_ladder_is_forecast_like_the_whole() -> None:
    known, odds = learned(), np.array([0.4, -0.3, 0.9])
    whole, part = pairs_for(known, (0, 1, 2), odds), pairs_for(known, (2, 0), odds)
    assert part.p == pytest.approx(whole.p[[2, 0]])
    assert part.equal[0, 1] == pytest.approx(whole.equal[2, 0])
    assert part.after[1, 0, 1] == pytest.approx(whole.after[1, 2, 0][[2, 0]])
    after = odds_after(known, (2, 0), odds, 2, 0, True)
    assert 1 / (1 + np.exp(-after)) == pytest.approx(part.after[1, 0, 1])


def test_answers_that_tell_nothing_change_no_forecast() -> None:
    found = learned(telling=False)
    assert not found.shift.any()
    assert np.isfinite(found.equal[0, 1]).all()


def test_samples_of_one_rung_are_compared_where_there_are_two() -> None:
    assert np.isnan(learned().equal[0, 0]).all()
    twice = pairs_for(learned(samples=2), (0, 1, 2), np.zeros(3))
    assert twice.after[1, 0, 0, 0] > 0.7 > twice.after[0, 0, 0, 0]


def test_without_answers_or_with_too_few_nothing_is_said() -> None:
    odds, correct, answers = recorded()
    groups = np.arange(QUESTIONS)
    assert fit_agreement(odds, correct, np.full(answers.shape, None, dtype=object), groups) is None
    few = correct.copy()
    few[FEWEST - 1 :] = np.nan
    assert fit_agreement(odds, few, answers, groups) is None


def attempt(rung: str, mode: BacktrackMode, score: float | None = None, failure: bool = False) -> Attempt:
    decision: Decision = "reject" if failure else "unsure"
    verdict = Verdict(decision=decision, verifier="v", score=score, failure="empty" if failure else "")
    return Attempt(number=1, rung=Rung(id=rung, model=rung), mode=mode, reply=Reply(text="x"), verdict=verdict)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([attempt("a", "first")], None),
        ([attempt("a", "first"), attempt("b", "compare", 1.0)], ("a", "b", True)),
        ([attempt("a", "first"), attempt("b", "compare", 0.0), attempt("c", "compare", 1.0)], ("a", "b", False)),
        ([attempt("a", "first"), attempt("b", "compare"), attempt("c", "compare", 1.0)], ("b", "c", True)),
        ([attempt("a", "first", failure=True), attempt("b", "fresh"), attempt("b", "agree", 0.0)], ("b", "b", False)),
    ],
)
def test_the_first_comparison_that_came_to_something_counts(
    attempts: list[Attempt], expected: tuple[str, str, bool] | None
) -> None:
    found = comparison(attempts)
    assert (None if found is None else (found.first, found.second, found.equal)) == expected
