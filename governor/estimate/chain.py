"""What looks at a growing thought showed on records: scores in bins, and how they move from one budget to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.protocols import Situation


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """K looks in B bins of the standardised score (`governor.estimate.calibration.Scores`).

    `edges` (K, B - 1) part the bins, `right` (K, B) is P(correct | bin), `next` (K - 1, B, B) P(bin of the next look |
    bin) and `more` (K - 1, B) the tokens that getting there adds, both of thoughts that had not ended; `ends` (K, B) is
    P(the thought has ended by itself | bin). `order` (K,) are the rungs' places in the calibration, budgets rising, and
    `whole` the mean tokens of the last budget.
    """

    edges: Floats
    right: Floats
    next: Floats
    more: Floats
    ends: Floats
    order: npt.NDArray[np.int32]
    whole: float

    def bin_of(self, look: int, z: float) -> int:
        """The bin of a standardised score."""
        return int(np.searchsorted(self.edges[look], z, side="right"))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Where a thought stands: the last look's number and bin, and P(correct | bin) on this step, (K, B)."""

    chain: Chain
    number: int
    bin: int
    right: Floats


def look_of(belief: object, situation: Situation) -> Look | None:
    """Where a growing thought stands, as far as the belief knows."""
    known: Callable[[Situation], Look | None] | None = getattr(belief, "look", None)
    return None if known is None else known(situation)
