from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pacing import OFF_PACE, one_day
from governor.plan.pacing import Pacing, daily_profile
from governor.telemetry.codec import decode, encode

PACING = Pacing(budget=1000.0, seconds=100.0, eta=0.01, horizon=10.0)


def test_the_rule_of_the_design() -> None:
    one = PACING.after(50.0, 2.0)  # the pace allows 20 in this time
    assert one.mu == pytest.approx(0.01 * (50 - 20))
    two = one.after(60.0, 4.0)  # 10 more, against 20 less a fifth of the 30 ahead
    assert two.mu == pytest.approx(one.mu + 0.01 * (10 - (20 - 30 * 0.2)))
    assert (two.spent, two.now) == (60.0, 4.0)


def test_mu_never_falls_below_nothing_and_a_lull_is_caught_up() -> None:
    idle = PACING.after(0.0, 20.0)
    assert idle.mu == 0.0
    caught_up = idle.after(200.0, 21.0)  # a burst that only makes up for the lull costs less than it does on pace
    on_pace = replace(PACING, spent=200.0, now=20.0).after(400.0, 21.0)
    assert 0 < caught_up.mu < on_pace.mu


def test_what_is_old_changes_nothing() -> None:
    state = PACING.after(50.0, 2.0)
    assert state.after(90.0, 2.0) is state
    assert state.after(10.0, 1.0) is state


profiles = st.lists(st.floats(0, 10), max_size=30).map(tuple).filter(lambda one: not one or sum(one) > 0)


@given(profiles, st.lists(st.floats(0, 100), min_size=2, max_size=9).map(sorted))
def test_the_target_rises_from_nothing_to_the_budget(profile: tuple[float, ...], times: list[float]) -> None:
    pacing = Pacing(budget=1000.0, seconds=100.0, eta=0.01, horizon=10.0, profile=profile)
    assert pacing.target(0.0) == pytest.approx(0.0)
    assert pacing.target(100.0) == pytest.approx(1000.0)
    assert pacing.target(250.0) == pacing.target(100.0)
    assert all(pacing.target(a) <= pacing.target(b) + 1e-9 for a, b in pairwise(times))


def test_a_profile_spreads_the_budget_as_it_says() -> None:
    pacing = Pacing(budget=100.0, seconds=4.0, eta=1.0, horizon=1.0, profile=(1.0, 0.0, 3.0, 0.0))
    assert [pacing.target(at) for at in (0.5, 1.0, 2.0, 2.5, 3.0, 4.0)] == pytest.approx([12.5, 25, 25, 62.5, 100, 100])


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 5)), min_size=1, max_size=20))
def test_the_state_goes_through_json_unchanged_and_on_from_there(course: list[tuple[float, float]]) -> None:
    state, spent, now = Pacing.of(1000.0, 100.0, 10.0, profile=(1.0, 2.0)), 0.0, 0.0
    for more, passed in course:
        spent, now = spent + more, now + passed
        copied = decode(json.loads(json.dumps(encode(state))))
        assert copied == state == Pacing(**asdict(state))
        assert copied.after(spent, now) == state.after(spent, now)
        state = state.after(spent, now)
        assert state.mu >= 0


def test_a_learned_profile_follows_the_arrivals() -> None:
    profile = daily_profile([3600.0 * 9.5] * 50 + [86_400.0 + 3600.0 * 9.2] * 50)
    assert len(profile) == 24
    assert (profile[9], profile[0]) == (101.0, 1.0)


@pytest.mark.parametrize(
    "changes", [{"budget": 0.0}, {"seconds": -1.0}, {"profile": (0.0, 0.0)}, {"profile": (-1.0, 2.0)}]
)
def test_what_can_not_be_paced_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"positive|weights"):
        replace(PACING, **changes)


@pytest.mark.parametrize("kind", ["uniform", "profile"])
@pytest.mark.parametrize("seed", [11, 12])
def test_a_bursty_day_keeps_its_pace_and_buys_more(kind: str, seed: int) -> None:
    ways = one_day(kind, 1500, seed, best=False)
    assert ways["paced"].off_pace <= OFF_PACE
    assert ways["first_come"].off_pace > 0.3  # the day is one that needs pacing
    assert ways["paced"].utility > 1.2 * max(ways["first_come"].utility, ways["cut_off"].utility)
