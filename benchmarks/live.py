"""Governed at several dials against every fixed rung, on 222 generated tasks and a real local ladder.

    python -m benchmarks.live --out runs/live.jsonl            (about 40 minutes on 2 cores)
    python -m benchmarks.live --tasks 20 --out runs/short.jsonl

The policy (live.yaml) was written before any of these tasks was run, and is not fitted to them. Cost is net:
failed attempts and verifiers included.
Intervals are paired percentile bootstraps over tasks (10,000 resamples, seed 0). Rows are kept in --out, so that
an interrupted run goes on and `--report` prints the table again. A request that two arms make alike (greedy, so the
seed is nothing) is answered once and charged to both: the comparison is paired; seconds are those of the first answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.kept_rows import by_arm, kept
from benchmarks.live_tasks import LEVELS, tasks
from benchmarks.shared_replies import SharedReplies
from governor.backends import Backends
from governor.checks import policy_checks
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import Policy, load_policy
from governor.records import Outcome, Step
from governor.tasks import Task
from governor.telemetry.lines import LineFile
from governor_demo.compare import fixed
from governor_demo.grade import correct

Floats = NDArray[np.float64]
Rows = Mapping[str, Mapping[str, Any]]
SEED = 20261121
DIALS = (0.1, 0.3, 0.5, 0.7)
POLICY = Path(__file__).parent / "live.yaml"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/live.jsonl"), help="rows so far; resumed")
    parser.add_argument("--tasks", type=int, default=None, help="only the first N of the shuffled tasks")
    parser.add_argument("--seed", type=int, default=SEED, help="of the tasks; another seed makes new tasks")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--arm", action="append", help="run only these: 'dial 0.3', or a rung's id")
    parser.add_argument("--report", action="store_true", help="run nothing, print the table of --out")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    chosen = tasks(options.seed)[: options.tasks]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    policy = load_policy(options.policy, checks=policy_checks())
    backend = SharedReplies(Backends({}), Path(f"{options.out}.replies"))
    with closing(backend):
        arms = {name: solve for name, solve in _arms(policy, backend).items() if name in (options.arm or [name])}
        if not options.report:
            _run(chosen, arms, options.out)
    rungs = list(policy.rungs)
    if options.arm:
        return
    found = report(chosen, by_arm(options.out), rungs)
    print(json.dumps(found) if options.json else _table(found))


def _arms(policy: Policy, backend: SharedReplies) -> dict[str, Callable[[Step], Outcome]]:
    """Every way to run a task: at a fixed rung, or governed by the policy with another dial."""

    def governor(dial: float) -> Governor:
        return Governor(policy.model_copy(update={"dial": dial}), backend=backend, ledger=open_ledger("memory://"))

    top = governor(DIALS[0])
    fixed_rungs = {rung.id: fixed(top, rung) for rung in policy.rungs.values()}
    return {**fixed_rungs, **{_name(dial): governor(dial).run for dial in DIALS}}


def _name(dial: float) -> str:
    return f"dial {dial:g}"


def _run(chosen: Sequence[Task], arms: Mapping[str, Callable[[Step], Outcome]], out: Path) -> None:
    done = {(row["arm"], row["id"]) for row in kept(out)}
    todo = [(arm, task) for arm in arms for task in chosen if (arm, task.id) not in done]
    rows = LineFile(out)
    for arm, task in track(todo, description="live"):
        rows.append(json.dumps(_row(arm, task, arms[arm](task.step))).encode())
    rows.close()


def _row(arm: str, task: Task, outcome: Outcome) -> dict[str, Any]:
    return {
        "arm": arm,
        "id": task.id,
        "right": correct(outcome.answer, task.gold),
        "status": outcome.status,
        "path": [attempt.rung.id for attempt in outcome.attempts],
        "cost": outcome.spent.micros,
        "output_tokens": outcome.usage.output_tokens,
        "verifier_tokens": outcome.verifier_usage.total_tokens,
        "seconds": round(outcome.seconds, 3),
    }


def report(chosen: Sequence[Task], rows: Mapping[str, Rows], rungs: Sequence[str]) -> dict[str, Any]:
    """Accuracy and cost per arm, and each governed arm against the top, the best fixed rung and random mixing."""
    governed = [_name(dial) for dial in DIALS]
    ids = [task.id for task in chosen if all(task.id in rows.get(arm, {}) for arm in (*rungs, *governed))]
    right = {arm: _column(rows, arm, ids, "right") for arm in (*rungs, *governed)}
    cost = {arm: _column(rows, arm, ids, "cost") for arm in (*rungs, *governed)}
    picks = np.random.default_rng(0).integers(0, len(ids), (10_000, len(ids)))
    best = max(rungs, key=lambda rung: (right[rung].mean(), -cost[rung].mean()))
    return {
        "tasks": len(ids),
        "levels": {level: sum(f"-{level}-" in i for i in ids) for level in LEVELS},
        "best_fixed": best,
        "arms": {
            arm: {
                "accuracy": float(right[arm].mean()),
                "accuracy_ci": _interval(right[arm][picks].mean(axis=1)),
                "cost": float(cost[arm].mean()),
                "output_tokens": float(_column(rows, arm, ids, "output_tokens").mean()),
            }
            for arm in right
        },
        "governed": {
            arm: {
                "vs_top": _against(right, cost, arm, rungs[-1], picks),
                "vs_best_fixed": _against(right, cost, arm, best, picks),
                "vs_mixing": _mixed(right, cost, arm, rungs, picks[:2000]),
                "accepted_wrong": _wrong(rows, arm, ids, "accepted"),
                "unverified_wrong": _wrong(rows, arm, ids, "unverified"),
            }
            for arm in governed
        },
    }


def _column(rows: Mapping[str, Rows], arm: str, ids: Sequence[str], key: str) -> Floats:
    return np.array([float(rows[arm][i][key]) for i in ids])


def _wrong(rows: Mapping[str, Rows], arm: str, ids: Sequence[str], status: str) -> int:
    return sum(rows[arm][i]["status"] == status and not rows[arm][i]["right"] for i in ids)


def _against(
    right: Mapping[str, Floats], cost: Mapping[str, Floats], arm: str, rung: str, picks: Any
) -> dict[str, Any]:
    difference = right[arm] - right[rung]
    resampled = 1 - cost[arm][picks].mean(axis=1) / cost[rung][picks].mean(axis=1)
    return {
        "rung": rung,
        "accuracy": float(difference.mean()),
        "accuracy_ci": _interval(difference[picks].mean(axis=1)),
        "cost_saved": float(1 - cost[arm].mean() / cost[rung].mean()),
        "cost_saved_ci": _interval(resampled),
    }


def _mixed(
    right: Mapping[str, Floats], cost: Mapping[str, Floats], arm: str, rungs: Sequence[str], picks: Any
) -> dict[str, Any]:
    everything = np.arange(len(right[arm]))
    resampled = np.array([_over_mixing(right, cost, arm, rungs, pick) for pick in picks])
    return {
        "accuracy": _over_mixing(right, cost, arm, rungs, everything),
        "accuracy_ci": _interval(resampled),
    }


def _over_mixing(
    right: Mapping[str, Floats], cost: Mapping[str, Floats], arm: str, rungs: Sequence[str], pick: Any
) -> float:
    """Governed accuracy minus that of the best random mixture of fixed rungs at the same mean cost."""
    spent = cost[arm][pick].mean()
    points = [(cost[rung][pick].mean(), right[rung][pick].mean()) for rung in rungs]
    reached = [accuracy for price, accuracy in points if price <= spent]
    for low, low_right in points:
        for high, high_right in points:
            if low < spent < high:
                reached.append(low_right + (high_right - low_right) * (spent - low) / (high - low))
    return float(right[arm][pick].mean() - max(reached, default=0.0))


def _interval(values: Floats) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def _table(found: Mapping[str, Any]) -> str:
    lines = [f"{found['tasks']} tasks, levels {found['levels']}, best fixed rung: {found['best_fixed']}", ""]
    lines += ["| arm | right (95 % interval) | cost a task | output tokens |", "|---|---|---|---|"]
    for name, arm in found["arms"].items():
        low, high = arm["accuracy_ci"]
        right = f"{arm['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        lines.append(f"| {name} | {right} | {arm['cost']:.0f} | {arm['output_tokens']:.0f} |")
    lines += ["", "| governed | accuracy against always top | cost saved against always top | accuracy over mixing |"]
    lines += ["|---|---|---|---|"]
    for name, one in found["governed"].items():
        top, mixing = one["vs_top"], one["vs_mixing"]
        cells = (
            _signed(top["accuracy"], top["accuracy_ci"]),
            _signed(top["cost_saved"], top["cost_saved_ci"]),
            _signed(mixing["accuracy"], mixing["accuracy_ci"]),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    wrong = [f"{name}: {one['accepted_wrong']} / {one['unverified_wrong']}" for name, one in found["governed"].items()]
    lines += ["", f"accepted but wrong / unverified and wrong: {', '.join(wrong)}"]
    return "\n".join(lines)


def _signed(value: float, interval: Sequence[float]) -> str:
    return f"{value:+.1%} ({interval[0]:+.1%} to {interval[1]:+.1%})"


if __name__ == "__main__":
    main()
