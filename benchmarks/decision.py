"""What a decision costs: estimate + plan against LiteLLM's complexity scorer, alternating in one process.

    python -m benchmarks.decision [--rounds 600] [--json]

Every prompt is new (about 2,000 characters), so that no cache of prompts is measured; the ladder of six rungs
stays, as it does in life. Forecasts are those of the rules, and learned ones of a calibration that is fitted first, on
600 other prompts. Exit status 1 if the rules' median is over 1/4 of the scorer's or their 99th percentile over 1 ms,
or the median with learned forecasts over 1/2 of the scorer's.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from governor.estimate import RuleEstimator
from governor.estimate.learned import LearnedEstimator
from governor.learn.fit import fit
from governor.learn.ladder import Ladder
from governor.learn.schema import Row
from governor.learn.tabulate import tabulate
from governor.plan.index import IndexPlanner
from governor.protocols import Estimator, Situation, Terms
from governor.records import Price, Rung, Step

PROMPT_CHARS = 2000
RATIO = 0.25
LEARNED_RATIO = 0.5
FITTED_ON = 600
P99_MICROSECONDS = 1000.0

LADDER = (
    Rung(id="small", model="small", price=Price(input=0.1, output=0.4)),
    Rung(id="small-think", model="small", price=Price(input=0.1, output=0.4), thinking_tokens=2000),
    Rung(id="medium", model="medium", price=Price(input=0.5, output=2.0)),
    Rung(id="medium-think", model="medium", price=Price(input=0.5, output=2.0), thinking_tokens=4000),
    Rung(id="large", model="large", price=Price(input=3.0, output=15.0)),
    Rung(id="large-think", model="large", price=Price(input=3.0, output=15.0), thinking_tokens=8000),
)
TERMS = Terms(app="benchmark", ladder=LADDER, dial=0.3)

_SENTENCES = (
    "The quarterly report from the {w} department lists {n} open invoices and {m} late payments.",
    "Write a Python function that takes a list of {w} records and returns the {n} largest by amount.",
    "Each answer must name the source, must not exceed {n} words, and should avoid the term {w}.",
    "If a train leaves {w} at {n} km/h and another follows {m} minutes later, when do they meet?",
    "Prove that for every integer n > {n} the sum of the first n {w} numbers is divisible by {m}.",
    "Let $x_{n} = \\frac{{{m}}}{{n+1}}$ and evaluate the limit as n grows.",
    "First extract the {w} field, then validate it, and finally return JSON with {n} keys.",
    "Compare the two designs with respect to latency, cost and how the {w} cache behaves.",
    "The customer wrote: 'my {w} arrived broken on day {n}, please send order {m} again'.",
    "- item {n}: check that the {w} service answers within {m} ms\n",
    "def handle_{w}(rows):\n    return [row for row in rows if row.total > {n}]\n",
    "Nobody in the village remembered who had painted the {w} gate, or why it was blue.",
)
_STEMS = ("amber", "basal", "cedar", "delta", "ember", "fjord", "grain", "harbour", "inlet", "juniper", "kelp", "lumen")
_ENDS = ("", "s", "ing", "ed", "ful", "less", "wise", "like", "ward", "ish")


def prompt(rng: random.Random) -> str:
    """A prompt like no other, of PROMPT_CHARS characters."""
    text = ""
    while len(text) < PROMPT_CHARS:
        word = rng.choice(_STEMS) + rng.choice(_ENDS)
        sentence = rng.choice(_SENTENCES)
        text += sentence.format(w=word, n=rng.randint(2, 99999), m=rng.randint(2, 999)) + " "
    return text[:PROMPT_CHARS]


@dataclass(frozen=True, slots=True)
class Figures:
    """Microseconds per decision."""

    median: float
    p99: float
    mean: float

    @classmethod
    def of(cls, seconds: list[float]) -> Figures:
        ordered = sorted(seconds)
        return cls(
            median=round(statistics.median(ordered) * 1e6, 1),
            p99=round(ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)] * 1e6, 1),
            mean=round(statistics.fmean(ordered) * 1e6, 1),
        )


def learned_estimator(seed: int = 1) -> LearnedEstimator:
    """Fitted on prompts like those measured; whether a rung is right depends on their words, so that trees grow."""
    rng = random.Random(seed)
    texts = [prompt(rng) for _ in range(FITTED_ON)]
    rows = (
        Row(
            qid=str(at), rung=rung.id, question=text, correct=float(_right(text, k, rng)), output_tokens=100.0 * (k + 1)
        )
        for at, text in enumerate(texts)
        for k, rung in enumerate(LADDER)
    )
    ladder = Ladder(name="made", records=Path("made"), rungs=tuple(rung.id for rung in LADDER), unit="tokens")
    return LearnedEstimator(fit(tabulate(rows, ladder)))


def _right(text: str, rung: int, rng: random.Random) -> bool:
    hard = text.count("Prove") + text.count("limit") - text.count("customer")
    return rng.random() < 1.0 / (1.0 + math.exp(0.7 * hard - 0.5 * rung))


def governor_decision(estimator: Estimator) -> Callable[[str], object]:
    """Estimate and plan of one step, from text to chosen rung."""
    planner = IndexPlanner()

    def decide(text: str) -> object:
        step = Step(id="step", messages=({"role": "user", "content": text},))
        situation = Situation(step=step, terms=TERMS, sensitivity=0.97, false_accept=0.05)
        return planner.choose(estimator.estimate(step, TERMS), situation)

    return decide


def litellm_decision() -> Callable[[str], object]:
    """The heuristic scorer alone: no router, no hook around it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the scorer needs no price list from the network
    module: Any = import_module("litellm.router_strategy.complexity_router.complexity_router")
    # The scorer itself never uses the router it is made with.
    scorer = module.ComplexityRouter("benchmark", None, default_model="small", derive_savings_baseline=False)
    classify: Callable[[str], object] = scorer.classify
    return classify


def timed(decide: Callable[[str], object], text: str) -> float:
    """Seconds of one decision."""
    start = time.perf_counter()
    decide(text)
    return time.perf_counter() - start


def measure(rounds: int, seed: int = 0) -> dict[str, Any]:
    """Let the deciders take turns over `rounds` prompts, every prompt seen once by each."""
    rng = random.Random(seed)
    deciders = {
        "governor_us": governor_decision(RuleEstimator()),
        "learned_us": governor_decision(learned_estimator()),
        "litellm_us": litellm_decision(),
    }
    for _ in range(30):
        text = prompt(rng)
        for decide in deciders.values():
            decide(text)
    times: dict[str, list[float]] = {name: [] for name in deciders}
    order = list(deciders)
    gc.collect()
    for _ in range(rounds):
        text = prompt(rng)
        for name in order:
            times[name].append(timed(deciders[name], text))
        order.append(order.pop(0))  # who comes later finds the text in the processor's cache
    found = {name: Figures.of(seconds) for name, seconds in times.items()}
    ratio = found["governor_us"].median / found["litellm_us"].median
    learned = found["learned_us"].median / found["litellm_us"].median
    return {
        "prompts": rounds,
        "prompt_chars": PROMPT_CHARS,
        "rungs": len(LADDER),
        **{name: asdict(figures) for name, figures in found.items()},
        "ratio": round(ratio, 4),
        "learned_ratio": round(learned, 4),
        "passed": ratio <= RATIO and found["governor_us"].p99 <= P99_MICROSECONDS and learned <= LEARNED_RATIO,
    }


ROWS = (
    ("estimate + plan, rules", "governor_us"),
    ("estimate + plan, learned", "learned_us"),
    ("LiteLLM complexity scorer", "litellm_us"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=600, help="prompts to decide on (default 600)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    result = measure(rounds)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{rounds} prompts of {PROMPT_CHARS} characters, {len(LADDER)} rungs; microseconds a decision")
        print(f"{'':28}{'median':>10}{'p99':>10}{'mean':>10}")
        for name, key in ROWS:
            row = result[key]
            print(f"{name:28}{row['median']:10.1f}{row['p99']:10.1f}{row['mean']:10.1f}")
        told = f"rules {result['ratio']:.3f} (at most {RATIO}), learned {result['learned_ratio']:.3f}"
        print(f"ratio of medians: {told} (at most {LEARNED_RATIO}): {'pass' if result['passed'] else 'FAIL'}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
