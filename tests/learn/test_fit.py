"""Records -> calibration: what it holds, where it knows nothing, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from governor.errors import CalibrationError, RecordError
from governor.estimate.calibration import to_bytes
from governor.estimate.learned import LearnedBelief, LearnedEstimator
from governor.learn.certify import group_digest
from governor.learn.fit import FEWEST, fit, steps_of, verifier_rates
from governor.learn.ladder import Ladder
from governor.learn.schema import Row
from governor.learn.tabulate import tabulate
from governor.protocols import Terms
from governor.records import Rung
from tests.learn.learnable import fitted, table_of, told_by_nothing, told_by_words


def test_it_holds_what_the_records_say() -> None:
    table, found = told_by_words(), fitted()
    assert found.rungs == ("low", "high")
    assert found.base_rate == pytest.approx(table.correct.mean(axis=(0, 2)))
    assert found.mean_cost.tolist() == [1.0, 2.0]
    assert found.slope[0] > 0.5
    assert found.fitted_on == frozenset(map(group_digest, table.groups))
    assert found.scores is None
    assert found.rates == {}


def test_the_report_is_of_held_out_forecasts() -> None:
    report = fitted().report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["questions"], report["groups"], report["seed"]) == (240, 240, 0)
    low = report["rungs"]["low"]
    assert low["known"]
    assert low["brier"] < 0.18 < low["brier_base_rate"]
    assert low["brier"] > 0.12  # what nobody can do better: mean of p (1 - p)
    assert low["ece"] < 0.1
    assert low["outcomes"] == 240
    assert sum(items for items, _, _ in low["deciles"]) == 240
    assert np.exp(3.9) < low["median_tokens"] < np.exp(6.1)
    assert low["cut"] == 0.0


def test_where_texts_tell_nothing_the_base_rate_is_forecast() -> None:
    table = told_by_nothing()
    found = fit(table)
    assert found.slope.tolist() == [0.0, 0.0]
    assert not any(one["known"] for one in found.report["rungs"].values())
    terms = Terms(app="a", ladder=(Rung(id="low", model="m"), Rung(id="high", model="m")))
    for step in steps_of(table)[:5]:
        belief = LearnedEstimator(found).estimate(step, terms)
        assert isinstance(belief, LearnedBelief)
        assert 1.0 / (1.0 + np.exp(-belief.odds)) == pytest.approx(found.base_rate, abs=0.01)


def test_odd_records_are_fitted() -> None:
    """A rung always right, empty and foreign texts, lengths all cut, outcomes of some questions unknown."""
    table = told_by_words(120)
    correct = table.correct.copy()
    correct[:, 1] = 1.0
    correct[:30, 0] = np.nan
    texts = ("", "数学の問題", "\ud800", "x" * 10_000, *table.questions[4:])
    found = fit(replace(table, correct=correct, questions=texts, finished=np.zeros(correct.shape, dtype=np.bool_)))
    assert found.slope[1] == 0.0
    assert np.isnan(found.lengths.spread).all()
    assert found.report["rungs"]["low"]["outcomes"] == 90
    assert found.report["rungs"]["low"]["median_tokens"] is None
    assert np.isfinite(found.level).all()
    assert len(to_bytes(found)) < 5_000_000


@pytest.mark.parametrize("few", ["questions", "outcomes"])
def test_too_little_is_refused(few: str) -> None:
    table = told_by_words(FEWEST - 1) if few == "questions" else told_by_words(60)
    correct = table.correct.copy()
    if few == "outcomes":
        correct[FEWEST - 1 :, 0] = np.nan
    with pytest.raises(CalibrationError, match=rf"too few outcomes to learn from: .*'low': {FEWEST - 1}.*at least 20"):
        fit(replace(table, correct=correct))


def test_one_group_cannot_be_held_out() -> None:
    table = told_by_words(60)
    with pytest.raises(RecordError, match="5 folds need 5 groups of questions or more, and there are 1"):
        fit(replace(table, groups=("all",) * 60))


def test_rates_of_a_verifier_are_counted_per_node() -> None:
    right = np.tile([1.0, 0.0], 40)[:, None]
    table = table_of(right, ["text"] * 80)
    verdict = np.where(np.arange(80) % 8 == 1, 1.0, right[:, 0])[:, None, None]  # one wrong answer of four passes
    nodes = ("plan",) * 70 + ("act",) * 10
    found = verifier_rates(replace(table, nodes=nodes, verdict=verdict, noisy=np.zeros(verdict.shape, dtype=np.bool_)))
    assert set(found) == {"", "plan"}
    assert found[""] == (41 / 42, 11 / 42, 80)
    assert found["plan"][2] == 70


def test_a_label_that_is_only_the_verdict_says_nothing_of_the_verifier() -> None:
    right = np.tile([1.0, 0.0], 40)[:, None]
    table = table_of(right, ["text"] * 80)
    noisy = np.ones((80, 1, 1), dtype=np.bool_)
    assert verifier_rates(replace(table, verdict=right[:, :, None], noisy=noisy)) == {}
    assert verifier_rates(table) == {}


def test_steps_hold_what_was_known_beside_the_text() -> None:
    tools = [{"type": "function", "function": {"name": "search"}}]
    rows = [
        Row(
            qid="a", rung="low", question="first", fields={"step_index": 3, "tools": tools, "state": {"tool_errors": 2}}
        ),
        Row(
            qid="b", rung="low", question="second", node="plan", fields={"step_index": "3", "tools": "none", "state": 1}
        ),
    ]
    table = tabulate(rows, Ladder(name="l", records=Path("r"), rungs=("low",), unit="tokens"), costed=False)
    first, second = steps_of(table)
    assert (first.prompt, first.index, first.tools, first.state) == ("first", 3, tuple(tools), {"tool_errors": 2})
    assert (second.prompt, second.node, second.index, second.tools, second.state) == ("second", "plan", 0, (), {})
    assert [step.prompt for step in steps_of(table.take([1]))] == ["second"]
    assert steps_of(table.take([0]))[0].index == 3


def test_a_state_that_tells_is_learned() -> None:
    table = told_by_nothing(200)
    state = np.arange(200) % 2
    contexts = tuple({"state": {"tool_errors": 50 * int(one)}} for one in state)
    correct = np.stack([1.0 - state, np.ones(200)], axis=1)[:, :, None]
    correct[::20] = 1.0 - correct[::20]
    found = fit(replace(table, correct=correct, contexts=contexts))
    assert found.report["rungs"]["low"]["brier"] < 0.15
    assert found.report["rungs"]["low"]["brier_base_rate"] > 0.24
