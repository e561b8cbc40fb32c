"""`stops` of a policy: which rungs it reaches, and what is wrong with one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from governor import Step
from governor.errors import PolicyError
from governor.policy import has_stops, load_policy, policy_from, terms_for
from governor.policy.stops import StopsSpec
from governor.stops.settings import Stops

STEP = Step(id="s", messages=({"role": "user", "content": "why"},), node="solve")


def granted(**keys: Any) -> list[Stops | None]:
    ladder = [{"id": "own", "model": "m", "stops": {"repeat": 9}}, {"id": "bare", "model": "n"}]
    policy = policy_from({"version": 1, "ladder": ladder, **keys})
    return [rung.stops for rung in terms_for(policy, STEP, 0.0).ladder]


def test_a_rungs_own_rules_win_then_the_steps_then_the_policys() -> None:
    rule = {"match": {"node": "solve"}, "stops": {"repeat": 5}}
    assert granted() == [Stops(repeat=9), None]
    assert granted(stops={"margin": 0.1}) == [Stops(repeat=9), Stops(margin=0.1)]
    assert granted(stops={"margin": 0.1}, steps=[rule]) == [Stops(repeat=9), Stops(repeat=5)]


def test_rules_are_off_by_default() -> None:
    assert not has_stops(load_policy("balanced"))
    assert has_stops(policy_from({"version": 1, "ladder": [{"id": "a", "model": "m"}], "stops": {"repeat": 4}}))


def test_the_file_has_exactly_the_keys_of_the_engine_with_their_defaults() -> None:
    assert list(StopsSpec.model_fields) == [one.name for one in fields(Stops)]
    assert StopsSpec().stops == Stops()


@pytest.mark.parametrize(
    ("stops", "told"),
    [
        ("{repeat: 1}", "policy.yaml:3:17: stops.repeat: must be at least 2, not 1"),
        ("{budgte: 1}", "policy.yaml:3:9: stops.budgte: unknown key 'budgte'"),
        ("{wide_margin: 1}", "policy.yaml:3:1: stops: wide_margin: must come with a margin that is no wider"),
        ("{budget: 5, least: 6}", "policy.yaml:3:1: stops: least: 6 is more than the budget of 5"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, stops: str, told: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"version: 1\nladder: [{{id: a, model: m}}]\nstops: {stops}\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    assert told in str(caught.value)
