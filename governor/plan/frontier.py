"""The dial by a measured frontier: mixtures of two neighbouring prices, tossed by a stable hash of the step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from governor.estimate.calibration import Frontier
from governor.estimate.curves import Floats
from governor.plan.dial import DIAL, price_at
from governor.protocols import Situation, Terms


@dataclass(frozen=True, slots=True, eq=False)
class FrontierPrices:
    """Prices (governor.plan.dial) along a held-out frontier.

    Dial 0 is its most accurate point and 1 its cheapest; between them the dial runs evenly along the curve, cost and
    quality counted alike, so that every notch moves one of them. `keep` is the cheapest point whose quality is surely
    that share of the best fixed rung's, and the most accurate one where none is. Between two vertices a step draws one
    of their prices, so that on average the point between them is met: where forecasts know nothing, that mixes fixed
    rungs along their hull.
    """

    frontier: Frontier

    def price(self, terms: Terms, situation: Situation, unit: float) -> float:
        """Lambda for this step in value per `unit` of cost (what its dearest rung is expected to cost)."""
        known = self.frontier
        if not len(known.price):
            return price_at(DIAL if terms.dial is None else terms.dial)
        place = self._keeping(terms.keep) if terms.keep is not None else _turned(known, terms.dial or 0.0)
        at = min(int(place), len(known.price) - 1)
        dearer, cheaper = known.price[at], known.price[min(at + 1, len(known.price) - 1)]
        price = float(cheaper if _toss(situation.step.id) < place - at else dearer)
        return price * unit / known.unit if known.unit > 0 else price

    def dial_keeping(self, keep: float) -> float:
        """The dial at which `keep` is met: where on the way from the most accurate point to the cheapest it stands."""
        along = _length(self.frontier)
        if along[-1] <= 0.0:
            return 0.0
        return float(np.interp(self._keeping(keep), np.arange(len(along)), along) / along[-1])

    def _keeping(self, keep: float) -> float:
        """Position, dear to cheap, of the last point that surely keeps `keep`, none dearer than the best fixed rung."""
        sure, cost = self.frontier.surely, self.frontier.cost
        first = _place(1.0 - cost, 0.0) if cost[0] > 1.0 else 0.0
        kept = np.minimum.accumulate(sure) >= keep
        if not kept.any():
            return first
        last = int(np.flatnonzero(kept)[-1])
        if last == len(sure) - 1:
            return float(last)
        return max(first, last + float((sure[last] - keep) / max(sure[last] - sure[last + 1], 1e-12)))


def way(cost: Floats, quality: Floats) -> Floats:
    """How far each vertex of a curve (V,) is from its first one: cost and quality count alike, each by its range."""
    steps = np.abs(np.diff(cost)) / (np.ptp(cost) or 1.0) + np.abs(np.diff(quality)) / (np.ptp(quality) or 1.0)
    result: Floats = np.concatenate(([0.0], np.cumsum(steps)))
    return result


@lru_cache(maxsize=64)
def _length(known: Frontier) -> Floats:
    """Way along the curve from its most accurate point to each vertex."""
    return way(known.cost, known.quality)


@lru_cache(maxsize=1024)  # dials are few, and the same at every step
def _turned(known: Frontier, dial: float) -> float:
    """Position, dear to cheap, of a dial."""
    along = _length(known)
    return _place(along, dial * along[-1])


def _place(along: Floats, wanted: float) -> float:
    """Position at which a rising sequence reaches a value."""
    return float(np.interp(wanted, along, np.arange(len(along)))) if len(along) > 1 else 0.0


def _toss(step_id: str) -> float:
    """A number in [0, 1) that depends on the step alone."""
    digest = blake2b(step_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
