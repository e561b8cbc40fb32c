"""The ladder that records themselves speak of: the rungs that have outcomes enough, cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from governor.errors import LadderError, Problem
from governor.learn.ladder import CostUnit, Ladder
from governor.learn.schema import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """A ladder of the rungs found; `few` are rungs left out, with how many questions have an outcome on them."""

    ladder: Ladder
    few: Mapping[str, int]


def discover(rows: Iterable[Row], records: Path, fewest: int) -> Discovered:
    """Rungs with `fewest` labelled questions or more, in one pass that keeps a few bytes a rung.

    Cheapest by mean USD where every rung's is known, else by mean output tokens, else in the order of their names.
    Raises LadderError where there are no rows, no labels, no texts, or no rung has labels enough.
    """
    seen: dict[str, _Rung] = {}
    texts = False
    for row in rows:
        texts = texts or bool(row.question)
        if row.alone:
            seen.setdefault(row.rung, _Rung()).add(row, fewest)
    kept = {name: rung for name, rung in seen.items() if len(rung.labelled) >= fewest}
    few = {name: len(rung.labelled) for name, rung in sorted(seen.items()) if name not in kept}
    if not kept or not texts:
        raise LadderError(_nothing(few, records, texts, fewest))
    unit: CostUnit = "reported_usd" if all(rung.paid for rung in kept.values()) else "tokens"
    order = sorted(kept, key=lambda name: (*kept[name].cost(unit), name))
    return Discovered(ladder=Ladder(name=records.stem, records=records, rungs=tuple(order), unit=unit), few=few)


@dataclass(slots=True)
class _Rung:
    """Sums over one rung's rows; `labelled` holds at most as many qids as are needed."""

    labelled: set[str] = field(default_factory=set)
    paid: int = 0
    usd: float = 0.0
    measured: int = 0
    tokens: float = 0.0

    def add(self, row: Row, fewest: int) -> None:
        if row.label is not None and len(self.labelled) < fewest:
            self.labelled.add(row.qid)
        if row.cost_usd is not None:
            self.paid += 1
            self.usd += row.cost_usd
        if row.output_tokens is not None:
            self.measured += 1
            self.tokens += row.output_tokens

    def cost(self, unit: CostUnit) -> tuple[bool, float]:
        """Whether the mean is unknown, and the mean: unknown ones sort last."""
        count, total = (self.paid, self.usd) if unit == "reported_usd" else (self.measured, self.tokens)
        return (not count, total / max(count, 1))


def _nothing(few: Mapping[str, int], records: Path, texts: bool, fewest: int) -> Problem:
    if not few and texts:
        return Problem("no row answers its question by itself", str(records))
    if not texts:
        hint = "Governor's own records hold them with records: {prompts: true} in the policy"
        return Problem("no row holds the text of its question, and forecasts are of texts", str(records), hint=hint)
    if not any(few.values()):
        return Problem("no row has a label: 'correct', or a verdict accept or reject", str(records))
    most = max(few, key=lambda name: few[name])
    said = f"too few outcomes: at most {few[most]} questions with a label (rung '{most}'), {fewest} are needed"
    return Problem(said, str(records))
