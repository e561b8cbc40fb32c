"""Whether memory is flat: the line through the second half of what was sampled, and how sure its slope is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 20
"""Means of so many equal parts are what the line goes through: single samples hang together, and would seem sure."""
STUDENT = 2.101
"""97.5 % quantile of Student's t with BLOCKS - 2 degrees of freedom."""
MOST_SHARE = 0.02
"""Of the mean: growth of the second half, beyond the bare proxy's, that still counts as flat."""
JUDGED_FROM = 600.0
"""Seconds of load from which memory is judged: in less, caches still fill."""

Sample = tuple[float, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Growth:
    """MiB by which memory grew over the second half: the estimate and its 95 % interval; `mean` is what it was."""

    mean: float
    estimate: float
    low: float
    high: float

    def flat(self, beside: Growth) -> bool:
        """Whether the interval of `beside`, the growth beyond the bare proxy's, ends below what counts as flat."""
        return beside.high <= MOST_SHARE * self.mean

    @property
    def told(self) -> str:
        return f"{self.estimate:+.1f} MiB ({self.low:+.1f} to {self.high:+.1f})"


def grown(samples: Sequence[Sample], name: str, beyond: str = "") -> Growth:
    """Of one process, or beyond what another grew at the same moments. Needs 2 * BLOCKS samples of the second half."""
    half = samples[len(samples) // 2 :]
    times = np.array([moment for moment, _ in half])
    sizes = np.array([held[name] - (held[beyond] if beyond else 0.0) for _, held in half])
    when = np.array([part.mean() for part in np.array_split(times, BLOCKS)])
    size = np.array([part.mean() for part in np.array_split(sizes, BLOCKS)])
    spread = when - when.mean()
    slope = float(spread @ size / (spread @ spread))
    rest = size - size.mean() - slope * spread
    error = float(np.sqrt(rest @ rest / (BLOCKS - 2) / (spread @ spread)))
    span = float(times[-1] - times[0])
    return Growth(
        float(sizes.mean()), *(span * one for one in (slope, slope - STUDENT * error, slope + STUDENT * error))
    )


def judgeable(samples: Sequence[Sample]) -> bool:
    """Whether there is enough of it."""
    return len(samples) >= 4 * BLOCKS and samples[-1][0] - samples[0][0] >= JUDGED_FROM
