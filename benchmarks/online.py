"""What recalibration while serving is worth where forecasts meet task families that they were never fitted on.

    python -m benchmarks.online [--folds 5] [--json]

Forecasts are fitted on four fifths of the families of the recorded `reasoninggym` ladder; the questions of the other
families then come one by one, each through the governor's own loop at dial 0.5, and its label after it. Calibration
error (10 equal-mass bins) is of what was forecast of the rung that answered, before its answer, from the 200th question
of a fold on. Records are read from ../shared/data (or GOVERNOR_DATA). Exit status 1 where it is over 0.06.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from benchmarks.ladders import DATA, FAMILIES
from governor.climb import Mind
from governor.drivers import drive
from governor.effects import Effect, Emit
from governor.estimate.curves import Floats
from governor.estimate.drift import Wealth
from governor.estimate.learned import LearnedEstimator
from governor.estimate.online import Online
from governor.learn.chance import uniform
from governor.learn.fit import fit
from governor.learn.ladder import load_ladder
from governor.learn.recorded import Stage, World, terms_of
from governor.learn.rows import read_rows
from governor.learn.scores import brier, ece
from governor.learn.table import Table, draw, folds, split
from governor.learn.tabulate import tabulate
from governor.loop import govern
from governor.plan.frontier import FrontierPrices
from governor.plan.index import IndexPlanner
from governor.protocols import Estimator

FIRST = 200
LIMIT = 0.06


def streamed(world: World, planner: IndexPlanner, estimator: Estimator, online: Online | None) -> Floats:
    """Forecast and outcome of each question in the order of a hash, (Q, 2)."""
    table, found = world.table, []
    for question in sorted(range(len(table.qids)), key=lambda q: uniform(0, table.qids[q])):
        stage, step = Stage(world, question), world.step(question)

        def perform(effect: Effect, stage: Stage = stage) -> Any:
            if isinstance(effect, Emit) and online is not None:
                online.emit(effect.step, effect.record)
            return stage.perform(effect)

        terms = terms_of(world.ladder, world.offered(question))
        outcome = drive(govern(step, terms, Mind(estimator, planner)), perform)
        take = stage.take(outcome)
        if online is not None:
            online.label(step.id, take.correct > 0.5)
        told = next(one.p_success for one in outcome.attempts[0].forecasts if one.rung == outcome.attempts[0].rung.id)
        found.append((told, float(table.correct[question, stage.shown[0].rung, stage.shown[0].sample])))
    return np.array(found)


def measure(table: Table, parts: int) -> dict[str, Any]:
    """Pooled over folds of families, with and without recalibration."""
    ladder = load_ladder(DATA / "ladders" / "reasoninggym.json")
    fold = folds(table.groups, 5, 0)
    pairs: dict[str, list[Floats]] = {"static": [], "online": []}
    for part in range(parts):
        train, test = split(table, fold, part)
        calibration = fit(table.take(train), ladder, seed=0)
        world = World.of(table.take(test), ladder, table.take(train), 0)
        planner, learned = IndexPlanner(FrontierPrices(calibration.frontier)), LearnedEstimator(calibration)
        online = Online(learned, wealth=Wealth.two_sided)
        pairs["static"].append(streamed(world, planner, learned, None)[FIRST:])
        pairs["online"].append(streamed(world, planner, online, online)[FIRST:])
    figures: dict[str, Any] = {"questions": sum(map(len, pairs["online"])), "folds": parts}
    for name, found in pairs.items():
        p, y = np.concatenate(found).T
        figures[name] = {"ece": round(ece(p, y), 4), "brier": round(brier(p, y), 4)}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5, help="folds of families to stream (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not here: say where the recorded outcomes are (GOVERNOR_DATA)")
    ladder = load_ladder(DATA / "ladders" / "reasoninggym.json")
    table = draw(tabulate(read_rows([ladder.records]), ladder, group_by=FAMILIES), 0)
    found = measure(table, options.folds)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['questions']} questions of unseen families, without the first {FIRST} of each fold")
        for name in ("static", "online"):
            print(f"{name:8} ECE {found[name]['ece']:.3f}  Brier {found[name]['brier']:.3f}")
    return 0 if found["online"]["ece"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
