"""A small calibration fitted on made-up records, and certificates: what tests of a learning governor load."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from governor.estimate.calibration import Calibration, Frontier
from governor.learn.binomial import upper_bound
from governor.learn.certificate import Certificate, certificates_to_json, file_digest, policy_digest
from governor.learn.fit import fit
from governor.learn.table import Table
from governor.policy import load_policy

LADDER = """
ladder:
  - {id: low, model: m/small, answer_tokens: 100, price: {input: 1, output: 2}}
  - {id: high, model: m/large, answer_tokens: 100, price: {input: 5, output: 10}}
"""
HEAD = "version: 1\napp: desk\nledger: sqlite:///LEDGER\n" + LADDER
EASY, HARD = "Tell of the blue box at home", "Tell of the green cup at work"  # all alike to rules
WORDS = [a + b for a in ("ba", "co", "di", "fu", "ge", "ha", "ji", "ko") for b in ("lan", "mir", "not", "pex", "rud")]


def fitted() -> Calibration:
    """low is right on easy questions only, high nearly always; verdicts at node `default`; a frontier set by hand."""
    frontier = Frontier(
        price=np.array([0.0, 0.5, 20.0]),
        cost=np.array([1.0, 0.6, 0.1]),
        quality=np.array([1.0, 0.97, 0.55]),
        surely=np.array([0.99, 0.95, 0.5]),
        unit=450.0,  # micro-USD of a call on high
    )
    return replace(fit(records()), frontier=frontier)


def records(questions: int = 200, seed: int = 0) -> Table:
    """Two rungs, one sample; a verifier accepts 9 of 10 right and 2 of 10 wrong answers."""
    rng = np.random.default_rng(seed)
    hard = rng.random(questions) < 0.5
    likely = np.stack([np.where(hard, 0.05, 0.97), np.full(questions, 0.95)], axis=1)[:, :, None]
    correct = (rng.random(likely.shape) < likely).astype(float)
    unknown = np.full(correct.shape, np.nan)
    return Table(
        qids=tuple(f"q{at}" for at in range(questions)),
        questions=tuple(prompt(HARD if is_hard else EASY, rng) for is_hard in hard.tolist()),
        nodes=("default",) * questions,
        groups=tuple(f"g{at}" for at in range(questions)),
        rungs=("low", "high"),
        samples=("",),
        correct=correct,
        drawn_from=unknown,
        output_tokens=40.0 * rng.lognormal(0.0, 0.2, correct.shape),
        cost=np.broadcast_to(np.array([1e-4, 1e-3])[:, None], correct.shape).copy(),
        score=unknown,
        finished=np.ones(correct.shape, dtype=np.bool_),
        answers=np.full(correct.shape, None, dtype=object),
        verdict=(rng.random(correct.shape) < np.where(correct > 0, 0.9, 0.2)).astype(float),
    )


def prompt(kind: str, rng: np.random.Generator) -> str:
    """A question of this kind about a few random words."""
    return f"{kind}: {' '.join(rng.choice(WORDS, 8).tolist())}"


def certify(folder: Path, policy: str, *, dial: float = 0.5) -> Path:
    """A certificate of dials up to `dial` for a policy file beside it and the calibration it names."""
    made = load_policy(folder / policy)
    calibration = made.file_of("calibration")
    certificate = Certificate(
        name="desk",
        kind="accepted-wrong",
        risk=0.05,
        delta=0.05,
        dial=dial,
        dials=tuple(tenth / 10 for tenth in range(11) if tenth / 10 <= dial),
        n=500,
        failures=10,
        bound=upper_bound(10, 500, 0.05),
        policy=policy_digest(made),
        calibration=file_digest(calibration) if calibration else "",
        records="d" * 64,
        created=datetime(2026, 11, 21, tzinfo=UTC),
    )
    path = folder / "certificate.json"
    path.write_text(certificates_to_json([certificate]), encoding="utf-8")
    return path
