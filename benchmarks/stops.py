"""Stop rules that read how sure an answer is, against fixed budgets of the same mean, on recorded thoughts.

    python -m benchmarks.stops

At each look at a growing thought its answer is asked for, and the thought ends at the first look whose `p_top` (the
probability of the answer) or `p_margin` (its lead over the next) reaches a threshold. It costs the tokens of that look
and one for each look before; a fixed budget pays for no look. For each fixed budget, every fold of questions is stopped
at the threshold whose mean cost on the other folds came closest to the budget's there. `from` a least budget on: looks
before it are left out; of the pairs (least, threshold) that cost as much within 5 % on the other folds, the one that
was right most often there is taken. The held-out outcomes, pooled, are held against fixed budgets at exactly the cost
that they had: the two neighbouring budgets mixed (`fixed`), and the best random mixture of any (`mixing`: the hull,
drawn on the questions that it is judged on, which favours it). Intervals are paired bootstraps over questions, each
with all its samples; thresholds are not chosen anew in them. Records: thinking_budgets_dev in ../shared/data (or
GOVERNOR_DATA).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.costs import LOOK
from governor.learn.frontier import hull, value_at
from governor.learn.intervals import Interval, Resamples
from governor.learn.ladder import load_ladder
from governor.learn.looks import Looks, Places, read_looks
from governor.learn.rows import read_rows
from governor.learn.table import folds

DATA = Path(os.environ.get("GOVERNOR_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORDS, LADDER = DATA / "thinking_budgets_dev.jsonl.gz", DATA / "ladders" / "thinking_budgets.json"
SIGNALS = ("p_top", "p_margin")
FOLDS, GRID, RESAMPLES = 5, 200, 2000
WITHIN = 0.05
"""How far off the wanted mean cost, as a share of it, a pair of least budget and threshold may be."""


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Mean cost and accuracy of each of Q questions under each of D ways to stop: (D, Q)."""

    cost: Floats
    accuracy: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule at one wanted mean cost; leads are in points of accuracy, with 95 % intervals. "mean" pools budgets."""

    rule: str
    budget: str
    cost: float
    accuracy: float
    over_fixed: float
    over_fixed_interval: Interval
    over_mixing: float
    over_mixing_interval: Interval


def figures(looks: Looks, ends: Iterable[Places], first: int = 0) -> Figures:
    """What each way to stop costs and reaches, looking from the place `first` on; every question weighs 1."""
    names, of = np.unique(np.array(looks.groups), return_inverse=True)
    thought = np.arange(len(of))
    each = np.bincount(of, minlength=len(names))
    cost, accuracy = [], []
    for at in ends:
        tokens = looks.tokens[thought, at]
        before = (looks.known & (looks.tokens < tokens[:, None]))[:, first:].sum(axis=1)
        cost.append(np.bincount(of, tokens + LOOK * before) / each)
        accuracy.append(np.bincount(of, looks.right[thought, at]) / each)
    return Figures(np.array(cost), np.array(accuracy))


def fixed_figures(looks: Looks) -> Figures:
    """Every thought cut at each of the budgets, without a look before."""
    places = np.arange(len(looks.rungs))
    return figures(looks, (looks.ended(places[None, :] >= place) for place in places), len(places))


def signal_figures(looks: Looks, signal: str, least: Iterable[int]) -> Figures:
    """The rule at each of GRID thresholds, quantiles of all that was recorded (labels play no part).

    That for each of the places `least` from which on it looks.
    """
    values = np.where(looks.known, looks.signals[signal], np.nan)
    told = values[~np.isnan(values)]
    thresholds = np.unique(np.append(np.quantile(told, np.linspace(0.0, 1.0, GRID)), np.inf)).tolist()
    place = np.arange(len(looks.rungs))[None, :]
    parts = [
        figures(looks, (looks.ended((values >= bar) & (place >= first)) for bar in thresholds), first)
        for first in least
    ]
    return Figures(np.vstack([part.cost for part in parts]), np.vstack([part.accuracy for part in parts]))


def cross_fitted(rule: Figures, target: Floats, fold: Places, within: float) -> Figures:
    """(1, Q): each fold under the setting whose mean cost on the others is closest to the target's (Q,) there.

    Of settings that are closer than the share `within` of the target, the one that was right most often there.
    """
    chosen = np.empty(len(fold), dtype=np.intp)
    for number in range(FOLDS):
        others = fold != number
        wanted = target[others].mean()
        gap = np.abs(rule.cost[:, others].mean(axis=1) - wanted) / wanted
        right = rule.accuracy[:, others].mean(axis=1)
        chosen[~others] = int(np.lexsort((gap, -right * (gap <= within), gap > within))[0] if within else gap.argmin())
    question = np.arange(len(fold))
    return Figures(rule.cost[chosen, question][None], rule.accuracy[chosen, question][None])


def leads(rule: Figures, fixed: Figures, weights: Floats) -> Floats:
    """(B, 2): points of accuracy over neighbouring budgets mixed, and over the hull, under question weights (B, Q)."""
    cost, right = weights @ rule.cost[0], weights @ rule.accuracy[0]
    costs, rights = weights @ fixed.cost.T, weights @ fixed.accuracy.T
    drawn = zip(cost.tolist(), right.tolist(), costs, rights, strict=True)
    return 100.0 * np.array([(a - np.interp(c, x, y), a - value_at(hull(x, y), c)) for c, a, x, y in drawn])


def measure(looks: Looks, seed: int = 0, resamples: int = RESAMPLES) -> list[Row]:
    """Both rules at the mean cost of each fixed budget between the smallest and the whole thought, and their mean."""
    fixed = fixed_figures(looks)
    names = np.unique(np.array(looks.groups)).tolist()
    fold = folds(names, FOLDS, seed)
    weights = np.vstack(
        [np.full((1, len(names)), 1.0 / len(names)), Resamples.draw(len(names), resamples, seed).weights]
    )
    rows: list[Row] = []
    for signal in SIGNALS:
        for name, least, within in ((signal, range(1), 0.0), (f"{signal} from", range(len(looks.rungs) - 1), WITHIN)):
            rule = signal_figures(looks, signal, least)
            every = []
            for place in range(1, len(looks.rungs) - 1):
                held = cross_fitted(rule, fixed.cost[place], fold, within)
                every.append(leads(held, fixed, weights))
                budget = f"{looks.budgets[place]:.0f}"
                rows.append(_row(name, budget, held.cost.mean(), held.accuracy.mean(), every[-1]))
            rows.append(_row(name, "mean", float("nan"), float("nan"), np.mean(every, axis=0)))
    return rows


def _row(rule: str, budget: str, cost: float, accuracy: float, found: Floats) -> Row:
    (over_fixed, over_mixing), drawn = found[0].tolist(), found[1:]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0).tolist()
    return Row(
        rule=rule,
        budget=budget,
        cost=float(cost),
        accuracy=float(accuracy),
        over_fixed=over_fixed,
        over_fixed_interval=(low[0], high[0]),
        over_mixing=over_mixing,
        over_mixing_interval=(low[1], high[1]),
    )


def shown(row: Row) -> str:
    """A line of the table."""
    place = f"| {row.rule} | {row.budget} | "
    place += "| | " if row.budget == "mean" else f"{row.cost:,.0f} | {row.accuracy:.3f} | "
    lead = ((row.over_fixed, row.over_fixed_interval), (row.over_mixing, row.over_mixing_interval))
    return place + " | ".join(f"{value:+.2f} ({low:+.2f} to {high:+.2f})" for value, (low, high) in lead) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="draws the folds and the resamples")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not RECORDS.is_file():
        raise SystemExit(f"{RECORDS} is not here: say where the recorded outcomes are (GOVERNOR_DATA)")
    looks = read_looks(read_rows(RECORDS), load_ladder(LADDER), SIGNALS, seed=options.seed)
    rows = measure(looks, options.seed)
    if options.json:
        nan = {"cost": None, "accuracy": None}
        print(json.dumps([asdict(row) | (nan if row.budget == "mean" else {}) for row in rows]))
        return 0
    print(f"{len(set(looks.groups))} questions, {len(looks.groups)} thoughts; leads in points of accuracy")
    print("| rule | at the cost of budget | tokens | right | over fixed budgets | over random mixing |")
    print("|---|---|---|---|---|---|")
    print("\n".join(map(shown, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
