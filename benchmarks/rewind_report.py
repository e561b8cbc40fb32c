"""What the rows of benchmarks/rewind.py say: arms, and `rewind` against each other one, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rewind_tasks import LEVELS

Floats = NDArray[np.float64]
Rows = Mapping[str, Mapping[str, Any]]
FIXED = ("always large", "always small")
ARMS = ("rewind", "retry", *FIXED)


def report(ids: Sequence[str], rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Right answers and cost per arm, and `rewind` against each other arm, over the tasks that all arms have done."""
    ids = [i for i in ids if all(i in rows.get(arm, {}) for arm in ARMS)]
    right = {arm: np.array([float(rows[arm][i]["right"]) for i in ids]) for arm in ARMS}
    cost = {arm: np.array([float(rows[arm][i]["cost"]) for i in ids]) for arm in ARMS}
    small, large = right["always small"], right["always large"]
    right["start over"] = np.maximum(small, large)
    cost["start over"] = cost["always small"] + (1 - small) * cost["always large"]
    picks = np.random.default_rng(0).integers(0, len(ids), (10_000, len(ids)))
    return {
        "tasks": len(ids),
        "levels": {level: sum(f"-{level}-" in i for i in ids) for level in LEVELS},
        "arms": {arm: _arm(right[arm], cost[arm], ids, picks) for arm in right},
        "rewind against": {arm: _against(right, cost, arm, picks) for arm in right if arm != "rewind"},
        "backs": {arm: _backs(rows[arm], ids) for arm in ("rewind", "retry")},
        "first plan right": {arm: sum(bool(rows[arm][i]["plans_right"][:1] == [True]) for i in ids) for arm in FIXED},
        "booked otherwise than called": sum(
            rows[arm][i]["cost"] != rows[arm][i]["called"] for arm in ARMS for i in ids
        ),
        "seconds": sum(rows[arm][i]["seconds"] for arm in ARMS for i in ids),
    }


def _arm(right: Floats, cost: Floats, ids: Sequence[str], picks: Any) -> dict[str, Any]:
    levels = {level: np.array([f"-{level}-" in i for i in ids]) for level in LEVELS}
    return {
        "right": float(right.mean()),
        "right_ci": _interval(right[picks].mean(axis=1)),
        "levels": {level: float(right[held].mean()) if held.any() else None for level, held in levels.items()},
        "cost": float(cost.mean()),
        "per_1000": float(1000 * right.sum() / cost.sum()),
        "per_1000_ci": _interval(1000 * right[picks].sum(axis=1) / cost[picks].sum(axis=1)),
    }


def _against(right: Mapping[str, Floats], cost: Mapping[str, Floats], arm: str, picks: Any) -> dict[str, Any]:
    def compared(pick: Any) -> tuple[Any, Any, Any]:
        mine, other = right["rewind"][pick].mean(axis=-1), right[arm][pick].mean(axis=-1)
        price = cost["rewind"][pick].mean(axis=-1) / cost[arm][pick].mean(axis=-1)
        return mine - other, 1 - price, mine / np.maximum(other, 1e-9) / price

    names = ("accuracy", "cost_saved", "per_cost_ratio")
    whole, resampled = compared(np.arange(len(right[arm]))), compared(picks)
    return {
        name: {"value": float(value), "ci": _interval(drawn)}
        for name, value, drawn in zip(names, whole, resampled, strict=True)
    }


def _backs(rows: Rows, ids: Sequence[str]) -> dict[str, int]:
    """How often a run went back to which nodes, in order, and how many of these runs ended right."""
    paths = {i: " then ".join(node for node, _ in rows[i]["backs"]) or "nowhere" for i in ids}
    return {
        f"{path}, {'right' if right else 'wrong'}": sum(paths[i] == path and rows[i]["right"] == right for i in ids)
        for path in sorted(set(paths.values()))
        for right in (True, False)
    }


def _interval(values: Floats) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def table(found: Mapping[str, Any]) -> str:
    lines = [f"{found['tasks']} tasks, levels {found['levels']}, {found['seconds']:.0f} s", ""]
    lines += [
        "| arm | right (95 % interval) | easy / medium / hard | cost a task | right per 1,000 of cost |",
        "|---|---|---|---|---|",
    ]
    for arm, one in found["arms"].items():
        levels = " / ".join("-" if share is None else f"{share:.0%}" for share in one["levels"].values())
        cells = [_share(one["right"], one["right_ci"]), levels, f"{one['cost']:.0f}"]
        cells.append(_plain(one["per_1000"], one["per_1000_ci"]))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "| rewind against | accuracy | cost saved | right per cost, ratio |", "|---|---|---|---|"]
    for arm, one in found["rewind against"].items():
        cells = [_share(**one["accuracy"], sign="+"), _share(**one["cost_saved"], sign="+")]
        cells.append(_plain(**one["per_cost_ratio"]))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", *(f"{arm} went back to: {backs}" for arm, backs in found["backs"].items())]
    lines.append(f"first plan right: {found['first plan right']}")
    lines.append(f"rows booked otherwise than called: {found['booked otherwise than called']}")
    return "\n".join(lines)


def _share(value: float, ci: Sequence[float], sign: str = "") -> str:
    return f"{value:{sign}.1%} ({ci[0]:{sign}.1%} to {ci[1]:{sign}.1%})"


def _plain(value: float, ci: Sequence[float]) -> str:
    return f"{value:.2f} ({ci[0]:.2f} to {ci[1]:.2f})"
