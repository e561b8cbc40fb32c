"""Which step is to blame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.policy import Rewind
from governor.records import Attempt, Forecast, Outcome, Reply, Rung, Verdict
from governor_langgraph.blame import Back, Done, blamed, wrong

PROBABILITIES = st.floats(0.0, 1.0)
NODES = st.sampled_from(["plan", "search", "solve"])


@st.composite
def steps(draw: st.DrawFn) -> Done:
    top = draw(st.integers(0, 4))
    at = draw(st.integers(0, 9))
    return Done(
        node=draw(NODES),
        task=draw(st.text(max_size=3)),
        checkpoint=f"{at:02}",
        rung=draw(st.integers(0, top)),
        top=top,
        wrong=draw(PROBABILITIES),
        cost=draw(st.integers(0, 1000)),
    )


PASTS = st.lists(steps(), max_size=8)
REWINDS = st.builds(Rewind, to=st.none() | NODES, rung=st.integers(0, 3))

A = Done("plan", "a", "01", 0, 2, 0.5, 100)
B = Done("solve", "b", "02", 0, 2, 0.5, 10)


@given(PASTS, REWINDS)
def test_a_blamed_step_was_done_and_is_redone_higher_if_it_can_be(done: list[Done], rewind: Rewind) -> None:
    back = blamed(done, rewind, "check", 3)
    if back is None:
        wanted = [one for one in done if rewind.to in (None, one.node)]
        latest = max((one.checkpoint for one in wanted), default="") if rewind.to else None
        assert all(one.rung == one.top and rewind.rung for one in wanted if latest in (None, one.checkpoint))
        return
    found = [one for one in done if (one.node, one.checkpoint) == (back.node, back.checkpoint)]
    assert any(min(one.rung + rewind.rung, one.top) == back.rung for one in found)
    assert (back.by, back.rule) == ("check", 3)
    assert rewind.rung == 0 or any(back.rung > one.rung for one in found)


@given(PASTS, st.integers(0, 3))
def test_no_other_step_is_more_doubtful_for_what_redoing_it_costs(done: list[Done], rung: int) -> None:
    back = blamed(done, Rewind(rung=rung), "check")
    if back is None:
        return

    def worth(one: Done) -> float:
        return one.wrong / max(1, sum(other.cost for other in done if other.checkpoint >= one.checkpoint))

    able = [one for one in done if rung == 0 or one.rung < one.top]
    best = max(map(worth, able))
    assert any(worth(one) == best and one.checkpoint == back.checkpoint and one.node == back.node for one in able)


@given(PASTS)
def test_the_latest_run_of_a_named_node_is_redone(done: list[Done]) -> None:
    back = blamed(done, Rewind(to="plan", rung=0), "check")
    latest = max((one.checkpoint for one in done if one.node == "plan"), default=None)
    assert (back and back.checkpoint) == latest


def test_redoing_a_step_costs_all_that_comes_after_it() -> None:
    assert blamed([A, B], Rewind(), "check") == Back("check", "solve", "02", 1, 0.5)
    surer = replace(B, wrong=0.04)  # 0.04 / 10 is less than 0.5 / 110
    assert blamed([A, surer], Rewind(), "check") == Back("check", "plan", "01", 1, 0.5)


def test_of_a_fan_out_the_part_that_can_be_raised_is() -> None:
    parts = [replace(A, task=str(n), rung=n, wrong=n / 2) for n in range(3)]
    back = blamed(parts, Rewind(to="plan"), "join")
    assert back is not None
    assert back.rung == 2, "the most doubtful is on the top rung; the next one is raised"


def test_what_can_t_be_paid_is_not_redone() -> None:
    assert blamed([A, B], Rewind(to="plan"), "check", 0, 109) is None
    assert blamed([A, B], Rewind(to="plan"), "check", 0, 110) == Back("check", "plan", "01", 1, 0.5)
    back = blamed([A, replace(B, wrong=0.01)], Rewind(), "check", 0, 50)
    assert back is not None
    assert back.node == "solve", "the likelier cause costs too much"


def test_a_step_on_the_top_rung_is_passed_over() -> None:
    top = replace(A, rung=2)
    assert blamed([top], Rewind(), "check") is None
    assert blamed([top], Rewind(to="plan"), "check") is None
    assert blamed([top], Rewind(to="plan", rung=0), "check") == Back("check", "plan", "01", 2, 0.5)


# the posterior


def outcome(decision: str | None, prior: float = 0.6) -> Outcome:
    reply, rung = Reply(text="x"), Rung(id="r", model="m")
    verdict = None if decision is None else Verdict(decision=decision, verifier="v")  # type: ignore[arg-type]
    forecast = Forecast(rung="r", p_success=prior, p_accept=0.5, output_tokens=1, micros=1, seconds=1)
    attempt = Attempt(number=1, rung=rung, mode="first", reply=reply, verdict=verdict, forecasts=(forecast,))
    return Outcome(step_id="s", status="accepted", reply=reply, attempts=(attempt,))


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (None, 0.4),
        ("unsure", 0.4),
        ("accept", 0.4 * 0.1 / (0.6 * 0.9 + 0.4 * 0.1)),
        ("reject", 0.4 * 0.9 / (0.6 * 0.1 + 0.4 * 0.9)),
    ],
)
def test_the_posterior_follows_bayes_rule(decision: str | None, expected: float) -> None:
    assert wrong(outcome(decision), 0.9, 0.1) == pytest.approx(expected)


@given(PROBABILITIES, PROBABILITIES, PROBABILITIES, st.sampled_from(["accept", "reject", None]))
def test_it_is_a_probability(prior: float, sensitivity: float, false_accept: float, decision: str | None) -> None:
    assert 0.0 <= wrong(outcome(decision, prior), sensitivity, false_accept) <= 1.0


@given(st.floats(0.05, 0.95), st.floats(0.5, 0.99), st.floats(0.01, 0.5))
def test_a_verifier_that_is_better_than_chance_moves_it_the_right_way(prior: float, good: float, bad: float) -> None:
    accepted, rejected = (wrong(outcome(decision, prior), good, bad) for decision in ("accept", "reject"))
    assert accepted <= 1 - prior + 1e-9
    assert rejected >= 1 - prior - 1e-9


def test_a_step_without_an_answer_is_wrong() -> None:
    assert wrong(replace(outcome(None), reply=None), 1.0, 1.0) == 1.0
    assert wrong(Outcome(step_id="s", status="error"), 1.0, 1.0) == 1.0
