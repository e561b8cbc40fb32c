"""The benchmark of rewinding: its tasks can be answered, its arms differ where they say, its report adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kept_rows import by_arm
from benchmarks.rewind import POLICY, _backs, arms, build, expression_of, fits
from benchmarks.rewind_report import ARMS, report
from benchmarks.rewind_tasks import LEVELS, problems
from governor.checks import policy_checks
from governor.errors import CheckFailedError
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.testing import ScriptedBackend


@pytest.mark.parametrize("seed", range(5))
def test_each_check_takes_the_right_number_and_no_neighbour(seed: int) -> None:
    made = problems(seed)
    assert len({task.id for task in made}) == len(made) == 216
    assert [sum(f"-{level}-" in task.id for task in made) for level in LEVELS] == [72, 72, 72]
    for task in made:
        assert task.holds(task.gold), task
        assert not any(task.holds(task.gold + off) for off in (-10, -1, 1, 10)), task


def test_the_arms_differ_in_where_they_go_back_to_and_in_their_ladders() -> None:
    made = arms(load_policy(POLICY, checks=policy_checks()))
    assert tuple(made) == ARMS
    goals = {arm: next((rule.on_fail for rule in one.steps if rule.on_fail), None) for arm, one in made.items()}
    rewind, retry = goals["rewind"], goals["retry"]
    assert rewind
    assert retry
    assert (rewind.blame, rewind.rewind.max) == ("auto", 2)
    assert (retry.blame, retry.rewind.to, retry.rewind.max) == (None, "solve", 2)
    assert (goals["always large"], goals["always small"]) == (None, None)
    assert [[*one.rungs] for one in made.values()] == [["small", "large"]] * 2 + [["large"], ["small"]]


@pytest.mark.parametrize(
    ("arm", "script", "right", "backs"),
    [
        ("rewind", ["1 + 1", "Answer: 2", "{gold} + 0", "Answer: {gold}"], True, [["plan", 1]]),
        ("retry", ["1 + 1", "Answer: 2", "Answer: {gold}"], True, [["solve", 1]]),
        ("retry", ["1 + 1", "Answer: 2", "Answer: 3"], False, [["solve", 1]]),
        ("always large", ["1 + 1", "Answer: 2"], False, []),
    ],
)
def test_each_arm_runs_its_graph(arm: str, script: list[str], right: bool, backs: list[list[object]]) -> None:
    task = problems(1)[0]
    policy = arms(load_policy(POLICY, checks=policy_checks()))[arm]
    backend = ScriptedBackend([text.format(gold=task.gold) for text in script])
    graph = build(Governor(policy, backend=backend, ledger=open_ledger("memory://")), {task.id: task})
    asked = {"task": task.id, "question": task.question}
    if right:
        graph.invoke(asked, {"configurable": {"thread_id": "t"}})
    else:
        with pytest.raises(CheckFailedError):
            graph.invoke(asked, {"configurable": {"thread_id": "t"}})
    assert len(backend.calls) == len(script)
    assert _backs(graph, "t") == backs


def test_the_longest_expression_is_the_plan() -> None:
    assert expression_of("Expression: (3 + 4) * 5 - 2 = 33") == "(3 + 4) * 5 - 2"
    assert expression_of("no idea") == "no idea"
    assert fits("(90 - 15) / 5", 15)
    assert not fits("7 / 0", 7)
    assert not fits("2 ** 3", 8)
    assert not fits("seven", 7)


def test_the_report_compares_the_same_tasks_alone() -> None:
    def row(right: bool, cost: int) -> dict[str, object]:
        return {"right": right, "cost": cost, "called": cost, "backs": [], "plans_right": [right], "seconds": 1.0}

    ids = [f"coins-{level}-{number}" for level in LEVELS for number in range(4)]
    costs = {"rewind": 60, "retry": 50, "always large": 90, "always small": 30}
    rows = {arm: {i: row(arm != "always small" or "easy" in i, cost) for i in ids} for arm, cost in costs.items()}
    del rows["retry"][ids[-1]]
    found = report(ids, rows)
    assert found["tasks"] == 11
    assert found["arms"]["always small"]["levels"] == {"easy": 1.0, "medium": 0.0, "hard": 0.0}
    assert found["arms"]["start over"]["cost"] == pytest.approx(30 + 7 / 11 * 90)
    against = found["rewind against"]["always large"]
    assert against["cost_saved"]["value"] == pytest.approx(1 / 3)
    assert against["per_cost_ratio"]["ci"] == [pytest.approx(1.5)] * 2
    assert against["accuracy"]["value"] == 0
    assert found["booked otherwise than called"] == 0


def test_rows_are_kept_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"arm": "rewind", "id": "a", "cost": 1}\n{"arm": "rewind", "id": "a", "cost": 2}\n', encoding="utf-8"
    )
    assert by_arm(path)["rewind"]["a"]["cost"] == 2
    assert by_arm(tmp_path / "none.jsonl") == {}
