from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import Governor, Step
from governor.learn.arms import LEAST_SESSIONS, Arm, Figure, Rollout, Session, rollouts
from governor.policy import policy_from
from governor.records import Call
from governor.telemetry.records import JsonlSink, read_records
from governor.testing import ScriptedBackend


def line(step: str, arm: str = "governed", **more: Any) -> dict[str, Any]:
    """An outcome's line, as far as a report reads it."""
    usage = {"output_tokens": 10}
    return {
        "kind": "outcome",
        "step_id": step,
        "arm": arm,
        "session": "",
        "policy": "p",
        "status": "accepted",
        "decided": "",
        "micros": 100,
        "seconds": 1.0,
        "usage": usage,
        "verifier_usage": {"output_tokens": 0},
        **more,
    }


def attempt(step: str, **more: Any) -> dict[str, Any]:
    return {"kind": "attempt", "step_id": step, "rung": "top", "micros": 100, "verdict": None, "forecasts": [], **more}


def verdict(**more: Any) -> dict[str, Any]:
    return {"verifier": "regex", "micros": 0, "seconds": 0.0, **more}


def forecast(rung: str, micros: float, p_success: float, p_accept: float) -> dict[str, Any]:
    return {"rung": rung, "micros": micros, "p_success": p_success, "p_accept": p_accept}


def all_of(records: list[dict[str, Any]]) -> Rollout:
    return rollouts(records).groups[""]


def sessions(count: int, arm: str, *, micros: int, spread: int = 20, **more: Any) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield line(f"{arm}{number}", arm, micros=micros + (number % 3 - 1) * spread, **more)


def told(figure: Figure | None) -> tuple[float, float, float]:
    """A figure that must have an interval: low, value, high."""
    assert figure is not None
    assert figure.interval is not None
    return figure.interval[0], figure.value, figure.interval[1]


def test_what_was_saved_is_a_share_of_controls_mean_with_an_interval_around_it() -> None:
    found = all_of([*sessions(60, "governed", micros=50), *sessions(90, "control", micros=200)])
    low, saved, high = told(found.saved("micros"))
    assert saved == pytest.approx(0.75)
    assert 0.70 < low < 0.75 < high < 0.80


def test_few_sessions_have_no_interval() -> None:
    few = all_of([*sessions(LEAST_SESSIONS - 3, "governed", micros=50), *sessions(99, "control", micros=200)])
    assert few.saved("micros") == Figure(0.75)
    assert few.gained("accepted", "judged") == Figure(0.0)


def test_steps_of_one_session_are_no_independent_evidence() -> None:
    apart = [line(f"s{n}", session=f"{n}", status="accepted" if n % 2 else "best_so_far") for n in range(400)]
    together = [{**one, "session": f"{n // 10 + 400 * (n % 2)}"} for n, one in enumerate(apart)]
    wide, narrow = (all_of(one).arms["governed"].share("accepted", "judged") for one in (together, apart))
    assert told(wide)[1] == told(narrow)[1] == 0.5
    assert 0.5 - told(wide)[0] > 2.0 * (0.5 - told(narrow)[0])


def test_shares_without_a_failure_still_have_an_interval() -> None:
    low, share, high = told(all_of([*sessions(50, "governed", micros=1)]).arms["governed"].share("unanswered"))
    assert share == 0.0
    assert low == pytest.approx(0.0)
    assert 0.05 < high < 0.1


def test_where_nothing_was_paid_nothing_was_saved() -> None:
    free = [*sessions(40, "governed", micros=0), *sessions(40, "control", micros=0, spread=0)]
    assert all_of(free).saved("micros") is None
    assert all_of([*sessions(40, "governed", micros=50)]).saved("micros") is None


def test_governed_steps_pay_their_verifiers_and_others_do_not() -> None:
    checked = verdict(micros=40, seconds=0.5)
    spent: dict[str, Any] = {"micros": 140, "seconds": 1.5, "verifier_usage": {"output_tokens": 7}}
    records = [line("g", **spent), attempt("g", verdict=checked), line("c", "control", **spent)]
    found = all_of([*records, attempt("c", verdict=checked)])
    governed, control = found.arms["governed"], found.arms["control"]
    names = ("micros", "seconds", "output_tokens")
    assert [governed.total(name) for name in names] == [140, 1.5, 17]
    assert [control.total(name) for name in names] == [100, 1.0, 10]
    assert found.comparable


def test_arms_that_were_judged_differently_are_not_compared() -> None:
    records = [line("g"), attempt("g", verdict=verdict(verifier="regex & judge")), line("c", "control")]
    assert not all_of([*records, attempt("c", verdict=verdict())]).comparable
    assert not all_of([line("g"), line("c", "control")]).comparable


def test_what_ran_without_a_control_arm_beside_it_is_left_out() -> None:
    before = [line(f"old{n}", policy="before") for n in range(5)]
    canary = [line("g"), line("c", "control"), line("part", parent="g"), line("odd", arm="else")]
    report = rollouts([*before, *canary])
    assert report.groups[""].arms["governed"].total("steps") == 1
    assert report.left_out == {
        "governed steps under policies without a control arm": 5,
        "parts of other steps": 1,
        "steps of no arm that is known": 1,
    }
    assert rollouts(before).groups[""].arms["governed"].total("steps") == 5


def test_an_attempt_that_a_resumed_run_wrote_twice_counts_once() -> None:
    twice = [attempt("c", attempt=1, verdict=verdict(micros=40))] * 2
    assert all_of([line("c", "control", micros=140), *twice]).arms["control"].total("micros") == 100


@pytest.mark.parametrize(
    "broken",
    [
        [{"kind": "outcome", "step_id": "a", "arm": "governed"}],
        [line("a", usage=None)],
        [line("a", micros="many")],
        [line("a"), attempt("a", verdict="yes")],
        [line("a", "shadow"), attempt("a", forecasts=[{}])],
    ],
)
def test_a_step_that_can_not_be_read_is_left_out_whole(broken: list[dict[str, Any]]) -> None:
    report = rollouts([line("good"), *broken])
    assert report.left_out == {"steps whose records lack what a report reads": 1}
    assert {name: arm.total("steps") for name, arm in report.groups[""].arms.items()} == {"governed": 1}


def test_groups_stand_beside_everything() -> None:
    report = rollouts([line("a", node="plan"), line("b", node="check"), line("c", node="plan")], by="node")
    assert {name: one.arms["governed"].total("steps") for name, one in report.groups.items()} == {
        "": 3,
        "plan": 2,
        "check": 1,
    }


def test_shadow_steps_promise_what_a_rejected_first_answer_leaves() -> None:
    forecasts = [forecast("low", 10, 0.6, 0.75), forecast("top", 100, 0.9, 0.9)]
    records = [
        line("a", "shadow", decided="low"),
        attempt("a", forecasts=forecasts, micros=125),
        line("b", "shadow", decided="top"),
        attempt("b", forecasts=forecasts, micros=75),
        line("c", "shadow", decided=""),
        attempt("c", forecasts=forecasts),
    ]
    promise = all_of(records).promise
    assert (promise.steps, promise.refused, promise.baseline, promise.measured) == (3, 1, 300, 300)
    assert promise.governed == pytest.approx((10 + 0.25 * 100) + 100)
    assert promise.first_right == pytest.approx(0.6 + 0.9)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 500)), min_size=LEAST_SESSIONS, max_size=80))
def test_means_are_those_of_steps_and_lie_in_their_intervals(found: list[tuple[int, int]]) -> None:
    arm = Arm({str(at): Session(steps=steps, micros=micros) for at, (steps, micros) in enumerate(found)})
    low, mean, high = told(arm.per("micros"))
    assert mean == pytest.approx(sum(micros for _, micros in found) / sum(steps for steps, _ in found))
    assert low <= mean <= high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Sessions of log-normal cost whose means differ by a known factor: 95 % intervals, 600 worlds."""
    rng, hits = np.random.default_rng(7), 0
    for _ in range(600):
        arms = {
            name: Arm({str(n): Session(steps=1, micros=cost) for n, cost in enumerate(rng.lognormal(mean, 0.8, 150))})
            for name, mean in (("governed", 0.0), ("control", math.log(2)))
        }
        low, _, high = told(Rollout(arms).saved("micros"))
        hits += low <= 0.5 <= high
    assert 0.92 <= hits / 600 <= 0.98


def test_a_canarys_own_records_are_reported(tmp_path: Path) -> None:
    """From the loop to the report: 120 sessions of 2 steps, half of them governed, an answer on low in two of three."""

    def answer(call: Call) -> str:
        hard = json.loads(json.dumps(call.messages[-1]["content"])).endswith("0")
        return "42" if call.rung.id == "top" or not hard else "no idea"

    policy = policy_from(
        {
            "version": 1,
            "app": "desk",
            "mode": {"canary": 0.5},
            "dial": 0.6,
            "ladder": [
                {"id": "low", "model": "m", "answer_tokens": 100, "price": {"input": 1, "output": 1}},
                {"id": "top", "model": "n", "answer_tokens": 100, "price": {"input": 20, "output": 20}},
            ],
            "verify": {"regex": "42"},
            "backtrack": {"modes": ["fresh"]},
        }
    )
    path = tmp_path / "records.jsonl"
    sink = JsonlSink(path, app="desk", policy_digest=policy.digest)
    with Governor(policy, backend=ScriptedBackend(answer), sinks=[sink]) as governor:
        for number in range(240):
            ask: Mapping[str, str] = {"role": "user", "content": f"What is it? {number % 3}"}
            governor.run(Step(id=f"s{number}", messages=(ask,), session=f"u{number // 2}"))
    found = rollouts(read_records(path)).groups[""]
    assert {name: len(arm.sessions) for name, arm in found.arms.items()}.keys() == {"governed", "control"}
    assert sum(len(arm.sessions) for arm in found.arms.values()) == 120
    assert found.comparable
    assert told(found.saved("micros"))[0] > 0.1
    assert told(found.gained("accepted", "judged"))[1] == 0.0
