"""What the earlier steps of a session say about the next: its work is harder, or easier, than it looks.

A step's difficulty is `d = h + e`: a part h that its session shares, with prior N(0, SHARED^2), and a part of its own.
What a step's verdicts move d by, they move h by in proportion of their variances (the regression of h on d),
and the evidence fades with every step, because a session's topic does. One scale serves rules and learned forecasts:
of a learned belief, d ~ N(0, 1) is what its forecast left open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from governor.errors import LedgerError
from governor.estimate.curves import GRID, Floats
from governor.estimate.learned import NODES

SHARED = 0.5
"""Standard deviation, over sessions, of what a session's steps share, on the latent scale of difficulty."""

KEPT = 0.85
"""Share of the evidence that is left after one further step."""


@dataclass(frozen=True, slots=True)
class SessionEffect:
    """Evidence about a session in natural parameters, so that what replicas saw adds up.

    `precision` and `pull` (precision x centre) are added to the prior's; without evidence both are 0.
    """

    precision: float = 0.0
    pull: float = 0.0

    @property
    def variance(self) -> float:
        """Posterior variance of the shift of difficulty, in squared latent units."""
        return 1.0 / (1.0 / SHARED**2 + self.precision)

    @property
    def mean(self) -> float:
        """Posterior mean of the shift of difficulty; positive means harder than it looks."""
        return self.pull * self.variance

    def applied(self, mean: float, sd: float) -> tuple[float, float]:
        """A step's mean and standard deviation on the latent scale, given its session.

        The standard deviation without a session is taken to hold SHARED^2, of which what was learned is taken off.
        """
        own = max(sd * sd - SHARED**2, 0.25 * sd * sd)
        return mean + self.mean, (own + min(self.variance, sd * sd - own)) ** 0.5

    def shifted(self, weights: Floats) -> Floats:
        """Weights over GRID or over NODES moved by `mean`; those of another grid are left as they are.

        A standard normal moved by m has exp(m d - m^2 / 2) times its density at d: the nodes can stay where they are.
        """
        points = _points(weights)
        if self.pull == 0.0 or points is None:
            return weights
        mean = self.mean
        tilted = points is not GRID
        moved: Floats = weights * np.exp(mean * points) if tilted else np.interp(GRID - mean, GRID, weights)
        moved /= moved.sum()
        moved.setflags(write=False)
        return moved

    def after(self, before: Floats, posterior: Floats) -> SessionEffect:
        """With a step whose weights over GRID or NODES were `before` its verdicts and `posterior` after them."""
        points = _points(before)
        if points is None:
            return self
        mean, variance = _moments(before, points)
        moved, narrowed = _moments(posterior, points)
        share = min(self.variance / max(variance, 1e-9), 1.0)
        left = self.variance - share * share * min(max(variance - narrowed, 0.0), variance)
        centre = self.mean + share * (moved - mean)
        precision = 1.0 / max(left, 1e-3) - 1.0 / SHARED**2
        return SessionEffect(precision, centre * (precision + 1.0 / SHARED**2))

    def faded(self, steps: int = 1) -> SessionEffect:
        """As it counts so many steps later."""
        return SessionEffect(self.precision * KEPT**steps, self.pull * KEPT**steps)

    def plus(self, other: SessionEffect) -> SessionEffect:
        """Both together."""
        return SessionEffect(self.precision + other.precision, self.pull + other.pull)

    def minus(self, other: SessionEffect) -> SessionEffect:
        """What this one has more than the other."""
        return SessionEffect(self.precision - other.precision, self.pull - other.pull)

    def to_bytes(self) -> bytes:
        """For a shelf."""
        return json.dumps([self.precision, self.pull]).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> SessionEffect:
        """What `to_bytes` gave; LedgerError for anything else."""
        try:
            precision, pull = json.loads(value)
            found = cls(float(precision), float(pull))
        except (ValueError, TypeError) as cause:
            raise LedgerError(f"a session's shared state can't be read: {value[:40]!r}") from cause
        if not (np.isfinite(found.pull) and np.isfinite(found.precision)):
            raise LedgerError(f"a session's shared state is no number: {value[:40]!r}")
        return found


def _points(weights: Floats) -> Floats | None:
    """The difficulties that the weights stand on, told by their number."""
    return _GRIDS.get(weights.size)


def _moments(weights: Floats, points: Floats) -> tuple[float, float]:
    mean = float(points @ weights)
    return mean, float((points - mean) ** 2 @ weights)


_GRIDS: dict[int, Floats] = {GRID.size: GRID, NODES.size: NODES}
