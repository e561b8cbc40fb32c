"""Live tasks at every rung and governed, on scripted models and a small real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from governor.cli.app import app
from governor.contest import GOVERNED, Contest, compared, contest, graded, markdown
from governor.errors import BackendError, TaskError
from governor.policy import load_policy
from governor.records import Call, Outcome, Reply, Step, Usage
from governor.tasks import Task, read_tasks
from governor.testing import ScriptedBackend

POLICY = """\
version: 1
dial: 0.3
verify: {regex: '^\\d+$'}
ladder:
  - {id: low, model: m/small, answer_tokens: 100, price: {input: 0, output: 1}}
  - {id: high, model: m/large, answer_tokens: 100, price: {input: 0, output: 5}}
"""


def answers(call: Call) -> Reply:
    """The small model can't do odd numbers, and says so in words; ten tokens each."""
    number = int(str(call.messages[0]["content"]).rsplit(" ", 1)[-1])
    knows = call.rung.id == "high" or number % 2 == 0
    return Reply(text=str(number + 1) if knows else "no idea", usage=Usage(5, 10), seconds=0.01)


def tasks(count: int = 8) -> list[Task]:
    made = [Step(id=f"t{n}", messages=({"role": "user", "content": f"What comes after {n}"},)) for n in range(count)]
    return [Task(step, expect=at + 1) for at, step in enumerate(made)]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_every_rung_and_the_governor_are_charged_for_everything(policy: Path) -> None:
    backend = ScriptedBackend(answers)
    found = contest(load_policy(policy), tasks(), backend)
    assert found.arms == ("low", "high", GOVERNED)
    assert found.right.mean(axis=1) == pytest.approx([0.5, 1.0, 1.0])
    low, high, governed = found.cost
    assert low == pytest.approx([10e-6] * 8)
    assert high == pytest.approx([50e-6] * 8)
    assert governed == pytest.approx([10e-6, 60e-6] * 4)  # what the failed attempt cost is in it
    assert found.best == 1
    assert found.failed == (0, 0, 0)
    assert len(backend.calls) == 8 + 8 + 12


def test_a_policy_in_the_shadow_is_tried_as_if_it_were_on(policy: Path) -> None:
    policy.write_text(POLICY + "mode: shadow\n")
    found = contest(load_policy(policy), tasks(), ScriptedBackend(answers))
    assert found.cost[2] == pytest.approx([10e-6, 60e-6] * 4)


def test_without_an_expected_answer_the_verifier_grades(policy: Path) -> None:
    asked = [Task(task.step) for task in tasks()]
    found = contest(load_policy(policy), asked, ScriptedBackend(answers))
    assert found.right.mean(axis=1) == pytest.approx([0.5, 1.0, 1.0])


def test_a_step_that_fails_is_wrong_and_counted(policy: Path) -> None:
    def broken(call: Call) -> Reply | BackendError:
        return BackendError("down") if call.rung.id == "high" else answers(call)

    found = contest(load_policy(policy), tasks(), ScriptedBackend(broken))
    assert found.right[1].sum() == 0.0
    assert found.failed[:2] == (0, 8)


@pytest.mark.parametrize(
    ("expect", "answer", "right"),
    [
        ("Paris", "The answer is: paris.", True),
        ("Paris", "Lyon", False),
        (42, "So it is 42", True),
        (42, "It is 43", False),
        (0.5, "1/2", True),
        ({"regex": "(?i)^paris"}, "PARIS it is", True),
        ({"regex": "^paris"}, "PARIS it is", False),
    ],
)
def test_what_an_expected_answer_means(expect: object, answer: str, right: bool) -> None:
    task = Task(Step(id="s", messages=()), expect=expect)  # type: ignore[arg-type]
    assert graded(Outcome(step_id="s", status="unverified", answer=answer), task) == right


def test_figures_are_paired_with_the_best_rung() -> None:
    right = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]], dtype=float)
    cost = np.array([[1.0] * 4, [4.0] * 4, [2.0] * 4])
    low, high, governed = compared(Contest(("low", "high", GOVERNED), right, cost, (0, 0, 1)))
    assert (high["accuracy_over_best"], high["accuracy_over_best_ci"], high["cost_saved"]) == (0.0, (0.0, 0.0), 0.0)
    assert governed["accuracy_over_best_ci"] == (0.0, 0.0)  # alike on every task: nothing is left to chance
    assert (governed["cost_saved"], governed["cost_saved_ci"]) == (0.5, (0.5, 0.5))
    assert low["accuracy_over_best"] == pytest.approx(-0.25)
    assert low["accuracy_over_best_ci"] == (-0.75, 0.0)
    assert markdown(Contest(("low", "high", GOVERNED), right, cost, (0, 0, 1))).splitlines()[-1] == (
        "| governed | 75.0% (25.0 to 100.0) | 2 | +0.0 (+0.0 to +0.0) | 50.0% (50.0 to 50.0) | 1 |"
    )


def bench(*argv: str) -> Result:
    return CliRunner().invoke(app, ["bench", *argv])


def test_the_command_refuses_half_of_what_it_needs(policy: Path, tmp_path: Path) -> None:
    for argv in ((), ("--live", str(policy)), ("--tasks", "x.jsonl")):
        done = bench(*argv)
        assert done.exit_code == 2
        assert "--live POLICY together with --tasks" in " ".join(done.output.replace("│", " ").split())
    path = tmp_path / "tasks.jsonl"
    for expect, said in (("true", "must be a text, a number"), ('{"regex": "("}', "is no regular expression")):
        path.write_text(f'{{"id": "a", "prompt": "x", "expect": {expect}}}\n')
        with pytest.raises(TaskError, match=said):
            read_tasks(path)


@pytest.mark.model
def test_the_command_on_a_small_local_model(smollm2: Path, tmp_path: Path) -> None:
    path, work, out = tmp_path / "policy.yaml", tmp_path / "tasks.jsonl", tmp_path / "table.md"
    model = "model: local/smollm2-135m"
    path.write_text(
        "version: 1\nverify: {regex: '\\d'}\nmodels:\n  local/smollm2-135m: {price: {input: 1, output: 1}}\n"
        f"ladder:\n  - {{id: short, {model}, answer_tokens: 8}}\n  - {{id: long, {model}, answer_tokens: 24}}\n"
    )
    lines = [{"id": f"t{n}", "prompt": f"What is {n} + 2?", "expect": {"regex": rf"\b{n + 2}\b"}} for n in range(3)]
    work.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = bench("--live", str(path), "--tasks", str(work), "-o", str(out), "--json")
    assert done.exit_code == 0, done.output
    arms = {one["arm"]: one for one in json.loads(done.stdout)["arms"]}
    assert list(arms) == ["short", "long", GOVERNED]
    assert all(one["cost"] > 0.0 and one["failed"] == 0 for one in arms.values())
    assert arms["short"]["cost"] < arms["long"]["cost"]
    assert out.read_text().startswith("| 3 tasks | right (95 %)")
