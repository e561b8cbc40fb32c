"""Boosted regression trees as flat arrays: served with numpy alone, every tree at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """T trees over N nodes in all. `root` (T,) is each tree's first node, `head` (T,) the rung its value is added to.

    At node n a row goes to `left[n]` if `row[feature[n]] <= threshold[n]`, else to `right[n]`. A leaf points to itself
    and adds `value[n]`. `depth` is the most steps from a root to a leaf; `base` (K,) is where each sum begins.
    """

    root: Ints
    head: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    depth: int
    base: Floats

    def sums(self, row: Floats) -> Floats:
        """Sum of the leaves that one row (F,) reaches, per rung (K,)."""
        node = self.root
        for _ in range(self.depth):
            node = np.where(row[self.feature[node]] <= self.threshold[node], self.left[node], self.right[node])
        total: Floats = self.base + np.bincount(self.head, self.value[node], len(self.base))
        return total

    def many(self, rows: Floats, shares: Sequence[float] = (1.0,)) -> Floats:
        """`sums` of every row of (Q, F) by the first `shares` of each rung's trees: (len(shares), Q, K)."""
        node = np.broadcast_to(self.root, (len(rows), len(self.root)))
        for _ in range(self.depth):
            reached = np.take_along_axis(rows, self.feature[node], axis=1)
            node = np.where(reached <= self.threshold[node], self.left[node], self.right[node])
        total = np.broadcast_to(self.base, (len(shares), len(rows), len(self.base))).copy()
        for rung in range(len(self.base)):
            grown = self.value[node[:, self.head == rung]].cumsum(axis=1)
            for at, share in enumerate(shares):
                if last := round(share * grown.shape[1]):
                    total[at, :, rung] += grown[:, last - 1]
        return total
