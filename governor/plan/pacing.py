"""Pacing a period's budget: a shadow price that rises while spend runs ahead of its pace and falls behind it.

Primal-dual: `mu <- max(0, mu + eta * (spend rate - pace))`, the subgradient step on the budget's Lagrange multiplier
(Balseiro & Gur, Management Science 2019: adaptive pacing). Pure: who calls it says what was spent and when.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from governor.telemetry.codec import recordable


@recordable
@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Where a period's spend stands, and its shadow price `mu` in value per micro-USD (a right answer is worth 1).

    `budget` is the period's micro-USD and `seconds` its length. `profile` states how the spend is meant to be spread:
    a weight for each of any number of equal slices of the period; () is evenly. `eta` is how much mu rises for each
    micro-USD of spend ahead of pace. What is left over, or short, is caught up within `horizon` seconds. `spent` and
    `now` (seconds since the period began) are of the last update. A value of plain numbers: `telemetry.codec` and
    `dataclasses.asdict` write it exactly, so that replicas can share it.
    """

    budget: float
    seconds: float
    eta: float
    horizon: float
    profile: tuple[float, ...] = ()
    mu: float = 0.0
    spent: float = 0.0
    now: float = 0.0

    def __post_init__(self) -> None:
        if not (self.budget > 0 and self.seconds > 0 and self.eta > 0 and self.horizon > 0):
            raise ValueError("budget, seconds, eta and horizon must be positive")
        if self.profile and (min(self.profile) < 0 or sum(self.profile) <= 0):
            raise ValueError("a profile needs weights of 0 or more, not all of them 0")

    @classmethod
    def of(
        cls, budget: float, seconds: float, unit: float, *, profile: Sequence[float] = (), slack: float = 0.02
    ) -> Pacing:
        """A pacing by rules of thumb: `unit` is the micro-USD of a dear step's rung, `slack` a share of the budget.

        Spend that is `slack` ahead of pace raises mu by the price at which such a rung is worth two right answers,
        and deviations are caught up within a fiftieth of the period.
        """
        eta = 2.0 / unit / (slack * budget)
        return cls(budget=budget, seconds=seconds, eta=eta, horizon=seconds / 50, profile=tuple(profile))

    def target(self, now: float) -> float:
        """Micro-USD that the pace allows from the period's start until `now`."""
        return self.budget * _share(self.profile, min(max(now / self.seconds, 0.0), 1.0))

    def after(self, spent: float, now: float) -> Pacing:
        """The pacing once the period's spend is known to be `spent` at `now`; what is older than `self` is ignored."""
        passed = now - self.now
        if passed <= 0:
            return self
        used = spent - self.spent
        pace = self.target(now) - self.target(self.now)
        # Behind pace, more may be spent for a while, and ahead of it less: a lull or a burst is not forgotten.
        pace += (self.target(self.now) - self.spent) * min(passed / self.horizon, 1.0)
        return replace(self, mu=max(0.0, self.mu + self.eta * (used - pace)), spent=spent, now=now)


def daily_profile(arrivals: Sequence[float], slices: int = 24, period: float = 86_400.0) -> tuple[float, ...]:
    """A profile learned from the times (seconds) at which steps came: counts by slice of the period, each plus one."""
    counts = [1.0] * slices
    for at in arrivals:
        counts[int(at % period / period * slices) % slices] += 1.0
    return tuple(counts)


def _share(profile: tuple[float, ...], passed: float) -> float:
    """Share of the budget due once this share of the period has passed: the profile's integral."""
    if not profile:
        return passed
    place = passed * len(profile)
    due = [0.0, *accumulate(profile)]
    whole = min(bisect_right(range(len(profile)), place) - 1, len(profile) - 1)
    return (due[whole] + profile[whole] * (place - whole)) / due[-1]
