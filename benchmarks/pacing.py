"""What pacing does for a day's budget: how close spend keeps to its pace, and what the money buys.

    python -m benchmarks.pacing [--seeds 10] [--steps 4000] [--json]

A synthetic day: steps come in bursts over a daily rhythm, of all difficulties, on a ladder of three rungs whose answers
a verifier (sensitivity .95, false-accept .1) checks; the money is about a third of what would be spent without a
limit. Every step is decided by the planner's own arithmetic at `lambda + mu`. Beside pacing stand first come, first
served (the dial until the money is gone), a hard cut-off at the pace (a step is refused while spend is ahead of it),
and the best fixed price in hindsight, which nobody has beforehand. Exit status 1 where a claim fails.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from governor.estimate.curves import GRID, Floats
from governor.estimate.latent import normal_weights
from governor.plan.dial import price_at
from governor.plan.odds import Odds, choose
from governor.plan.pacing import Pacing

DAY = 86_400.0
DEAREST = 10_000.0  # micro-USD of the top rung's call
COSTS = np.array([0.02, 0.15, 1.0])
ABILITY = np.array([-0.3, 0.6, 1.6])
SENSITIVITY, FALSE_ACCEPT, HARM = 0.95, 0.1, 0.5
DIAL = 0.05
BUDGET_SHARE = 0.35
WARM_UP = 0.05
OFF_PACE = 0.05

SUCCESS: Floats = 0.02 + 0.98 / (1 + np.exp(-1.7 * (ABILITY[:, None] - GRID)))
ODDS = Odds.of(SUCCESS, COSTS, SENSITIVITY, FALSE_ACCEPT, HARM)


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """Steps in order of arrival: `times`, what is believed beforehand (`means`), and every draw of what then happens.

    `correct` and `accepted` (N, 3) say how each rung's answer turns out, whoever asks for it.
    """

    times: Floats
    means: Floats
    correct: Any
    accepted: Any


@dataclass(frozen=True, slots=True)
class Result:
    """Of one way through a day: value gained, micro-USD spent, and the furthest off pace as a share of the budget."""

    utility: float
    spent: float
    off_pace: float


def rhythm(kind: str) -> tuple[float, ...]:
    """Weights by hour: () is even, else a working day."""
    if kind == "uniform":
        return ()
    return tuple(1.0 + 0.9 * math.sin(math.pi * (hour - 8) / 12) for hour in range(24))


def bursty_day(steps: int, profile: tuple[float, ...], seed: int) -> Day:
    """About `steps` steps: bursts of gamma-distributed rates over ten minutes each, on top of the rhythm."""
    rng = np.random.default_rng(seed)
    slots = 144
    hours = np.array(profile or (1.0,) * 24)
    rates = np.repeat(hours / hours.sum(), slots // 24) / (slots // 24) * steps
    counts = rng.poisson(rates * rng.gamma(2.0, 0.5, slots))
    times = np.sort((np.repeat(np.arange(slots), counts) + rng.random(counts.sum())) * DAY / slots)
    size = len(times)
    latent = rng.normal(0.3, 1.2, size)
    means = latent * 0.6 + 0.12 + rng.normal(0.0, 0.75, size)  # an estimate worth having, and far from perfect
    chance = 0.02 + 0.98 / (1 + np.exp(-1.7 * (ABILITY - latent[:, None])))
    correct = rng.random((size, 3)) < chance
    accepted = rng.random((size, 3)) < np.where(correct, SENSITIVITY, FALSE_ACCEPT)
    return Day(times, means, correct, accepted)


BELIEFS = {mean: normal_weights(mean / 4, 0.85) for mean in range(-16, 17)}


def step(day: Day, at: int, price: float) -> tuple[float, float]:
    """Value and micro-USD of one step decided at this price: at most three attempts, the best answer ships."""
    weights = BELIEFS[min(max(round(4 * float(day.means[at])), -16), 16)]
    arms, held, spent = [0, 1, 2], np.empty((0, weights.size)), 0.0
    tried: list[int] = []
    while arms:
        choice = choose(ODDS.take(arms), weights, held, price, len(arms))
        if not choice.pays:
            break
        arm = arms.pop(choice.arm)
        spent += DEAREST * float(COSTS[arm])
        if day.accepted[at, arm]:
            return (1.0 if day.correct[at, arm] else -HARM), spent
        tried.append(arm)
        held = np.vstack([held, ODDS.kept[arm] / ODDS.reject[arm]])
        weights = weights * ODDS.reject[arm]
        weights = weights / weights.sum()
    value = held @ weights if tried else np.zeros(1)
    if (1 + HARM) * float(value.max()) - HARM <= 0:
        return 0.0, spent
    return (1.0 if day.correct[at, tried[int(value.argmax())]] else -HARM), spent


Way = Callable[[float, float], float | None]
"""(seconds, spent so far) -> the price at which the step that comes now is decided; None: it is refused."""


def through(day: Day, pacing: Pacing, way: Way) -> Result:
    """One way through a day. The hard limit holds for all: once the money is gone, nobody is served."""
    utility = spent = off = 0.0
    for at, now in enumerate(day.times.tolist()):
        off = max(off, _off(pacing, spent, now))
        price = way(now, spent) if spent + DEAREST * float(COSTS.sum()) <= pacing.budget else None
        if price is not None:
            value, cost = step(day, at, price)
            utility, spent = utility + value, spent + cost
        off = max(off, _off(pacing, spent, now))
    return Result(utility, spent, max(off, _off(pacing, spent, DAY)))


def _off(pacing: Pacing, spent: float, now: float) -> float:
    return abs(spent - pacing.target(now)) / pacing.budget if now >= WARM_UP * DAY else 0.0


def paced(pacing: Pacing) -> Way:
    state = pacing

    def price(now: float, spent: float) -> float:
        nonlocal state
        state = state.after(spent, now)
        return price_at(DIAL) + state.mu * DEAREST

    return price


def fixed(price: float) -> Way:
    return lambda _now, _spent: price


def cut_off(pacing: Pacing) -> Way:
    return lambda now, spent: price_at(DIAL) if spent < pacing.target(now) else None


def hindsight(day: Day, pacing: Pacing) -> Result:
    """The best of a grid of fixed prices, known only afterwards."""
    prices = [price_at(DIAL), *np.geomspace(0.05, 8.0, 8).tolist()]
    return max((through(day, pacing, fixed(at)) for at in prices), key=lambda one: one.utility)


def one_day(kind: str, steps: int, seed: int, *, best: bool = True) -> dict[str, Result]:
    """Every way through one day."""
    profile = rhythm(kind)
    day = bursty_day(steps, profile, seed)
    unlimited = Pacing.of(1e15, DAY, DEAREST)
    free = through(day, unlimited, fixed(price_at(DIAL))).spent
    pacing = Pacing.of(BUDGET_SHARE * free, DAY, DEAREST, profile=profile)
    ways = {
        "paced": through(day, pacing, paced(pacing)),
        "first_come": through(day, pacing, fixed(price_at(DIAL))),
        "cut_off": through(day, pacing, cut_off(pacing)),
    }
    return ways | ({"hindsight": hindsight(day, pacing)} if best else {})


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and a 95 % interval over seeds (normal)."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    mean = float(np.mean(values))
    return round(mean, 4), round(mean - half, 4), round(mean + half, 4)


def measure(seeds: int, steps: int) -> dict[str, Any]:
    """Both rhythms over several seeds."""
    result: dict[str, Any] = {"seeds": seeds, "steps": steps, "budget_share": BUDGET_SHARE}
    passed = True
    for kind in ("uniform", "profile"):
        days = [one_day(kind, steps, seed) for seed in range(seeds)]
        gains = {
            other: interval([day["paced"].utility / max(day[other].utility, 1e-9) for day in days])
            for other in ("first_come", "cut_off", "hindsight")
        }
        worst = max(day["paced"].off_pace for day in days)
        off = {name: interval([day[name].off_pace for day in days]) for name in days[0]}
        utility = {name: interval([day[name].utility for day in days]) for name in days[0]}
        result[kind] = {"off_pace": off, "worst_off_pace": round(worst, 4), "utility": utility, "paced_over": gains}
        passed = passed and worst <= OFF_PACE and min(gains["first_come"][1], gains["cut_off"][1]) > 1.0
    return result | {"passed": passed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="days of each rhythm (default 10)")
    parser.add_argument("--steps", type=int, default=4000, help="steps a day, about (default 4000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments.seeds, arguments.steps)
    print(json.dumps(result) if arguments.json else table(result))
    return 0 if result["passed"] else 1


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [f"{result['seeds']} days of about {result['steps']} steps; mean and 95 % interval over days"]
    for kind in ("uniform", "profile"):
        lines.append(f"{kind} pace{'':16}{'utility':>26}{'furthest off pace':>30}")
        for name, utility in result[kind]["utility"].items():
            off = result[kind]["off_pace"][name]
            lines.append(f"  {name:20}{_said(utility, 1):>30}{_said([100 * x for x in off], 1) + ' %':>30}")
        for name, ratio in result[kind]["paced_over"].items():
            lines.append(f"  paced / {name:12}{_said(ratio, 3):>30}")
        lines.append(
            f"  worst day {100 * result[kind]['worst_off_pace']:.1f} % off pace (at most {100 * OFF_PACE:.0f})"
        )
    return "\n".join([*lines, "pass" if result["passed"] else "FAIL"])


def _said(figures: Any, digits: int) -> str:
    mean, low, high = (f"{figure:,.{digits}f}" for figure in figures)
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
