"""What fitting costs: processor seconds and bytes of the artifact, at 5,000 questions x 10 rungs.

    python -m benchmarks.fit [--questions 5000] [--rungs 10] [--json]

Questions are made of a large vocabulary (800 characters each), so that nearly every bucket is used; whether a rung is
right depends on some of the words. Exit status 1 if it takes over 60 s or the artifact is larger than 5 MB.
Processor seconds are those of all threads together: on one core it takes no longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from governor.estimate.calibration import to_bytes
from governor.learn.fit import fit
from governor.learn.ladder import Ladder
from governor.learn.schema import Row
from governor.learn.tabulate import tabulate

SECONDS = 60.0
BYTES = 5_000_000
WORDS = 120
VOCABULARY = 20_000


def rows(questions: int, rungs: int, seed: int = 0) -> Iterator[Row]:
    """One row per question and rung; words follow Zipf's law, the first hundred say how hard a question is."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, VOCABULARY + 1)
    effect = np.where(np.arange(VOCABULARY) < 100, rng.normal(size=VOCABULARY), 0.0)
    for at in range(questions):
        words = rng.choice(VOCABULARY, WORDS, p=frequency / frequency.sum())
        hard = 0.3 * float(effect[words].sum())
        text = " ".join(f"word{word}" for word in words.tolist())
        for k in range(rungs):
            right = rng.random() < 1.0 / (1.0 + np.exp(hard - 0.4 * k))
            tokens = float(np.exp(rng.normal(5.0 + 0.2 * k + 0.2 * hard, 0.8)))
            yield Row(qid=str(at), rung=f"rung{k}", question=text, correct=float(right), output_tokens=tokens)


def measure(questions: int, rungs: int) -> dict[str, Any]:
    """Processor seconds from table to calibration, of all threads together, and its size."""
    ladder = Ladder(name="made", records=Path("made"), rungs=tuple(f"rung{k}" for k in range(rungs)), unit="tokens")
    table = tabulate(rows(questions, rungs), ladder)
    start = time.process_time()
    found = fit(table)
    seconds = time.process_time() - start
    size = len(to_bytes(found))
    return {
        "questions": questions,
        "rungs": rungs,
        "seconds": round(seconds, 1),
        "bytes": size,
        "buckets_used": round(float((found.text.idf > 0).mean()), 3),
        "trees": len(found.trees.root),
        "passed": seconds <= SECONDS and size <= BYTES,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--rungs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments.questions, arguments.rungs)
    if arguments.json:
        print(json.dumps(result))
    else:
        size = f"{result['questions']:,} questions x {result['rungs']} rungs"
        print(f"{size}: {result['seconds']} processor seconds (at most {SECONDS:g})")
        print(f"{result['bytes'] / 1e6:.2f} MB (at most {BYTES / 1e6:g}), {result['buckets_used']:.0%} of buckets used")
        print("pass" if result["passed"] else "FAIL")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
