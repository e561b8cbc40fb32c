from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.estimate.curves import Floats
from governor.estimate.evidence import CLUSTERS, HALF_LIFE, OTHERS, Evidence
from governor.estimate.recalibration import Observed, Recalibration, logit

RUNGS = ("a", "b", "c")
probabilities = st.floats(0.0, 1.0)


def taught(recalibration: Recalibration, seen: Observed) -> Recalibration:
    return Recalibration(recalibration.evidence.faded(1).plus(recalibration.learned(seen)))


class Stream:
    """Forecasts with logits x whose truth has logit `slope x + shift + u`, u of sd `spread` per cluster and rung."""

    def __init__(self, seed: int, *, shift: float = 0.0, slope: float = 1.0, clusters: int = 1, spread: float = 0.0):
        self.random = np.random.default_rng(seed)
        self.shift, self.slope, self.clusters = shift, slope, clusters
        self.off = self.random.normal(0.0, spread, (clusters, len(RUNGS)))

    def draw(self) -> tuple[Floats, Floats, str, int]:
        """Forecasts and true probabilities of the rungs, the cluster, and the rung that is tried."""
        x = self.random.normal(0.3, 1.3, 3) + np.array([-1.0, 0.0, 1.0])
        cluster = int(self.random.integers(self.clusters))
        truth = 1.0 / (1.0 + np.exp(-(x * self.slope + self.shift + self.off[cluster])))
        return 1.0 / (1.0 + np.exp(-x)), truth, str(cluster), int(self.random.integers(3))

    def run(self, outcomes: int, seen: float = 1.0, passed: float = 0.0) -> Floats:
        """Rows (forecast, recalibrated forecast, label) of the rung tried, in order."""
        recalibration, rows = Recalibration(), np.zeros((outcomes, 3))
        for row in rows:
            p, truth, cluster, k = self.draw()
            name = cluster if self.clusters > 1 else OTHERS
            right = self.random.random() < truth[k]
            verdict = bool(self.random.random() < (seen if right else passed))
            row[:] = p[k], recalibration.apply(p, RUNGS, name)[k], right
            recalibration = taught(recalibration, Observed(RUNGS[k], name, float(p[k]), verdict, seen, passed))
        return rows


def calibration_error(p: Floats, label: Floats) -> float:
    """ECE over 10 equal-mass bins."""
    bins = np.array_split(np.argsort(p, kind="stable"), 10)
    return float(sum(abs(p[b].mean() - label[b].mean()) * len(b) for b in bins) / len(p))


def log_loss(p: Floats, label: Floats) -> float:
    return float(-np.log(np.where(label > 0.5, p, 1.0 - p)).mean())


def report(what: str, figures: Any) -> None:
    sys.stdout.write(f"\n{what}: " + ", ".join(f"{figure:.4f}" for figure in figures) + "\n")


@given(st.lists(probabilities, min_size=1, max_size=6))
def test_without_outcomes_it_is_the_identity(p: list[float]) -> None:
    given_ = np.array(p)
    heads = tuple(f"r{k}" for k in range(len(p)))
    for cluster in (OTHERS, "never seen"):
        assert Recalibration().apply(given_, heads, cluster) == pytest.approx(given_.clip(0.001, 0.999), abs=1e-9)


def test_on_calibrated_forecasts_it_does_no_harm() -> None:
    """The stated bound: ln 5 nats in all, and 1 nat for what forgetting and approximation add."""
    harm = np.array([[0.0, 0.0]] * 6)
    for seed in range(6):
        for at, clusters in enumerate((1, 40)):
            rows = Stream(seed, clusters=clusters).run(400)
            harm[seed, at] = 400 * (log_loss(rows[:, 1], rows[:, 2]) - log_loss(rows[:, 0], rows[:, 2]))
    report(
        "total harm in nats over 400 calibrated outcomes, mean (max) without and with 40 idle clusters", harm.mean(0)
    )
    assert harm.max() < math.log(5) + 1.0


def test_shifted_forecasts_are_calibrated_after_two_hundred_outcomes() -> None:
    """20 seeds: a logit shift of 1 and a slope of a half; ECE pooled over seeds, as bins of few outcomes are noise."""
    rows = np.concatenate([Stream(seed, shift=1.0, slope=0.5).run(500)[200:] for seed in range(20)])
    figures = np.array([calibration_error(rows[:, at], rows[:, 2]) for at in (0, 1)])
    report("ECE before and after", figures)
    assert figures[0] > 0.15
    assert figures[1] <= 0.03
    each = [calibration_error(part[:, 1], part[:, 2]) for part in np.split(rows, 20)]
    report(
        "mean and largest ECE of single streams (300 outcomes; pure noise would give about .06)",
        np.array([np.mean(each), np.max(each)]),
    )
    assert np.mean(each) <= 0.075


def test_verdicts_that_are_often_wrong_teach_the_right_map_only_slower() -> None:
    rows = np.concatenate(
        [Stream(seed, shift=-1.0, slope=0.5).run(500, seen=0.95, passed=0.15)[250:] for seed in range(6)]
    )
    assert calibration_error(rows[:, 0], rows[:, 2]) > 0.15
    assert calibration_error(rows[:, 1], rows[:, 2]) < 0.06


def test_clusters_that_differ_are_told_apart() -> None:
    rows = Stream(3, clusters=20, spread=2.0).run(700)[300:]
    flat = Stream(3, clusters=20, spread=2.0)
    assert flat.off.std() > 1.5
    assert log_loss(rows[:, 1], rows[:, 2]) < log_loss(rows[:, 0], rows[:, 2]) - 0.08


def test_what_one_rung_shows_counts_for_the_others_and_more_for_itself() -> None:
    recalibration = Recalibration()
    for _ in range(60):
        recalibration = taught(recalibration, Observed("a", "x", 0.8, False))
    moved = recalibration.apply(np.array([0.8, 0.8]), ("a", "new"), "x")
    elsewhere = recalibration.apply(np.array([0.8]), ("a",), "other")
    assert moved[0] < 0.1
    assert moved[0] < moved[1] < 0.6
    assert moved[0] < elsewhere[0] < 0.8


def test_a_verdict_that_does_not_depend_on_the_answer_teaches_nothing() -> None:
    start = taught(Recalibration(), Observed("a", "x", 0.5, True))
    after = taught(start, Observed("a", "x", 0.9, True, 0.7, 0.7))
    p = np.array([0.3, 0.9])
    assert after.apply(p, ("a", "b"), "x") == pytest.approx(start.apply(p, ("a", "b"), "x"), abs=2e-3)


def test_it_forgets() -> None:
    recalibration = Recalibration()
    for _ in range(100):
        recalibration = taught(recalibration, Observed("a", OTHERS, 0.8, False))
    p = np.array([0.8])
    fresh = recalibration.apply(p, ("a",))[0]
    old = Recalibration(recalibration.evidence.faded(20 * HALF_LIFE)).apply(p, ("a",))[0]
    assert fresh < 0.1
    assert old == pytest.approx(0.8, abs=0.01)


@settings(max_examples=30)
@given(st.lists(st.tuples(probabilities, st.booleans(), st.sampled_from("xyz")), min_size=1, max_size=25))
def test_whatever_comes_the_map_stays_monotone_and_inside(outcomes: list[tuple[float, bool, str]]) -> None:
    recalibration = Recalibration()
    for p, accepted, cluster in outcomes:
        recalibration = taught(recalibration, Observed("a", cluster, p, accepted))
    grid = np.linspace(0.0, 1.0, 21)
    for cluster in ("x", "unknown"):
        mapped = np.array([recalibration.apply(np.array([p]), ("a",), cluster)[0] for p in grid])
        assert (np.diff(mapped) >= -1e-9).all()
        assert ((mapped > 0.0) & (mapped < 1.0)).all()


def test_memory_is_bounded_and_what_gives_way_still_counts_for_rungs() -> None:
    evidence, recalibration = Evidence(), Recalibration()
    for number in range(CLUSTERS + 40):
        evidence = evidence.faded(1).plus(recalibration.learned(Observed("a", f"c{number}", 0.7, False)))
    assert len(evidence.clusters) == CLUSTERS
    assert evidence.clusters[0] == OTHERS
    assert evidence.clusters[-1] == f"c{CLUSTERS + 39}"
    assert "c0" not in evidence.clusters
    assert evidence.sums[0, 0, 0] > 0.0
    assert Recalibration(evidence).apply(np.array([0.7]), ("a",), "new")[0] < 0.4


def test_logits_are_cut_where_forecasts_claim_certainty() -> None:
    assert logit(np.array([0.0, 0.5, 1.0])) == pytest.approx([-math.log(999), 0.0, math.log(999)])
