"""Where nobody judges answers: one answer ships, or two are compared and, as they agree or not, a third is asked for.

Given what records taught of each comparison (`governor.estimate.agreement`), the best of these plans is found by
dynamic programming over its three stages, at many prices at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.agreement import Pairs
from governor.estimate.curves import Floats
from governor.plan.odds import TIE

Flags = npt.NDArray[np.bool_]

NONE = -1
_DEAREST = 1e12  # stands for an infinite price: costs of nothing stay nothing


@dataclass(frozen=True, slots=True)
class Course:
    """A plan by positions on the ladder: `first` is asked, `second` compared with it (NONE: the first one ships).

    `thirds` are asked once these two differ, or are equal (NONE: the better of them ships).
    """

    first: int
    second: int = NONE
    thirds: tuple[int, int] = (NONE, NONE)


@dataclass(frozen=True, slots=True)
class Move:
    """The next rung, what asking it is worth from here, and what stopping is."""

    rung: int
    worth: float
    stop: float

    @property
    def pays(self) -> bool:
        """Whether asking is worth more than stopping."""
        return self.worth > self.stop + TIE


@dataclass(frozen=True, slots=True, eq=False)
class Prospects:
    """What may come of comparing, at D prices: of K rungs, `answered` (K,) is P(right) as a value less harm.

    `spent` (K, D) is what asking costs in value, `held` (2, K, K) the better of two compared answers, and `third`
    (2, K, K, K, D) one more in their place, -inf where it may not be asked. `pair` (K, K, D) is two in all.
    """

    answered: Floats
    spent: Floats
    held: Floats
    third: Floats
    pair: Floats

    @classmethod
    def of(
        cls, pairs: Pairs, costs: Floats, prices: Floats, harm: float, allowed: Flags, thirds: Flags, left: int
    ) -> Prospects:
        """`costs` (K,) are in the unit that `prices` (D,) are of.

        `allowed` (K, K) says what may be compared with what, `thirds` (K,) what may be asked after a comparison, and
        `left` how many attempts there are in all.
        """
        spent = costs[:, None] * np.minimum(prices, _DEAREST)
        after = _value(pairs.after, harm)
        held = np.maximum(np.einsum("vijj->vij", after), np.einsum("viji->vij", after))
        third = after[..., None] - spent
        rungs = np.arange(len(costs))
        third[:, rungs, :, rungs] = -np.inf
        third[:, :, rungs, rungs] = -np.inf
        third[:, :, :, ~(thirds & (left > 2))] = -np.inf
        best = np.maximum(held[..., None], third.max(axis=3))
        unknown = np.isnan(pairs.equal)
        equal = np.where(unknown, 0.0, pairs.equal)[..., None]
        pair = (1.0 - equal) * best[0] + equal * best[1] - spent[:, None] - spent[None, :]
        pair[~(allowed & (left > 1)) | unknown] = -np.inf
        return cls(_value(pairs.p, harm), spent, held, third, pair)

    def course(self, at: int = 0, first: Flags | None = None) -> Course:
        """The best plan at one of the prices; `first` (K,) says which rungs may begin."""
        single = self.answered - self.spent[:, at]
        paired = self.pair[..., at].max(axis=1)
        worth = np.maximum(single, paired)
        if first is not None:
            worth = np.where(first, worth, -np.inf)
        begun = int(worth.argmax())
        move = self.second(begun, at)
        if not move.pays:
            return Course(begun)
        thirds = [self.after(begun, move.rung, equal=equal, at=at) for equal in (False, True)]
        return Course(begun, move.rung, (_taken(thirds[0]), _taken(thirds[1])))

    def second(self, first: int, at: int = 0) -> Move:
        """What to compare the first answer with."""
        worth = self.pair[first, :, at] + self.spent[first, at]
        rung = int(worth.argmax())
        return Move(rung, float(worth[rung]), float(self.answered[first]))

    def after(self, first: int, second: int, *, equal: bool, at: int = 0) -> Move:
        """What to ask once two answers were compared."""
        worth = self.third[int(equal), first, second, :, at]
        rung = int(worth.argmax())
        return Move(rung, float(worth[rung]), float(self.held[int(equal), first, second]))


def _value(p: Floats, harm: float) -> Floats:
    return p if harm == 0.0 else (1.0 + harm) * p - harm


def _taken(move: Move) -> int:
    return move.rung if move.pays else NONE
