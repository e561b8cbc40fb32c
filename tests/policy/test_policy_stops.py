"""`stops` of a policy: which rungs it reaches, and what is wrong with one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from governor import Step
from governor.checks import nameless_checks
from governor.errors import PolicyError
from governor.policy import has_stops, load_policy, policy_from, terms_for
from governor.policy.stops import StopsSpec
from governor.stops.settings import Stops

CLAIM: dict[str, Any] = {
    "rule": "repeat", "at": 4, "risk": 0.05, "delta": 0.05, "n": 200, "failures": 1, "bound": 0.03, "records": "a" * 64
}  # fmt: skip
PROOF = ", ".join(f"{key}: {value}" for key, value in CLAIM.items())
GROUP = PROOF.replace("repeat", "group").replace("at: 4", "at: 9") + ", window: 512"
MARGIN = PROOF.replace("repeat", "margin")
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
    of_files = {"preset", "certified"}
    assert [key for key in StopsSpec.model_fields if key not in of_files] == [one.name for one in fields(Stops)]
    assert StopsSpec().stops == Stops()


@pytest.mark.parametrize(
    ("stops", "told"),
    [
        ("{repeat: 1}", "policy.yaml:3:17: stops.repeat: must be at least 2, not 1"),
        ("{budgte: 1}", "policy.yaml:3:9: stops.budgte: unknown key 'budgte'"),
        ("{wide_margin: 1}", "policy.yaml:3:1: stops: wide_margin: must come with a margin that is no wider"),
        ("{budget: 5, least: 6}", "policy.yaml:3:1: stops: least: 6 is more than the budget of 5"),
        ("{preset: qwen4}", "policy.yaml:3:17: stops.preset: must be"),
        ("{preset: gpt-oss}", "stops: preset: 'gpt-oss' has no threshold of its own; give one beside it"),
        (
            f"{{repeat: 5, certified: [{{{PROOF}}}]}}",
            "certified: repeat was certified at 4, and that is not what stands",
        ),
        (
            "{repeat: 4, certified: [{" + PROOF.replace("bound: 0.03", "bound: 0.2") + "}]}",
            "1 of 200 do not show a risk",
        ),
        (
            "{repeat: 4, certified: [{" + PROOF.replace("failures: 1", "failures: 9") + "}]}",
            "9 of 200 do not show a risk of",
        ),
        (
            f"{{group: 9, certified: [{{{GROUP}}}]}}",
            "certified: group was certified with group_window 512, and here stands 2048",
        ),
        (
            f"{{group: 9, group_window: 512, group_top: 5, certified: [{{{GROUP}}}]}}",
            "certified: group was certified with group_top 20, and here stands 5",
        ),
        (
            f"{{group: 9, group_window: 512, certified: [{{{GROUP}, top: 5}}]}}",
            "certified: group was certified with group_top 5, and here stands 20",
        ),
        (
            f"{{repeat: 4, repeat_tokens: 1, certified: [{{{PROOF}}}]}}",
            "certified: repeat was certified with repeat_tokens 24, and here stands 1",
        ),
        (
            f"{{repeat: 4, repeat_period: 64, certified: [{{{PROOF}, tokens: 24}}]}}",
            "certified: repeat was certified with repeat_period 32, and here stands 64",
        ),
        (
            f"{{margin: 4, wide_margin: 9, certified: [{{{MARGIN}}}]}}",
            "certified: margin was certified alone: wide_margin 9 ends thoughts that it would not",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, stops: str, told: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"version: 1\nladder: [{{id: a, model: m}}]\nstops: {stops}\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(file, checks=nameless_checks())
    assert told in str(caught.value)


def test_a_least_amount_is_held_only_against_rungs_that_it_reaches() -> None:
    """Not those with stop rules of their own, nor those that state no thinking tokens."""
    ladder = [
        {"id": "own", "model": "m", "thinking_tokens": 100, "stops": {"least": 100}},
        {"id": "bare", "model": "m"},
        {"id": "long", "model": "m", "thinking_tokens": 200},
    ]
    assert policy_from({"version": 1, "ladder": ladder, "stops": {"least": 200}}).stops is not None
    short = {"match": {"node": "x"}, "ladder": [{"id": "short", "model": "m", "thinking_tokens": 99}]}
    with pytest.raises(PolicyError, match="200 is more than the 99 thinking tokens of rung 'short'"):
        policy_from({"version": 1, "ladder": ladder, "stops": {"least": 200}, "steps": [short]})


def test_a_certified_threshold_that_stands_as_it_was_fitted_is_taken() -> None:
    policy = policy_from(
        {"version": 1, "ladder": [{"id": "a", "model": "m", "stops": {"repeat": 4, "certified": [CLAIM]}}]},
        checks=nameless_checks(),
    )
    (rung,) = terms_for(policy, STEP, 0.0).ladder
    assert rung.stops == Stops(repeat=4)


@pytest.mark.parametrize(
    ("rule", "measured", "beside"),
    [
        ("repeat", {"period": 64, "tokens": 1}, {"repeat_period": 64, "repeat_tokens": 1}),
        ("repeat", {}, {"group_window": 64}),
        ("group", {"window": 64, "top": 5}, {"group_window": 64, "group_top": 5}),
        ("group", {}, {"repeat_tokens": 1}),
        ("group", {}, {"preset": "gpt-oss"}),
        ("margin", {}, {"wide_margin": 4.0}),
    ],
)
def test_a_claim_holds_beside_what_it_was_measured_with(
    rule: str, measured: dict[str, int], beside: dict[str, Any]
) -> None:
    """What an older claim does not say was the default."""
    claim = CLAIM | {"rule": rule} | measured
    stops = {rule: 4 if rule == "repeat" else 4.0, "certified": [claim], **beside}
    assert policy_from({"version": 1, "ladder": [{"id": "a", "model": "m"}], "stops": stops}).stops is not None


@pytest.mark.parametrize("place", ["policy", "step", "rung"])
def test_counts_that_do_not_show_a_claim_are_found_wherever_it_stands(place: str) -> None:
    stops = {"stops": {"repeat": 4, "certified": [CLAIM | {"failures": 9}]}}
    rung = {"id": "a", "model": "m"} | (stops if place == "rung" else {})
    rule = {"match": {"node": "solve"}} | (stops if place == "step" else {"deadline": 9})
    raw = {"version": 1, "ladder": [rung], "steps": [rule]} | (stops if place == "policy" else {})
    with pytest.raises(PolicyError, match=r"9 of 200 do not show a risk of 0\.05 at delta 0\.05"):
        policy_from(raw, checks=nameless_checks())


def test_what_stands_beside_a_preset_wins() -> None:
    assert granted(stops={"preset": "qwen3"})[1] == Stops(margin=0.1)
    assert granted(stops={"preset": "qwen3", "margin": 0.5, "repeat": 4})[1] == Stops(margin=0.5, repeat=4)
    assert granted(stops={"preset": "gpt-oss", "group": 9.0})[1] == Stops(group=9.0)
