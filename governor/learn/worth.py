"""What held-out forecasts were worth, per rung: the report that a calibration carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from governor.estimate.calibration import Lengths
from governor.estimate.curves import Floats
from governor.estimate.learned import sigmoid
from governor.learn.scores import score
from governor.learn.shrink import Shrinkage
from governor.learn.table import Table


def worth(
    table: Table,
    odds: Floats,
    y: Floats,
    weight: Floats,
    shrunk: Shrinkage,
    lengths: Lengths,
    places: Floats,
    seed: int,
) -> Mapping[str, Any]:
    """Plain data (JSON): per rung ECE and Brier of held-out forecasts, reliability by decile, lengths.

    `odds`, outcomes `y` and `weight` are (Q, K), `places` (Q, D) what lengths depend on. Lengths are the forecast's:
    their median over questions, and the share of recorded ones that were cut; None where they are unknown.
    """
    each = {
        rung: _forecast(odds[:, k], y[:, k], weight[:, k] > 0, seed)
        | {"slope": float(shrunk.slope[k]), "known": bool(shrunk.slope[k] > 0.0)}
        | _length(lengths, places, k)
        for k, rung in enumerate(table.rungs)
    }
    return {"questions": len(table.qids), "groups": len(set(table.groups)), "seed": seed, "rungs": each}


def _forecast(odds: Floats, y: Floats, known: Any, seed: int) -> dict[str, Any]:
    p, outcome = sigmoid(odds[known]), y[known]
    found = score(p, outcome, seed=seed)
    return {
        "outcomes": int(known.sum()),
        "base_rate": float(outcome.mean()),
        "ece": found.ece,
        "ece_by_chance": found.ece_by_chance,
        "brier": found.brier,
        "brier_base_rate": found.brier_base_rate,
        "deciles": [[row.items, row.forecast, row.observed] for row in found.rows],
    }


def _length(lengths: Lengths, places: Floats, k: int) -> dict[str, float | None]:
    if math.isnan(lengths.spread[k]):
        return {"median_tokens": None, "cut": None}
    medians = np.exp(lengths.start[k] + places @ lengths.slope[:, k])
    return {"median_tokens": float(np.median(medians)), "cut": float(1.0 - lengths.whole[k])}
