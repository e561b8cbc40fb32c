from __future__ import annotations

import numpy as np
import pytest

from governor.estimate.curves import Floats
from governor.learn.frontier import Fixed, area, fixed, hull, measure
from governor.learn.intervals import Bootstrap, Resamples, Spread, hull_intervals

RUNGS = ("weak", "strong")


def ladder(questions: int, seed: int) -> tuple[Spread, Spread]:
    """(fixed rungs, a router that sees half of each question's difficulty at 21 thresholds)."""
    rng = np.random.default_rng(seed)
    seen, unseen = rng.normal(size=questions), rng.normal(size=questions)
    hard = seen + unseen
    right = np.stack((hard < 0.0, hard < 1.5)).astype(float)
    cost = np.stack((np.full(questions, 1.0), np.full(questions, 5.0)))
    strong = (seen > np.linspace(-3.0, 3.0, 21)[:, None]).astype(int)
    at = np.arange(questions)
    return Spread(cost, right), Spread(cost[strong, at], right[strong, at])


def bootstrap_of(rungs: Spread, count: int = 200, seed: int = 0) -> tuple[Fixed, Bootstrap]:
    means = fixed(RUNGS, rungs.cost, rungs.accuracy)
    return means, Bootstrap.of(means, rungs, Resamples.draw(rungs.cost.shape[1], count, seed))


def mean_figures(spread: Spread) -> tuple[Floats, Floats]:
    return spread.cost.mean(axis=1), spread.accuracy.mean(axis=1)


def test_resamples_are_multinomial_and_repeat_with_their_seed() -> None:
    drawn = Resamples.draw(50, 400, 1)
    assert drawn.weights.shape == (400, 50)
    assert drawn.weights.sum(axis=1) == pytest.approx(1.0)
    assert drawn.weights * 50 == pytest.approx(np.rint(drawn.weights * 50))
    assert drawn.weights.var() * 50**2 == pytest.approx(1.0 - 1.0 / 50, rel=0.05)
    assert (drawn.weights == Resamples.draw(50, 400, 1).weights).all()
    assert (drawn.weights != Resamples.draw(50, 400, 2).weights).any()


def test_a_resample_measures_what_those_questions_measure() -> None:
    rungs, method = ladder(60, 5)
    _, bootstrap = bootstrap_of(rungs, 20)
    drawn = np.rint(bootstrap.resamples.weights * 60).astype(int)
    for resample, found in zip(drawn, bootstrap.areas(method), strict=True):
        rows = np.repeat(np.arange(60), resample)
        means = fixed(RUNGS, rungs.cost[:, rows], rungs.accuracy[:, rows])
        assert means.best == 1
        assert found == pytest.approx(area(means, method.cost[:, rows].mean(1), method.accuracy[:, rows].mean(1)))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rungs, method = ladder(200_000, 11)
    truth = measure(fixed(RUNGS, rungs.cost, rungs.accuracy), *mean_figures(method))
    assert truth.c98 is not None
    held = np.zeros(2)
    for seed in range(60):
        rungs, method = ladder(400, seed)
        found = bootstrap_of(rungs, seed=seed)[1].intervals(method)
        assert found.c98 is not None
        held += [found.area[0] <= truth.area <= found.area[1], found.c98[0] <= truth.c98 <= found.c98[1]]
    assert held[0] >= 51  # of 60 at 95 %, less noise and the envelope's optimism
    assert held[1] >= 48


def test_a_method_leads_itself_by_nothing_and_the_hull_by_its_area() -> None:
    rungs, method = ladder(500, 2)
    _, bootstrap = bootstrap_of(rungs)
    areas = bootstrap.areas(method)
    assert bootstrap.intervals(method, areas).area_vs_rival == (0.0, 0.0)
    found = bootstrap.intervals(method, np.zeros_like(areas))
    assert found.area_vs_rival == found.area
    assert bootstrap.intervals(method).area_vs_rival is None


def test_pairing_cancels_what_two_methods_share() -> None:
    rungs, method = ladder(500, 4)
    _, bootstrap = bootstrap_of(rungs)
    areas = bootstrap.areas(method)
    worse = Spread(method.cost, method.accuracy - 0.01)
    low, high = bootstrap.intervals(worse, areas).area_vs_rival or (0.0, 0.0)
    assert high < 0.0, "one point less everywhere is certainly less"
    assert high - low < 0.2 * float(np.ptp(np.quantile(areas, (0.025, 0.975))))


def test_the_hull_has_an_interval_of_its_own() -> None:
    rungs, _ = ladder(300, 6)
    means, bootstrap = bootstrap_of(rungs)
    found, curve = hull_intervals(bootstrap), hull(means.cost, means.accuracy)
    assert found.area == (0.0, 0.0)
    assert found.c100 == (1.0, 1.0)
    assert found.c98 is not None
    assert found.c98[0] <= 1.0 - 0.02 * curve.accuracy[1] / np.diff(curve.accuracy)[0] * 4 / 5 <= found.c98[1]


def test_a_free_ladder_has_no_shares_of_cost() -> None:
    rungs, method = ladder(50, 7)
    free = Spread(np.zeros_like(rungs.cost), rungs.accuracy)
    found = bootstrap_of(free)[1].intervals(Spread(np.zeros_like(method.cost), method.accuracy))
    assert (found.c98, found.c100, found.area) == (None, None, (0.0, 0.0))
