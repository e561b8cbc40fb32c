"""Do outcomes still agree with what was expected of them? A test that may be looked at after every outcome.

Testing by betting: money is staked against the claim at odds that are fair if it holds. As long as it holds, nobody
gets rich: P(wealth ever reaches 1 / delta) <= delta, however often one looks (Ville 1939, "Étude critique de la notion
de collectif"). The bets are those of Waudby-Smith & Ramdas (2023), "Estimating means of bounded random variables by
betting", JRSS-B 86(1), arXiv 2010.09686, section 4, spread over a fixed grid. So that years of good outcomes do not
hide a late change, money also enters play later and later: a mixture over starting times, as in Shin, Ramdas & Rinaldo
(2023), "E-detectors", arXiv 2203.03532, with weights that sum to one, which keeps Ville's bound for all time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_BETS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)  # how far from `expected` to 1 (or 0) the truth is guessed to lie
_SIDES = 4  # bets of the two-sided form: outcomes higher, lower, nearer to one half, further from it
_FLOOR = 1e-3  # an `expected` below it is tested as if it were it: odds stay finite, and the claim is only weakened
_CEILING = 1e300  # wealth beyond it is given away, which no bound minds


@dataclass(frozen=True, slots=True)
class Wealth:
    """What betting against a claim has made of 1. Made by `one_sided` or `two_sided`.

    `stakes` is the money in play per bet, `peak` the most that `value` ever was.
    """

    stakes: tuple[float, ...]
    outcomes: int = 0
    peak: float = 1.0

    @classmethod
    def one_sided(cls) -> Wealth:
        """Against E[outcome | past] <= expected: for a realised risk and the level it must not pass."""
        return cls((0.0,) * len(_BETS))

    @classmethod
    def two_sided(cls) -> Wealth:
        """Against E[outcome | past] = expected: for outcomes and the probabilities that were forecast for them.

        Also grows where forecasts are right on average but too sure, or not sure enough, of themselves.
        """
        return cls((0.0,) * (len(_BETS) * _SIDES))

    @property
    def value(self) -> float:
        """The e-value now: expected to be at most 1 if the claim holds."""
        return math.fsum(self.stakes) + _reserve(self.outcomes)

    def after(self, outcome: float, expected: float) -> Wealth:
        """The wealth after one more outcome; ValueError unless both lie between 0 and 1.

        `expected` must have been fixed before the outcome was known. It may differ from outcome to outcome.
        """
        if not (0.0 <= outcome <= 1.0 and 0.0 <= expected <= 1.0):
            raise ValueError(f"outcome and expected must lie between 0 and 1, not {outcome} and {expected}")
        fresh = (_reserve(self.outcomes) - _reserve(self.outcomes + 1)) / len(self.stakes)
        gains = [1.0 - bet + bet * odds for odds in self._odds(outcome, expected) for bet in _BETS]
        stakes = tuple(min((stake + fresh) * gain, _CEILING) for stake, gain in zip(self.stakes, gains, strict=True))
        value = math.fsum(stakes) + _reserve(self.outcomes + 1)
        return Wealth(stakes, self.outcomes + 1, max(self.peak, value))

    def alarmed(self, delta: float) -> bool:
        """Whether the wealth has ever reached 1 / delta; P(this ever happens though the claim holds) <= delta."""
        return self.peak >= 1.0 / delta

    def to_floats(self) -> tuple[float, ...]:
        """The whole state: 8 floats one-sided, 26 two-sided."""
        return (float(self.outcomes), self.peak, *self.stakes)

    @classmethod
    def from_floats(cls, state: Sequence[float]) -> Wealth:
        """What `to_floats` gave; ValueError if these can't be that."""
        one, both = len(_BETS), len(_BETS) * _SIDES
        if len(state) - 2 not in (one, both) or not all(0.0 <= number < math.inf for number in state):
            raise ValueError(f"{len(state)} numbers that are not the state of a wealth")
        outcomes, peak, *stakes = state
        if not outcomes.is_integer() or peak < 1.0:
            raise ValueError(f"{outcomes} outcomes and a peak of {peak} are not the state of a wealth")
        return cls(tuple(stakes), int(outcomes), peak)

    def _odds(self, outcome: float, expected: float) -> tuple[float, ...]:
        """What one unit staked on each side pays; its expectation is at most 1 if the claim holds."""
        higher = outcome / max(expected, _FLOOR)
        if len(self.stakes) == len(_BETS):
            return (higher,)
        lower = (1.0 - outcome) / max(1.0 - expected, _FLOOR)
        if expected == 0.5:  # no side is nearer to one half
            return (higher, lower, 1.0, 1.0)
        return (higher, lower, higher, lower) if expected < 0.5 else (higher, lower, lower, higher)


def _reserve(outcomes: int) -> float:
    """Money not yet in play after so many outcomes. It falls so slowly that a late change costs few outcomes more."""
    return 1.0 / math.log2(outcomes + 2)
