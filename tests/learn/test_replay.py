"""A whole replay on made-up records: what must beat what, what never mixes, and what is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from governor.learn.certify import group_digest
from governor.learn.forecaster import Learned, Parts
from governor.learn.ladder import Checking, Ladder
from governor.learn.replay import CONTROL, METHODS, Trial, prepared, run
from governor.learn.report import Report, report
from governor.learn.routing import DIALS
from governor.learn.suite import replay
from governor.learn.table import Table
from governor.learn.written import as_record, chart, rows
from tests.learn.recorded_tables import Words, ladder_of, table_of, told_by_words

METHOD_KEYS = [
    "frontier", "c98", "c98_ci", "c100", "c100_ci", "area", "area_ci", "area_vs_tfidf_ci", "deployed98",
    "apgr", "cpt50", "cpt80", "brier", "ece", "us_per_decision",
]  # fmt: skip
PERFECT = Checking(kind="perfect", sensitivity=1.0, false_accept=0.0)


def trial(table: Table | None = None, **more: Any) -> Trial:
    told: dict[str, Any] = {"table": table or told_by_words(), "ladder": ladder_of(), "forecaster": Words()}
    told["methods"] = tuple(name for name in METHODS if name != "litellm")
    return prepared(Trial(**(told | more)))


def reported(asked: Trial, seeds: int = 1, **more: Any) -> Report:
    return replay(asked, range(seeds), **more)


@pytest.fixture(scope="module")
def told() -> Report:
    return reported(trial(), seeds=2)


def test_whoever_reads_the_words_gains_and_hindsight_gains_most(told: Report) -> None:
    areas = {name: one.measures.area for name, one in told.methods.items() if one is not None}
    assert areas["governor"] > 10.0
    assert areas["governor"] == pytest.approx(areas["dp"])
    assert areas["oracle"] >= areas["governor"]
    assert told.methods["governor"] is not None
    assert told.methods["governor"].lead.interval[0] > 0.0


def test_who_sees_nothing_stays_on_the_hull() -> None:
    blind = reported(trial(forecaster=Words(blind=True), methods=("governor",))).methods["governor"]
    assert blind is not None
    assert blind.measures.area == pytest.approx(0.0, abs=1e-9)
    assert blind.lead.interval[0] <= 0.0 <= blind.lead.interval[1] + 1e-9


def test_mixing_is_measured_beside_the_governor_where_it_is_asked_for() -> None:
    assert CONTROL not in METHODS
    found = reported(trial(methods=("governor", CONTROL)), seeds=2).methods
    governor, control = found["governor"], found[CONTROL]
    assert governor is not None
    assert control is not None
    assert governor.over_mixing is not None
    assert control.over_mixing is not None
    assert control.deployed is None
    assert control.lead.points == pytest.approx(0.0, abs=1e-9)  # two rungs, one hull on all folds
    assert governor.over_mixing.points == pytest.approx(governor.lead.points)
    assert governor.over_mixing.interval[0] > 0.0
    assert (control.over_mixing.points, control.over_mixing.interval) == (0.0, (0.0, 0.0))


def test_mixing_learned_elsewhere_is_tested_on_the_tested_questions_alone() -> None:
    asked = trial(told_by_words(questions=80), elsewhere=told_by_words(questions=120, seed=5), methods=(CONTROL,))
    control = reported(asked).methods[CONTROL]
    assert control is not None
    assert np.isfinite(control.spread.cost).all()


def test_shuffled_labels_leave_nothing_to_gain() -> None:
    table = told_by_words(questions=200)
    found = reported(trial(table, shuffle=True, methods=("tfidf", "governor")))
    for one in found.methods.values():
        assert one is not None
        assert one.measures.area < 5.0
    plain = reported(trial(table, methods=("tfidf",)))
    assert plain.methods["tfidf"] is not None
    assert plain.methods["tfidf"].measures.area > 10.0
    assert found.rungs.accuracy == pytest.approx(plain.rungs.accuracy)


@dataclass(frozen=True)
class Watched:
    """A forecaster that tells what it was fitted on and what it was asked."""

    inner: Words = field(default_factory=Words)
    fits: list[tuple[set[str], list[str]]] = field(default_factory=list)

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        parts = self.inner.fit(table, ladder, seed=seed)
        asked: list[str] = []
        self.fits.append((set(table.questions), asked))
        return replace(parts, estimator=_Asked(parts.estimator, asked))  # type: ignore[arg-type]  # stands in for Priced


@dataclass(frozen=True)
class _Asked:
    inner: Any
    asked: list[str]

    def estimate(self, step: Any, terms: Any) -> Any:
        self.asked.append(step.prompt)
        return self.inner.estimate(step, terms)


def test_every_question_is_forecast_once_by_a_fit_that_never_saw_it() -> None:
    watched = Watched()
    asked = trial(forecaster=watched, methods=("governor",), folds=4)
    run(asked, 0)
    assert len(watched.fits) == 4
    assert sorted(text for _, tested in watched.fits for text in tested) == sorted(asked.table.questions)
    assert all(not learned & set(tested) for learned, tested in watched.fits)


def test_fitting_elsewhere_tests_all_and_learns_from_none_of_them() -> None:
    watched, other = Watched(), told_by_words(questions=60, seed=5)
    other = replace(other, questions=tuple(f"{text} once more" for text in other.questions), groups=other.qids)
    found = run(trial(forecaster=watched, elsewhere=other, methods=("one_shot", "governor", "dp", "tfidf")), 0)
    assert found.items == 120
    assert {name: one is not None and one.deployed is not None for name, one in found.methods.items()} == {
        "tfidf": True, "one_shot": True, "governor": True, "dp": False,
    }  # fmt: skip
    first, tested = watched.fits[0]
    assert (len(first), len(tested)) == (60, 120)
    # the others' forecasts place dials: each by a fit that did not see it
    assert all(not learned & set(asked) for learned, asked in watched.fits)
    assert len(watched.fits) == 6
    assert found.fixed.cost.shape == (2, 120)


def test_the_record_has_exactly_the_keys_in_their_order(told: Report) -> None:
    record = as_record(told)
    assert list(record) == [
        "ladder", "n", "questions", "fixed", "best_fixed", "hull", "hull_c98", "hull_c100", "governor", "methods",
    ]  # fmt: skip
    assert list(record["methods"]) == [name for name in METHODS if name != "litellm"]
    for method in record["methods"].values():
        assert list(method) == METHOD_KEYS
        assert [point[2] for point in method["frontier"]] == pytest.approx(DIALS.tolist())
    assert record["governor"] == "governor"
    assert (record["n"], record["questions"]) == (120, 120)
    assert record["best_fixed"] == {"rung": "high", **record["fixed"]["high"]}
    assert record["methods"]["oracle"]["brier"] is None
    assert record["methods"]["tfidf"]["area_vs_tfidf_ci"] is None
    assert record["methods"]["governor"]["us_per_decision"] is None
    json.dumps(record, allow_nan=False)


def test_numbers_have_six_digits(told: Report) -> None:
    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, float):
            yield value
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from numbers(part)

    found = list(numbers(as_record(told)))
    assert len(found) > 1000
    assert all(number == float(f"{number:.6g}") for number in found)


def test_the_same_seeds_give_the_same_bytes_in_one_process_or_two(told: Report) -> None:
    again = reported(trial(), seeds=2, jobs=2)
    assert json.dumps(as_record(again)) == json.dumps(as_record(told))
    other = report(ladder_of(), [run(trial(), 7)])
    assert json.dumps(as_record(other)) != json.dumps(as_record(told))


def test_figures_are_medians_and_curves_are_means_over_the_seeds() -> None:
    asked = trial(methods=("length",))
    runs = [run(asked, seed) for seed in range(3)]
    found = report(asked.ladder, runs).methods["length"]
    alone = [one.methods["length"] for one in runs]
    assert found is not None
    areas = [one.measures.area for one in alone if one is not None]
    assert found.measures.area == sorted(areas)[1]
    assert found.spread.cost == pytest.approx(np.mean([one.spread.cost for one in alone if one is not None], axis=0))


def test_timings_are_told_only_where_they_are_asked_for() -> None:
    timed = as_record(reported(trial(methods=("governor",)), timings=True))
    assert timed["methods"]["governor"]["us_per_decision"] > 1.0


@pytest.mark.parametrize("rungs", [3, 7])
def test_exact_plans_are_null_where_they_cannot_be_had(rungs: int) -> None:
    rng = np.random.default_rng(0)
    table = table_of((rng.random((40, rungs)) < 0.5).astype(float))
    ladder = ladder_of(*table.rungs, checking=PERFECT)
    found = as_record(reported(trial(table, ladder=ladder, methods=("governor", "dp"))))["methods"]
    assert list(found) == ["governor", "dp"]
    assert (found["dp"] is None) == (rungs > 6)


def test_a_dial_of_interest_is_one_more_point_and_told_in_detail() -> None:
    found = reported(trial(dial=0.333, ladder=ladder_of(checking=PERFECT), methods=("governor",)))
    assert found.detail is not None
    assert 0.0 < found.detail.accepted == pytest.approx(found.detail.accuracy)
    assert found.detail.calls >= 1.0
    frontier = as_record(found)["methods"]["governor"]["frontier"]
    assert len(frontier) == len(DIALS) + 1
    point = next(point for point in frontier if point[2] == 0.333)
    assert point[1] == pytest.approx(found.detail.accuracy, rel=1e-5)


def test_the_deployed_dial_is_what_keep_says() -> None:
    found = run(trial(methods=("governor",)), 0)
    governor = found.methods["governor"]
    assert governor is not None
    assert governor.deployed is not None
    assert governor.deployed.accuracy_share > 0.98
    assert governor.deployed.cost < 1.0


def test_a_table_row_and_a_drawing_hold_every_method(told: Report) -> None:
    assert list(rows(told)) == [name for name in METHODS if name != "litellm"]
    assert "APGR" in rows(told)["governor"]
    drawn = chart(told)
    assert [one.name for one in drawn.methods] == list(rows(told))
    assert "120 questions, no verifier, 2 fold seeds" in drawn.caption


def test_calibrations_know_what_they_were_fitted_on() -> None:
    parts = Words().fit(told_by_words(questions=3), ladder_of(), seed=0)
    assert group_digest(told_by_words(questions=3).groups[0]) in parts.fitted_on


@pytest.mark.parametrize("checking", [Checking(), Checking(kind="simulated", sensitivity=0.9, false_accept=0.3)])
def test_a_learned_forecast_does_no_harm_where_texts_tell_nothing(checking: Checking) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    words = np.array([f"word{at}" for at in range(50)])
    texts = tuple(f"{' '.join(rng.choice(words, 12).tolist())} {at}" for at in range(160))
    correct = np.stack([rng.random(160) < right for right in (0.5, 0.65, 0.8)], axis=1).astype(float)
    table = table_of(correct, questions=texts, groups=texts)
    ladder = ladder_of(*table.rungs, checking=checking)
    asked = trial(table, ladder=ladder, forecaster=Learned(), folds=2, methods=("governor",))
    found = reported(asked).methods["governor"]
    assert found is not None
    assert found.lead.interval[1] > 0.0
    if checking.kind == "simulated":  # verdicts tell what texts do not
        assert found.lead.interval[0] > 0.0
