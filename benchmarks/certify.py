"""Do certificates hold? Records with a known risk at every dial, certified many times over.

    python -m benchmarks.certify [--repetitions 500] [--json]

Each repetition draws 500 questions, certifies a dial at risk .05 and delta .05, and looks up the true risk of that
dial; beside it a naive rule takes the thriftiest dial whose risk on the same questions is at most .05. Exit status 1
if certificates are violated more than 37 times in 500, or if the naive rule is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.certify import Bools, Kind, certify_replayed, losses

SEED = 20261121  # fixed before the first run
REPETITIONS = 500
MOST = 37  # violations in 500 repetitions
QUESTIONS = 500
RISK = DELTA = 0.05
DIALS: Floats = np.linspace(0.0, 1.0, 41)

SHAPES: dict[str, Floats] = {
    "rising": 0.005 + 0.14 * DIALS**1.5,
    "rising and falling": 0.02 + 0.034 * DIALS + 0.05 * np.sin(np.pi * DIALS) ** 2,
    "a step": np.where(DIALS < 0.5, 0.02, 0.055),
}
"""True risk at each dial."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One repetition's questions under every dial."""

    dials: Floats
    accepted: Bools
    correct: Bools
    best_correct: Bools
    nodes: tuple[str, ...]
    groups: tuple[str, ...]


def draw(risks: Floats, kind: Kind, rng: np.random.Generator) -> Drawn:
    """Questions whose true risk of this kind is `risks` (D,) exactly.

    A question keeps its luck over all dials, as a recorded one does. Fewer answers are accepted at thriftier dials,
    whether right or wrong; the best rung is right on 9 of 10 questions.
    """
    luck, doubt, best = rng.random((3, QUESTIONS))
    accepted = doubt < (0.9 - 0.3 * DIALS)[:, None]
    best_correct = best < 0.9
    if kind == "lost-correct":
        correct = ~((luck < risks[:, None] / 0.9) & best_correct) & (best_correct | (luck < 0.5))
    else:
        correct = luck >= risks[:, None]
    names = tuple(map(str, range(QUESTIONS)))
    return Drawn(DIALS, accepted, correct, best_correct, ("default",) * QUESTIONS, names)


def naive(drawn: Drawn, kind: Kind) -> int | None:
    """The place of the thriftiest dial whose risk on these questions is at most RISK; None where there is none."""
    fits = np.flatnonzero(np.nanmean(losses(drawn, kind), axis=1) <= RISK)
    return int(fits[-1]) if fits.size else None


def certified(drawn: Drawn, kind: Kind) -> int | None:
    """The place of the certified dial; None where there is none."""
    (tested,) = certify_replayed(drawn, kind, risk=RISK, delta=DELTA)
    return len(tested.dials) - 1 if tested.certified else None


def simulate(shape: str, kind: Kind, repetitions: int, seed: int = SEED) -> dict[str, Any]:
    """Violations of both rules, and how far along the dials each got on average (-1 = none)."""
    rng, risks = np.random.default_rng(seed), SHAPES[shape]
    chosen: dict[str, list[int | None]] = {"certified": [], "naive": []}
    for _ in range(repetitions):
        drawn = draw(risks, kind, rng)
        chosen["certified"].append(certified(drawn, kind))
        chosen["naive"].append(naive(drawn, kind))
    row: dict[str, Any] = {"shape": shape, "kind": kind, "repetitions": repetitions}
    for name, places in chosen.items():
        row[name] = sum(at is not None and bool(risks[at] > RISK) for at in places)
        row[f"{name}_dial"] = round(float(np.mean([-1.0 if at is None else DIALS[at] for at in places])), 3)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [simulate(shape, kind, options.repetitions) for shape in SHAPES for kind in get_args(Kind)]
    most = MOST * options.repetitions / REPETITIONS
    held = all(row["certified"] <= most < row["naive"] for row in rows)
    if options.json:
        print(json.dumps({"seed": SEED, "most": most, "held": held, "rows": rows}))
    else:
        print(f"violations in {options.repetitions} repetitions (at most {most:g}), and the mean dial chosen")
        for row in rows:
            chosen = (f"{rule} {row[rule]:3d} (dial {row[f'{rule}_dial']:.2f})" for rule in ("certified", "naive"))
            print(f"{row['kind']:15} {row['shape']:19} {'  '.join(chosen)}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
