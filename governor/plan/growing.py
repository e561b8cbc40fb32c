"""Budgets of one thought: whether to go on thinking, by backward induction over the looks that are still to come.

A look's score falls into one of B bins; what later looks will show follows a Markov chain between bins that was
counted on records. Two steps of lookahead are too few here: what a longer thought is worth shows many looks later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.chain import Look


@dataclass(frozen=True, slots=True)
class Prospect:
    """`stop` is the value of the answer in hand, `go` that of thinking on and stopping at the best time later."""

    stop: float
    go: float

    @property
    def pays(self) -> bool:
        return self.go > self.stop


def prospect(look: Look, price: float, harm: float) -> Prospect:
    """The optimal stopping values after a look.

    `price` is the value of the tokens of a whole thought, `harm` the loss of a wrong answer that ships (abstaining is
    worth 0). At the last look there is nothing to go on to.
    """
    chain, right, number = look.chain, look.right, look.number
    cost = price / chain.whole * chain.more
    stop = np.maximum((1.0 + harm) * right - harm, 0.0)
    value, go = stop[-1], np.full(right.shape[1], -np.inf)
    for at in range(len(right) - 2, number - 1, -1):
        go = chain.next[at] @ value - cost[at]
        value = chain.ends[at] * stop[at] + (1.0 - chain.ends[at]) * np.maximum(stop[at], go)
    return Prospect(float(stop[number, look.bin]), float(go[look.bin]))
