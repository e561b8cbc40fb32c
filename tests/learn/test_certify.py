"""Learn-then-Test over dials: what is counted, where it stops, and that its certificates hold."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.certify import MOST, REPETITIONS, SEED, SHAPES, simulate
from governor.estimate.curves import Floats
from governor.learn.binomial import most_failures
from governor.learn.certify import (
    Bools,
    Kind,
    certify,
    certify_replayed,
    group_digest,
    losses,
    one_per_group,
    overlap,
)

NAN = float("nan")


@dataclass(frozen=True)
class Scripted:
    """A replay whose outcomes are written down; without `groups` every question is its own."""

    dials: Floats
    accepted: Bools
    correct: Bools
    best_correct: Bools
    nodes: tuple[str, ...]
    groups: tuple[str, ...] = field(default=())


def scripted(wrong: list[int], n: int, nodes: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> Scripted:
    """The first `wrong[d]` of n accepted answers are wrong at dial d; the best rung is always right."""
    correct = np.arange(n) >= np.array(wrong)[:, None]
    return Scripted(
        dials=np.linspace(0.0, 1.0, len(wrong)),
        accepted=np.ones_like(correct),
        correct=correct,
        best_correct=np.ones(n, dtype=np.bool_),
        nodes=nodes or ("default",) * n,
        groups=groups or tuple(map(str, range(n))),
    )


def failing(*counts: int, n: int) -> Floats:
    return (np.arange(n) < np.array(counts)[:, None]).astype(np.float64)


def test_testing_stops_at_the_first_dial_that_fails() -> None:
    trials = certify(np.array([0.0, 0.2, 0.4, 0.6]), failing(0, 16, 17, 0, n=500), risk=0.05, delta=0.05)
    assert [(trial.dial, trial.failures, trial.passed) for trial in trials] == [
        (0.0, 0, True),
        (0.2, 16, True),
        (0.4, 17, False),
    ]
    assert trials[1].bound <= 0.05 < trials[2].bound


@given(
    n=st.integers(1, 400),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    risk=st.sampled_from([0.05, 0.1]),
)
def test_a_dial_passes_with_as_many_failures_as_the_risk_allows(n: int, counts: list[int], risk: float) -> None:
    counts = [min(count, n) for count in counts]
    trials = certify(np.linspace(0, 1, len(counts)), failing(*counts, n=n), risk=risk, delta=0.05)
    allowed = most_failures(n, risk, 0.05)
    passing = next((at for at, count in enumerate(counts) if count > allowed), len(counts))
    assert [trial.passed for trial in trials] == ([True] * passing + [False])[: len(counts)]


def test_items_that_do_not_count_are_no_successes() -> None:
    lost = np.array([[0.0] * 59 + [NAN] * 100])
    (trial,) = certify(np.array([0.3]), lost, risk=0.05, delta=0.05)
    assert (trial.n, trial.passed) == (59, True)
    (trial,) = certify(np.array([0.3]), lost[:, 1:], risk=0.05, delta=0.05)
    assert (trial.n, trial.passed) == (58, False)


def test_nothing_accepted_certifies_nothing() -> None:
    (trial,) = certify(np.array([0.0]), np.full((1, 50), NAN), risk=0.05, delta=0.05)
    assert (trial.n, trial.bound, trial.passed) == (0, 1.0, False)


@pytest.mark.parametrize(
    ("dials", "lost", "risk"),
    [
        pytest.param([0.0, 0.0], failing(0, 0, n=2), 0.05, id="dials that don't rise"),
        pytest.param([0.0, 1.5], failing(0, 0, n=2), 0.05, id="a dial above 1"),
        pytest.param([0.0], failing(0, 0, n=2), 0.05, id="fewer dials than rows"),
        pytest.param([], np.zeros((0, 2)), 0.05, id="no dial"),
        pytest.param([0.0], np.array([[0.5]]), 0.05, id="half a failure"),
        pytest.param([0.0], failing(0, n=2), 0.0, id="no risk at all"),
    ],
)
def test_what_cannot_be_tested_is_refused(dials: list[float], lost: Floats, risk: float) -> None:
    with pytest.raises(ValueError, match=r"must|do not fit"):
        certify(np.array(dials), lost, risk=risk, delta=0.05)


@pytest.mark.parametrize(
    ("kind", "expected"), [("accepted-wrong", [0.0, 1.0, NAN, NAN, 1.0]), ("lost-correct", [0.0, 1.0, 1.0, 0.0, 0.0])]
)
def test_what_counts_as_a_failure(kind: Kind, expected: list[float]) -> None:
    replayed = Scripted(
        dials=np.array([0.5]),
        accepted=np.array([[True, True, False, False, True]]),
        correct=np.array([[True, False, False, True, False]]),
        best_correct=np.array([True, True, True, True, False]),
        nodes=("default",) * 5,
        groups=tuple("abcde"),
    )
    np.testing.assert_array_equal(losses(replayed, kind), [expected])


def test_each_node_gets_its_own_dial() -> None:
    nodes = tuple("b" if at % 2 else "a" for at in range(200))
    replayed = scripted([0, 4], 200, nodes=nodes)
    correct = replayed.correct.copy()
    correct[1, 1:40:2] = False  # node b alone gets worse
    worse = Scripted(replayed.dials, replayed.accepted, correct, replayed.best_correct, nodes, replayed.groups)
    a, b = certify_replayed(worse, "accepted-wrong", risk=0.1, delta=0.05, by_node=True)
    assert (a.node, a.units, a.dials) == ("a", 100, (0.0, 1.0))
    assert (b.node, b.units, b.dials) == ("b", 100, (0.0,))
    (both,) = certify_replayed(worse, "accepted-wrong", risk=0.1, delta=0.05)
    assert (both.node, both.units) == ("", 200)


def test_simultaneous_certificates_share_delta() -> None:
    replayed = scripted([0], 120, nodes=("a",) * 60 + ("b",) * 60)
    alone = certify_replayed(replayed, "lost-correct", risk=0.05, delta=0.05, by_node=True)
    together = certify_replayed(replayed, "lost-correct", risk=0.05, delta=0.05, by_node=True, simultaneous=True)
    assert [tested.delta for tested in together] == [0.025, 0.025]
    assert all(tested.certified for tested in alone)  # 59 successes are enough at .05, 72 at .025
    assert not any(tested.certified for tested in together)


def test_copies_of_a_question_are_one_unit() -> None:
    replayed = scripted([0], 300, groups=tuple(str(at // 10) for at in range(300)))
    (tested,) = certify_replayed(replayed, "accepted-wrong", risk=0.05, delta=0.05)
    assert tested.units == tested.each[0].n == 30
    assert not tested.certified


@given(groups=st.lists(st.sampled_from("abcdef")), seed=st.integers(0, 5))
def test_one_of_each_group_is_kept(groups: list[str], seed: int) -> None:
    kept = one_per_group(groups, seed).tolist()
    assert sorted(groups[at] for at in kept) == sorted(set(groups))
    assert kept == sorted(kept) == one_per_group(groups, seed).tolist()


def test_any_member_of_a_group_may_be_the_one() -> None:
    assert {int(one_per_group(["same"] * 4, seed)[0]) for seed in range(40)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("wrong", "n", "accepted", "needed"),
    [(0, 40, 40, 59), (0, 40, 20, 118), (1, 20, 20, None), (5, 40, 40, None), (0, 40, 0, None)],
)
def test_it_says_how_many_items_would_be_needed(wrong: int, n: int, accepted: int, needed: int | None) -> None:
    whole = scripted([wrong], n)
    taken = np.broadcast_to(np.arange(n) < accepted, (1, n))
    replayed = Scripted(whole.dials, taken, whole.correct, whole.best_correct, whole.nodes, whole.groups)
    (tested,) = certify_replayed(replayed, "accepted-wrong", risk=0.05, delta=0.05)
    assert tested.certified is None
    assert tested.units_needed() == needed


def test_questions_that_were_fitted_on_are_found() -> None:
    fitted_on = frozenset({group_digest("a"), group_digest("é")})
    assert overlap(["a", "b", "a", "é"], fitted_on) == 3
    assert len(group_digest("a")) == 16


def test_certificates_hold_and_a_naive_threshold_does_not() -> None:
    row = simulate("rising", "accepted-wrong", REPETITIONS, SEED)
    assert row["certified"] <= MOST < row["naive"]
    assert row["certified_dial"] > 0.2


@pytest.mark.parametrize("kind", ["accepted-wrong", "lost-correct"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_they_hold_for_other_shapes_of_risk_too(shape: str, kind: Kind) -> None:
    row = simulate(shape, kind, 60, seed=7)
    assert row["certified"] <= 9 < row["naive"]  # 9: P(Binomial(60, .05) > 9) is below .001


def test_the_benchmark_is_one_command_with_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.certify", "--repetitions", "40", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    found = json.loads(done.stdout)
    assert found["held"] is True
    assert {(row["shape"], row["kind"]) for row in found["rows"]} == {
        (shape, kind) for shape in SHAPES for kind in ("accepted-wrong", "lost-correct")
    }
