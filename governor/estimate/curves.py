"""What is assumed of each rung before anything was measured: its ability, and how many tokens it takes.

The latent scale: a step of difficulty 0 is solved by the first rung of a ladder every second time, -3 is trivial,
+3 is competition level. Nothing here is fitted. The one thing a policy's author surely knows is that the ladder is
written from cheap to dear, so later rungs are assumed stronger, less surely with every step away from the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from governor.records import Rung

Floats: TypeAlias = npt.NDArray[np.float64]

GRID: Floats = np.linspace(-4.0, 4.0, 41)
"""Difficulties on which every belief is a weight vector."""

FLOOR = 0.02
"""P(correct) by luck alone, of a free-form answer."""

SLOPE = 1.7
"""Logistic slope at a known ability: 1.7 makes the logistic curve agree with the normal ogive (Lord 1952)."""

_NEW_MODEL = 0.9
_PRICE_SHARE = 0.25  # more of ability per doubling of the output price, between neighbours of different models
_THINKING_SHARE = 0.2  # per doubling of (256 + thinking tokens) on the same model
_EFFORT_STEP = 0.3
_SAMPLES_SHARE = 0.15
_INSTRUCTION = 0.25
_ANSWER_SHARE = 0.1  # per doubling of the answer room, which also gives a model without reasoning room to work
_SPREAD_FIRST = 0.6
_SPREAD_STEP = 0.25  # variance added by each step away from the first rung

_EFFORTS = {"none": 0.0, "minimal": 0.5, "low": 1.0, "medium": 2.0, "high": 3.0, "xhigh": 3.5, "max": 4.0}
_EFFORT_THINKING = {"minimal": 100.0, "low": 400.0, "medium": 1200.0, "high": 3000.0, "xhigh": 5000.0, "max": 8000.0}

_ANSWER_TOKENS = 120.0
_LENGTH_SPREAD = 0.7  # standard deviation of log tokens
_LENGTH_SLOPE = 0.35  # harder steps take longer: log tokens per unit of difficulty
_ROOM = 0.35  # a cap is evidence too: its author expects a usual answer to take about a third of it
_OVERRUN = 1.3  # a reply that was cut would have needed about this much of its cap (median of the log-normal tail)


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Per rung (rows, ladder order) and difficulty (columns, GRID). Compared and hashed by identity.

    `answer` is P(correct | the reply is whole), `finish` is P(reply is whole), `success` their product,
    `tokens` is E[min(T, max_tokens)] of all samples together, T log-normal (an uncensored mean of cut
    lengths would be wrong).
    """

    ladder: tuple[Rung, ...]
    answer: Floats
    finish: Floats
    success: Floats
    tokens: Floats


@lru_cache(maxsize=256)
def curves(ladder: tuple[Rung, ...], length: float = 0.0, need: float = 0.0) -> Curves:
    """The prior curves of a ladder.

    `length` shifts log answer tokens (0 = a usual answer). `need` is learned from truncated replies: see
    `need_after`; 0 = none was seen.
    """
    ability, spread = _abilities(ladder)
    # A logistic curve averaged over a normal ability is about a logistic curve of lower slope (MacKay 1992, eq. 10).
    slope = SLOPE / np.sqrt(1.0 + math.pi * (SLOPE * spread) ** 2 / 8.0)
    distance = slope[:, None] * (ability[:, None] - GRID[None, :])
    answer = FLOOR + (1.0 - FLOOR) / (1.0 + np.exp(-distance))
    caps = np.array([max(rung.max_tokens, 1) for rung in ladder], dtype=float)
    samples = np.array([max(rung.samples, 1) for rung in ladder], dtype=float)
    typical = np.array([_typical_tokens(rung, length) for rung in ladder])
    if need > 0.0:
        typical = np.maximum(typical, need * np.sqrt([_unlimited_tokens(rung) for rung in ladder]))
    centre = np.log(typical)[:, None] + _LENGTH_SLOPE * GRID[None, :]
    finish = _normal_cdf((np.log(caps)[:, None] - centre) / _LENGTH_SPREAD)
    whole = np.exp(centre + _LENGTH_SPREAD**2 / 2) * _normal_cdf(
        (np.log(caps)[:, None] - centre) / _LENGTH_SPREAD - _LENGTH_SPREAD
    )
    tokens = samples[:, None] * (whole + caps[:, None] * (1.0 - finish))
    return Curves(ladder, *map(_frozen, (answer, finish, answer * finish, tokens)))


def need_after(rung: Rung) -> float:
    """How demanding a step must be that a reply of this rung was cut: a scale-free number for `curves`."""
    return _OVERRUN * max(rung.max_tokens, 1) / math.sqrt(_unlimited_tokens(rung))


def _frozen(array: Floats) -> Floats:
    array.setflags(write=False)
    return array


def _normal_cdf(z: Floats) -> Floats:
    erf = np.vectorize(math.erf, otypes=[float])
    result: Floats = 0.5 * (1.0 + erf(z / math.sqrt(2.0)))
    return result


def _abilities(ladder: tuple[Rung, ...]) -> tuple[Floats, Floats]:
    """Means and standard deviations of the rungs' abilities. Means never fall along the ladder."""
    means, variances = [0.0], [_SPREAD_FIRST**2]
    for below, rung in pairwise(ladder):
        means.append(means[-1] + _step(below, rung))
        variances.append(variances[-1] + _SPREAD_STEP**2)
    return np.array(means[: len(ladder)]), np.sqrt(variances[: len(ladder)])


def _step(below: Rung, rung: Rung) -> float:
    """Ability gained from one rung to the next: large between models, modest for more thinking of the same."""
    thinking = _THINKING_SHARE * math.log2((256 + rung.thinking_tokens) / (256 + below.thinking_tokens))
    room = _ANSWER_SHARE * math.log2(max(rung.answer_tokens, 1) / max(below.answer_tokens, 1))
    samples = _SAMPLES_SHARE * math.log2(max(rung.samples, 1) / max(below.samples, 1))
    instruction = _INSTRUCTION * (bool(rung.instruction) - bool(below.instruction))
    effort = _EFFORT_STEP * (_effort(rung) - _effort(below))
    gained = thinking + room + samples + instruction + effort
    if rung.model == below.model:
        return min(max(gained, 0.1), 1.0)
    dearer = 0.0
    if rung.price.output > 0 and below.price.output > 0:
        dearer = _PRICE_SHARE * math.log2(rung.price.output / below.price.output)
    return min(max(_NEW_MODEL + dearer + gained, 0.2), 2.0)


def _effort(rung: Rung) -> float:
    return _EFFORTS.get(rung.effort or "none", 1.0)


def _unlimited_tokens(rung: Rung) -> float:
    """Median output tokens on a step of difficulty 0 if no cap cut them."""
    thinking = _EFFORT_THINKING.get(rung.effort or "none", 0.0)
    if rung.thinking_tokens and not thinking:
        thinking = 1200.0
    return _ANSWER_TOKENS * (2.0 if rung.instruction else 1.0) + thinking


def _typical_tokens(rung: Rung, length: float) -> float:
    answer = min(_ANSWER_TOKENS * (2.0 if rung.instruction else 1.0), _ROOM * max(rung.answer_tokens, 1))
    thinking = _unlimited_tokens(rung) - _ANSWER_TOKENS * (2.0 if rung.instruction else 1.0)
    thinking = min(thinking, _ROOM * max(rung.thinking_tokens, rung.answer_tokens, 1))
    return max(answer * math.exp(length) + thinking, 1.0)
