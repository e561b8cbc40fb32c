"""What a router may be judged by: labels and costs of every question on every rung.

Shapes: Q questions, K rungs, S samples, D dials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.learn.frontier import hull
from governor.learn.intervals import Spread
from governor.learn.ladder import Ladder
from governor.learn.table import Table

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Labels and costs: `correct` (0 or 1) and `cost` are (Q, K, S), NaN where nothing is recorded.

    `known` (Q, K) is the part of the cost that the question's text gives away; `last` (Q, K, S) marks thoughts that
    ended by themselves, after which a continuing ladder has no higher rung. `look` is what each earlier look at a
    continuing thought costs, None on ladders whose rungs start afresh.
    """

    texts: tuple[str, ...]
    correct: Floats
    cost: Floats
    known: Floats
    last: npt.NDArray[np.bool_]
    look: float | None = None

    @classmethod
    def of(cls, table: Table, ladder: Ladder) -> Outcomes:
        """From records whose labels are strict already (0 or 1, drawn where they were fractions)."""
        return cls(
            texts=table.questions,
            correct=table.correct,
            cost=table.cost,
            known=known_cost(table, ladder),
            last=table.finished if ladder.continues else np.zeros(table.correct.shape, dtype=np.bool_),
            look=1.0 if ladder.continues else None,
        )

    @property
    def accuracy(self) -> Floats:
        """Mean over samples, (Q, K)."""
        return over_samples(self.correct)

    @property
    def paid(self) -> Floats:
        """Mean cost over samples, (Q, K)."""
        return over_samples(self.cost)

    def best(self, rows: Rows) -> int:
        """Position of the best fixed rung on these questions, ties to the cheaper."""
        accuracy, cost = self._means(rows)
        return int(np.lexsort((cost, -accuracy))[0])

    def unit(self, rows: Rows) -> float:
        """Mean cost of the best fixed rung on these questions; 1 where it is free."""
        return float(self._means(rows)[1][self.best(rows)]) or 1.0

    def hull_rungs(self, rows: Rows) -> Rows:
        """Positions of the rungs on the hull of these questions, cheapest first."""
        accuracy, cost = self._means(rows)
        curve = hull(cost, accuracy)
        vertices = zip(curve.cost, curve.accuracy, strict=True)
        at = [int(np.flatnonzero((cost == x) & (accuracy == y))[0]) for x, y in vertices]
        return np.array(at, dtype=np.intp)

    def taken(self, chosen: Rows) -> Spread:
        """Cost and accuracy of the chosen rungs, (D, Q)."""
        at = np.arange(chosen.shape[1])
        return Spread(self.paid[at, chosen], self.accuracy[at, chosen])

    def _means(self, rows: Rows) -> tuple[Floats, Floats]:
        return np.nanmean(self.accuracy[rows], axis=0), np.nanmean(self.paid[rows], axis=0)


def known_cost(table: Table, ladder: Ladder) -> Floats:
    """USD of the input alone, a token being four characters, (Q, K); 0 on ladders of any other unit."""
    if ladder.unit != "usd":
        return np.zeros(table.correct.shape[:2])
    tokens = np.array([len(text) / 4.0 for text in table.questions])
    prices = np.array([ladder.costs[rung].input_per_million for rung in table.rungs])
    return np.outer(tokens, prices / 1e6)


def over_samples(figures: Floats) -> Floats:
    """Mean over the recorded samples of (Q, K, S): (Q, K), NaN where there is none."""
    seen = np.isfinite(figures)
    total = np.where(seen, figures, 0.0).sum(axis=2)
    counted = seen.sum(axis=2)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
