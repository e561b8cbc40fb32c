"""How good forecasts are: Brier score and calibration error, against what chance alone would show.

Forecasts `p` and outcomes `y` are flat arrays of the same items; `weight` says how much each item counts (all alike
unless given). An outcome may be a share of several samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats

BINS = 10
SIMULATIONS = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One bin of a reliability table: how many items, mean forecast, share that came true."""

    items: int
    forecast: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A forecast's scores; `ece_by_chance` is the mean ECE of outcomes simulated from the same forecasts."""

    brier: float
    brier_base_rate: float
    ece: float
    ece_by_chance: float
    rows: tuple[Row, ...]


def brier(p: Floats, y: Floats, weight: Floats | None = None) -> float:
    """Mean squared error of the forecasts (Brier 1950)."""
    return float(np.average((p - y) ** 2, weights=weight))


def brier_base_rate(y: Floats, weight: Floats | None = None, heads: npt.NDArray[np.intp] | None = None) -> float:
    """Brier score of always forecasting the outcomes' own mean, or each head's own where `heads` numbers them."""
    kinds = np.zeros(len(y), dtype=np.intp) if heads is None else heads
    weights = np.ones(len(y)) if weight is None else weight
    total = np.bincount(kinds, weights)
    mean = np.bincount(kinds, weights * y) / np.where(total > 0.0, total, 1.0)
    return brier(mean[kinds], y, weight)


def equal_mass(p: Floats, bins: int = BINS) -> npt.NDArray[np.intp]:
    """The bin of each forecast: so many bins of about equal numbers, equal forecasts always in the same one.

    Splitting equal forecasts would set them apart by the order of the data, which is no fault of the forecast.
    """
    edges = np.quantile(p, np.arange(1, bins) / bins)
    return np.searchsorted(np.unique(edges), p, side="right").astype(np.intp)


def reliability(p: Floats, y: Floats, weight: Floats | None = None, bins: int = BINS) -> tuple[Row, ...]:
    """Forecast against outcome per bin of equal mass, lowest forecasts first."""
    into, weights = equal_mass(p, bins), np.ones(len(p)) if weight is None else weight
    items, mass = np.bincount(into, minlength=bins), np.bincount(into, weights, minlength=bins)
    full = np.flatnonzero(mass)
    forecast = np.bincount(into, weights * p, minlength=bins)[full] / mass[full]
    observed = np.bincount(into, weights * y, minlength=bins)[full] / mass[full]
    return tuple(Row(*row) for row in zip(items[full].tolist(), forecast.tolist(), observed.tolist(), strict=True))


def ece(p: Floats, y: Floats, weight: Floats | None = None, bins: int = BINS) -> float:
    """Expected calibration error: mean |forecast - outcome| over bins of equal mass (Naeini et al. 2015)."""
    return _error(equal_mass(p, bins), p, y, weight)


def ece_by_chance(
    p: Floats, weight: Floats | None = None, *, bins: int = BINS, simulations: int = SIMULATIONS, seed: int = 0
) -> float:
    """Mean ECE of outcomes drawn independently with the forecasts as their chances: what a perfect forecast shows."""
    rng, into = np.random.default_rng(seed), equal_mass(p, bins)
    drawn = ((rng.random(len(p)) < p).astype(float) for _ in range(simulations))
    return sum(_error(into, p, y, weight) for y in drawn) / simulations


def score(
    p: Floats, y: Floats, weight: Floats | None = None, heads: npt.NDArray[np.intp] | None = None, seed: int = 0
) -> Scores:
    """Every score of one forecast; `heads` (the rung of each item) gives the base rate per head."""
    return Scores(
        brier=brier(p, y, weight),
        brier_base_rate=brier_base_rate(y, weight, heads),
        ece=ece(p, y, weight),
        ece_by_chance=ece_by_chance(p, weight, seed=seed),
        rows=reliability(p, y, weight),
    )


def _error(into: npt.NDArray[np.intp], p: Floats, y: Floats, weight: Floats | None) -> float:
    weights = np.ones(len(p)) if weight is None else weight
    return float(np.abs(np.bincount(into, weights * (p - y))).sum() / weights.sum())
