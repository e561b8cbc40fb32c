"""A ladder file: which rungs of which records are compared, what they cost, and how their answers are verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CostUnit = Literal["tokens", "usd", "weight", "reported_usd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RungCost:
    """What one rung costs: a constant `weight`, or USD per million tokens (and tokens assumed where they are hidden)."""

    weight: float | None = None
    input_per_million: float = 0.0
    output_per_million: float = 0.0
    assumed_output_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """How recorded answers are verified.

    `none`; `perfect` (the label itself); `simulated` by `sensitivity` P(accept | correct) and `false_accept`
    P(accept | wrong); `score` (the row's `field`, calibrated on training folds only); `agreement` of two samples.
    `cost` per verdict, in the ladder's unit.
    """

    kind: Literal["none", "perfect", "simulated", "score", "agreement"] = "none"
    sensitivity: float = 1.0
    false_accept: float = 1.0
    field: str = ""
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What is measured: rungs in the file's order (which means nothing: cost decides)."""

    name: str
    records: Path
    rungs: tuple[str, ...]
    unit: CostUnit
    costs: Mapping[str, RungCost] = field(default_factory=dict)
    correct_at_least: float | None = None
    continues: bool = False
    checking: Checking = Checking()
    drop: str = ""
    harm: float = 0.0
