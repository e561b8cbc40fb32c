"""A governor that compares answers which nobody judges: learned from records, carried out by the real loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from governor import Governor, Outcome, Reply, Usage
from governor.estimate.calibration import Frontier, load_calibration, save_calibration
from governor.learn.fit import fit
from governor.records import Call, Step
from governor.testing import ScriptedBackend
from tests.learn.recorded_tables import table_of

POLICY = """
version: 1
app: compared
dial: 0.5
calibration: calibration.npz
ladder:
  - {id: r0, model: m/small, answer_tokens: 100, temperature: 0, price: {output: 1}}
  - {id: r1, model: m/other, answer_tokens: 100, temperature: 0, price: {output: 2}}
  - {id: r2, model: m/large, answer_tokens: 100, temperature: 0, price: {output: 50}}
"""
QUESTION = Step(id="q", messages=({"role": "user", "content": "question number 7"},))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cheap rungs that are right half the time, and then say the same; a dear one that nearly always is."""
    folder = tmp_path_factory.mktemp("compared")
    rng = np.random.default_rng(3)
    correct = (rng.random((400, 3)) < np.array([0.5, 0.5, 0.95])).astype(np.float64)[:, :, None]
    answers = np.where(correct > 0, "right", rng.choice(["p", "q", "r", "s"], correct.shape)).astype(object)
    table = table_of(correct, [1e-6, 2e-6, 5e-5], answers=answers, output_tokens=np.full(correct.shape, 40.0))
    none = np.empty(0)
    frontier = Frontier(price=none, cost=none, quality=none, surely=none, unit=1.0)
    save_calibration(replace(fit(table), frontier=frontier), folder / "calibration.npz")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return folder


def asked(desk: Path, *, policy: str = "policy.yaml", **answers: str) -> Outcome:
    said = {"m/small": answers["r0"], "m/other": answers["r1"], "m/large": answers["r2"]}

    def answer(call: Call) -> Reply:
        return Reply(text=said[call.rung.model], usage=Usage(10, 40), seconds=0.1)

    with Governor.from_policy(desk / policy, backend=ScriptedBackend(answer)) as governor:
        return governor.run(QUESTION)


def modes(outcome: Outcome) -> list[tuple[str, str]]:
    return [(one.rung.id, one.mode) for one in outcome.attempts]


def test_two_equal_answers_ship_without_the_dear_rung(desk: Path) -> None:
    outcome = asked(desk, r0="right", r1="right", r2="right")
    assert modes(outcome) == [("r0", "first"), ("r1", "compare")]
    assert (outcome.answer, outcome.status, outcome.rung) == ("right", "unverified", "r1")
    assert "to compare answers" in outcome.attempts[1].reason
    assert outcome.usage.output_tokens == 80


def test_where_they_differ_the_dear_rung_answers(desk: Path) -> None:
    outcome = asked(desk, r0="p", r1="right", r2="right")
    assert modes(outcome) == [("r0", "first"), ("r1", "compare"), ("r2", "compare")]
    assert (outcome.answer, outcome.rung, outcome.status) == ("right", "r2", "unverified")
    verdict = outcome.attempts[1].verdict
    assert verdict is not None
    assert (verdict.decision, verdict.score) == ("unsure", 0.0)


def test_an_empty_second_answer_is_not_compared(desk: Path) -> None:
    outcome = asked(desk, r0="p", r1=" ", r2="right")
    assert modes(outcome)[:2] == [("r0", "first"), ("r1", "compare")]
    assert outcome.attempts[1].failure == "empty"
    assert outcome.rung in ("r0", "r2")


@pytest.mark.parametrize(
    "more",
    ["backtrack: {modes: [fresh, more]}\n", "backtrack: {max_attempts: 1}\n", "verify: {regex: 'right|p'}\n"],
)
def test_where_the_policy_forbids_it_or_answers_are_judged_nothing_is_compared(desk: Path, more: str) -> None:
    (desk / "other.yaml").write_text(POLICY + more, encoding="utf-8")
    outcome = asked(desk, policy="other.yaml", r0="p", r1="right", r2="right")
    assert all(mode != "compare" for _, mode in modes(outcome))


def test_a_reader_who_saw_text_gets_no_second_opinion(desk: Path) -> None:
    calls: list[str] = []

    def answer(call: Call) -> Reply:
        calls.append(call.rung.id)
        return Reply(text="p", usage=Usage(10, 40), seconds=0.1)

    with Governor.from_policy(desk / "policy.yaml", backend=ScriptedBackend(answer)) as governor:
        assert "".join(governor.stream(QUESTION)) == "p"
    assert len(calls) == 1


def test_what_was_learned_passes_through_the_file(desk: Path) -> None:
    found = load_calibration(desk / "calibration.npz").agreement
    assert found is not None
    assert found.equal.shape == (3, 3, 4)
    assert found.shift.any()
