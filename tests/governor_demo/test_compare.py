"""The demo's arms, graph and grading on scripted replies; the whole demo is in end_to_end/test_demo.py."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import pytest

from governor import Governor, Reply, Usage
from governor.checks import policy_checks
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.records import Call
from governor.tasks import Task, read_tasks
from governor.testing import ScriptedBackend
from governor_demo.compare import Tally, fixed, solved
from governor_demo.grade import correct
from governor_demo.show import Arms, as_record


@pytest.fixture
def tasks() -> tuple[Task, ...]:
    with as_file(files("governor_demo") / "tasks.jsonl") as path:
        return read_tasks(path, seed=1)


@pytest.fixture(params=["two-sizes.yaml", "one-size.yaml"])
def governor(request: pytest.FixtureRequest) -> Governor:
    def always_seven(call: Call) -> Reply:
        return Reply(text="7", usage=Usage(30, 2), seconds=0.01)

    with as_file(files("governor_demo") / request.param) as path:
        policy = load_policy(path, checks=policy_checks())
    return Governor(policy, backend=ScriptedBackend(always_seven), ledger=open_ledger("memory://"))


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("Working: 3 + 4\nAnswer: 7", {"number": 7}, True),
        ("The result is 8.", {"number": 7}, False),
        ("No. Dogs cannot fly.", {"text": "no"}, True),
        ("Notably, dogs walk.", {"text": "no"}, False),
        ('```json\n{"a": 1}\n```', {"json": {"a": 1}}, True),
        ("no json here", {"json": {"a": 1}}, False),
        ("```python\ndef f(x):\n    return x + 1\n```", {"tests": ["assert f(1) == 2"]}, True),
        ("```python\ndef f(x):\n    return x\n```", {"tests": ["assert f(1) == 2"]}, False),
    ],
)
def test_answers_are_graded_by_their_gold(answer: str, gold: dict[str, Any], right: bool) -> None:
    assert correct(answer, gold) is right


def test_every_bundled_task_has_a_gold_that_no_step_carries(tasks: tuple[Task, ...]) -> None:
    assert len(tasks) == 23
    for task in tasks:
        assert task.gold
        assert str(task.gold) not in str(task.step)


def test_three_arms_run_the_same_tasks_and_book_each_on_its_own(governor: Governor, tasks: tuple[Task, ...]) -> None:
    ladder = tuple(governor.policy.rungs.values())
    arms = Arms(Tally("governed"), Tally("always bottom"), Tally("always top"))
    solves = (governor.run, fixed(governor, ladder[0]), fixed(governor, ladder[-1]))
    for tally, solve in zip(arms.all, solves, strict=True):
        assert len(list(solved(solve, tasks[:5], tally))) == 5
    found = as_record(arms)
    assert found["steps"] == 5
    assert found["accepted"] == 1, "3 + 4 is the only task whose answer is 7"
    assert found["attempts"] > 5
    assert found["always_bottom"]["accuracy"] == found["always_top"]["accuracy"] == 0.2
    assert found["always_top"]["output_tokens"] <= 5 * 2 * ladder[-1].samples
    assert all(len(outcome.attempts) == 1 for outcome in arms.always_bottom.outcomes)
