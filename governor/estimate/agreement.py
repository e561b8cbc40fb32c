"""What it tells that two answers are equal, or differ, where nobody judges them: learned from recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.protocols import Situation
from governor.records import COMPARISONS, Attempt

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Coefficients of log-odds for every two of K rungs; on the diagonal for two samples of one rung.

    Both are of (1, o), o (K,) being all rungs' log-odds of a right answer before any call. `equal` (K, K, K + 1) gives
    P(rungs i and j answer alike), NaN where answers were not recorded; `shift` (2, K, K, K, K + 1) is added to the
    log-odds of rung k once i and j differ (0) or are equal (1): zeros where that tells nothing.
    """

    equal: Singles
    shift: Singles


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One step's forecasts of rungs (K,) and of comparisons.

    `p` is P(right), `equal` (K, K) P(answers are equal), NaN where unknown, and `after` (2, K, K, K) P(rung k is
    right | i and j differ, or are equal).
    """

    p: Floats
    equal: Floats
    after: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first two answers that were compared, by their rungs' ids, and whether they are equal."""

    first: str
    second: str
    equal: bool


def comparison(attempts: Sequence[Attempt]) -> Comparison | None:
    """The first comparison that came to something. Those after it are of answers that were asked for because of it."""
    standing = ""
    for attempt in attempts:
        score = attempt.verdict.score if attempt.verdict is not None else None
        if attempt.mode in COMPARISONS and standing and score is not None:
            return Comparison(standing, attempt.rung.id, score >= 0.5)
        if attempt.shippable:
            standing = attempt.rung.id
    return None


def pairs_for(known: Agreement, places: Sequence[int], odds: Floats) -> Pairs:
    """What is expected of the rungs at these places; `odds` are the log-odds of all rungs of the calibration."""
    at = np.asarray(places)
    seen = np.concatenate([np.ones(1), odds])
    alike = known.equal[at[:, None], at] @ seen
    moved = odds[at] + known.shift[:, at[:, None, None], at[:, None], at] @ seen
    return Pairs(_sigmoid(odds[at]), _sigmoid(alike), _sigmoid(moved))


def untold(odds: Floats) -> Pairs:
    """Of rungs with log-odds `odds` (K,), where comparing tells nothing and is not worth a call."""
    p, rungs = _sigmoid(odds), len(odds)
    return Pairs(p, np.full((rungs, rungs), np.nan), np.broadcast_to(p, (2, rungs, rungs, rungs)))


def odds_after(known: Agreement, places: Sequence[int], odds: Floats, first: int, second: int, equal: bool) -> Floats:
    """Log-odds of the rungs at these places once the first and the second of the calibration's were compared."""
    shift = known.shift[int(equal), first, second, list(places)]
    result: Floats = odds[list(places)] + shift @ np.concatenate([np.ones(1), odds])
    return result


def pairs_of(belief: object, situation: Situation) -> Pairs | None:
    """What a belief expects of comparisons where nobody judges answers, as far as it knows."""
    known: Callable[[Situation], Pairs | None] | None = getattr(belief, "pairs", None)
    return None if known is None or situation.verified else known(situation)


def _sigmoid(odds: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-odds))
    return result
