"""Tables and ladders made up for tests, and a forecaster that reads what their texts say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from governor.estimate.latent import LatentBelief, normal_weights
from governor.learn.certify import group_digest
from governor.learn.costs import Costs, Priced
from governor.learn.forecaster import Parts
from governor.learn.ladder import Checking, Ladder, RungCost
from governor.learn.table import Table
from governor.plan.dial import price_at
from governor.protocols import Situation, Terms
from governor.records import Step

LOW, HIGH = "low", "high"


def ladder_of(*rungs: str, checking: Checking | None = None, **more: Any) -> Ladder:
    names = rungs or (LOW, HIGH)
    costs = {rung: RungCost(weight=10.0**at) for at, rung in enumerate(names)}
    told: dict[str, Any] = {"unit": "weight", "costs": costs, "checking": checking or Checking()}
    return Ladder(name="made", records=Path("rows.jsonl"), rungs=names, **(told | more))


def table_of(correct: Any, cost: Any = None, **more: Any) -> Table:
    """Of labels (Q, K) or (Q, K, S); costs (K,) or of the labels' shape, 1, 10, 100, ... unless given."""
    labels = np.array(correct, dtype=np.float64)
    labels = labels[:, :, None] if labels.ndim == 2 else labels
    questions, rungs, samples = labels.shape
    paid = np.array([10.0**at for at in range(rungs)] if cost is None else cost, dtype=np.float64)
    paid = paid[:, None] if paid.ndim == 1 else paid.reshape(labels.shape)
    texts = tuple(f"question number {at}" for at in range(questions))
    told: dict[str, Any] = {
        "qids": tuple(f"q{at}" for at in range(questions)),
        "questions": texts,
        "nodes": ("default",) * questions,
        "groups": texts,
        "rungs": (LOW, HIGH) if rungs == 2 else tuple(f"r{at}" for at in range(rungs)),
        "samples": ("",) if samples == 1 else tuple(map(str, range(samples))),
        "correct": labels,
        "drawn_from": np.where(np.isnan(labels), np.nan, 1.0),
        "output_tokens": np.full(labels.shape, np.nan),
        "cost": np.where(np.isnan(labels), np.nan, np.broadcast_to(paid, labels.shape)),
        "score": np.full(labels.shape, np.nan),
        "finished": np.ones(labels.shape, dtype=np.bool_),
        "answers": np.full(labels.shape, None, dtype=np.object_),
    }
    return replace(Table(**told), **more)


def told_by_words(questions: int = 120, seed: int = 0, samples: int = 1) -> Table:
    """`low` fails what its text calls hard; `high` is right nine times of ten."""
    rng = np.random.default_rng(seed)
    hard = rng.random(questions) < 0.5
    low = np.repeat(~hard[:, None], samples, axis=1)
    high = rng.random((questions, samples)) < 0.9
    texts = tuple(f"{'prove' if one else 'copy'} item {at}" for at, one in enumerate(hard.tolist()))
    return table_of(np.stack([low, high], axis=1).astype(float), questions=texts, groups=texts)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Difficulty from the first word; the prior curves of a ladder do the rest."""

    hard: float
    easy: float

    def estimate(self, step: Step, terms: Terms) -> LatentBelief:
        mean = self.hard if step.prompt.startswith("prove") else self.easy
        found = LatentBelief.normal(mean, 0.3, terms)
        return replace(found, weights=normal_weights(mean, 0.3))


@dataclass(frozen=True, slots=True)
class ByHand:
    """Prices as set by hand; whatever is to be kept, a little thrift is thought to keep it."""

    def price(self, terms: Terms, situation: Situation, unit: float) -> float:
        del situation, unit
        return price_at(0.1 if terms.dial is None else terms.dial)


@dataclass(frozen=True, slots=True)
class Words:
    """A Forecaster that is told by words (`blind`: sees no difference), and remembers the groups it was fitted on."""

    blind: bool = False

    def fit(self, table: Table, ladder: Ladder, *, seed: int) -> Parts:
        del seed
        reader = _Reader(0.0, 0.0) if self.blind else _Reader(1.5, -2.5)
        fitted_on = frozenset(map(group_digest, table.groups))
        return Parts(Priced(reader, table.rungs, Costs.of(table, ladder)), ByHand(), fitted_on)
