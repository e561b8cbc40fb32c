"""Governed against every fixed rung on 222 generated tasks and a real local ladder (two Qwen2.5-Coder sizes).

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.live_tasks import LEVELS, tasks
from benchmarks.shared_replies import SharedReplies
from governor.backends import Backends
from governor.checks import policy_checks
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.records import Outcome, Step
from governor.tasks import Task
from governor.telemetry.lines import LineFile
from governor_demo.compare import fixed
from governor_demo.grade import correct

Floats = NDArray[np.float64]
Rows = Mapping[str, Mapping[str, Any]]
SEED = 20261121
POLICY = Path(__file__).parent / "live.yaml"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/live.jsonl"), help="rows so far; resumed")
    parser.add_argument("--tasks", type=int, default=None, help="only the first N of the shuffled tasks")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--arm", action="append", help="run only these: governed, or a rung's id")
    parser.add_argument("--report", action="store_true", help="run nothing, print the table of --out")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    chosen = tasks(SEED)[: options.tasks]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    policy = load_policy(options.policy, checks=policy_checks())
    backend = SharedReplies(Backends({}), Path(f"{options.out}.replies"))
    with Governor(policy, backend=backend, ledger=open_ledger("memory://")) as governor:
        arms = {name: solve for name, solve in _arms(governor).items() if name in (options.arm or [name])}
        if not options.report:
            _run(chosen, arms, options.out)
        rungs = [rung.id for rung in governor.policy.rungs.values()]
    if options.arm:
        return
    found = report(chosen, _rows(options.out), rungs)
    print(json.dumps(found) if options.json else _table(found))


def _arms(governor: Governor) -> dict[str, Callable[[Step], Outcome]]:
    fixed_rungs = {rung.id: fixed(governor, rung) for rung in governor.policy.rungs.values()}
    return {"governed": governor.run, **fixed_rungs}


def _run(chosen: Sequence[Task], arms: Mapping[str, Callable[[Step], Outcome]], out: Path) -> None:
    done = {(row["arm"], row["id"]) for row in _read(out)}
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


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _rows(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _read(path):
        rows.setdefault(row["arm"], {})[row["id"]] = row
    return rows


def report(chosen: Sequence[Task], rows: Mapping[str, Rows], rungs: Sequence[str]) -> dict[str, Any]:
    """Accuracy and cost per arm, and the governed arm against the top, the best fixed rung and random mixing."""
    ids = [task.id for task in chosen if all(task.id in rows.get(arm, {}) for arm in ("governed", *rungs))]
    right = {arm: np.array([float(rows[arm][i]["right"]) for i in ids]) for arm in ("governed", *rungs)}
    cost = {arm: np.array([float(rows[arm][i]["cost"]) for i in ids]) for arm in ("governed", *rungs)}
    picks = np.random.default_rng(0).integers(0, len(ids), (10_000, len(ids)))
    best = max(rungs, key=lambda rung: (right[rung].mean(), -cost[rung].mean()))
    arms = {
        arm: {
            "accuracy": right[arm].mean(),
            "accuracy_ci": _interval(right[arm][picks].mean(axis=1)),
            "cost": cost[arm].mean(),
            "output_tokens": float(np.mean([rows[arm][i]["output_tokens"] for i in ids])),
            "seconds": float(np.mean([rows[arm][i]["seconds"] for i in ids])),
        }
        for arm in right
    }
    mixed = np.array([_mixing(right, cost, rungs, row) for row in picks[:2000]])
    return {
        "tasks": len(ids),
        "levels": {level: sum(f"-{level}-" in i for i in ids) for level in LEVELS},
        "arms": arms,
        "best_fixed": best,
        "vs_top": _against(right, cost, rungs[-1], picks),
        "vs_best_fixed": _against(right, cost, best, picks),
        "vs_mixing": {
            "accuracy": float(_mixing(right, cost, rungs, np.arange(len(ids)))),
            "accuracy_ci": _interval(mixed),
        },
        "unverified_wrong": sum(
            rows["governed"][i]["status"] == "unverified" and not rows["governed"][i]["right"] for i in ids
        ),
        "accepted_wrong": sum(
            rows["governed"][i]["status"] == "accepted" and not rows["governed"][i]["right"] for i in ids
        ),
    }


def _against(right: Mapping[str, Floats], cost: Mapping[str, Floats], rung: str, picks: Any) -> dict[str, Any]:
    difference = right["governed"] - right[rung]
    resampled = 1 - cost["governed"][picks].mean(axis=1) / cost[rung][picks].mean(axis=1)
    return {
        "rung": rung,
        "accuracy": float(difference.mean()),
        "accuracy_ci": _interval(difference[picks].mean(axis=1)),
        "cost_saved": float(1 - cost["governed"].mean() / cost[rung].mean()),
        "cost_saved_ci": _interval(resampled),
    }


def _mixing(right: Mapping[str, Floats], cost: Mapping[str, Floats], rungs: Sequence[str], pick: Any) -> float:
    """Governed accuracy minus that of the best random mixture of fixed rungs at the same mean cost."""
    spent = cost["governed"][pick].mean()
    points = [(cost[rung][pick].mean(), right[rung][pick].mean()) for rung in rungs]
    reached = [accuracy for price, accuracy in points if price <= spent]
    for low, low_right in points:
        for high, high_right in points:
            if low < spent < high:
                reached.append(low_right + (high_right - low_right) * (spent - low) / (high - low))
    return float(right["governed"][pick].mean() - max(reached, default=0.0))


def _interval(values: Floats) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def _table(found: Mapping[str, Any]) -> str:
    lines = [f"{found['tasks']} tasks, levels {found['levels']}", ""]
    lines += ["| arm | right (95 % interval) | cost a task | output tokens | seconds |", "|---|---|---|---|---|"]
    for name, arm in found["arms"].items():
        low, high = arm["accuracy_ci"]
        lines.append(
            f"| {name} | {arm['accuracy']:.1%} ({low:.1%} to {high:.1%}) | {arm['cost']:.0f} "
            f"| {arm['output_tokens']:.0f} | {arm['seconds']:.1f} |"
        )
    lines.append("")
    for key, words in (("vs_top", "always top"), ("vs_best_fixed", "the best fixed rung")):
        one = found[key]
        lines.append(
            f"governed against {words} ({one['rung']}): accuracy {one['accuracy']:+.1%} "
            f"({one['accuracy_ci'][0]:+.1%} to {one['accuracy_ci'][1]:+.1%}), cost saved {one['cost_saved']:.1%} "
            f"({one['cost_saved_ci'][0]:.1%} to {one['cost_saved_ci'][1]:.1%})"
        )
    mixing = found["vs_mixing"]
    low, high = mixing["accuracy_ci"]
    lines.append(f"governed against random mixing at its cost: {mixing['accuracy']:+.1%} ({low:+.1%} to {high:+.1%})")
    lines.append(f"accepted but wrong: {found['accepted_wrong']}, unverified and wrong: {found['unverified_wrong']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
