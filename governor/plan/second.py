"""Second samples and second looks as arms: what drawing a rung again, comparing or judging once more is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from governor.estimate.answers import REPEAT, Held, agreed, told
from governor.estimate.curves import Curves, Floats
from governor.estimate.latent import Grid
from governor.plan.odds import Doubt, Odds
from governor.plan.prices import Unit
from governor.protocols import Situation
from governor.records import BacktrackMode


@dataclass(frozen=True, slots=True, eq=False)
class Hand:
    """The answers in hand, oldest first."""

    held: tuple[Held, ...]
    difficulties: int

    @classmethod
    def of(cls, grid: Grid, situation: Situation) -> Hand:
        """Everything that the attempts so far left in hand."""
        if not situation.attempts:
            return cls((), grid.weights.size)
        return cls(told(situation.attempts, grid.known(situation)).held, grid.weights.size)

    @property
    def correct(self) -> Floats:
        """P(correct | difficulty) of each answer; (H, G)."""
        return np.array([one.correct for one in self.held]) if self.held else np.empty((0, self.difficulties))

    def latest(self, rung: str) -> int | None:
        """Place of the latest answer of a rung."""
        return next((at for at in reversed(range(len(self.held))) if self.held[at].rung == rung), None)


def repeats(grid: Grid) -> Floats:
    """The share of second samples that repeat the first one's outcome; (K,)."""
    return np.full(len(grid.answer), REPEAT) if grid.repeat is None else grid.repeat


def lookahead_repeats(grid: Grid, situation: Situation, fresh: Sequence[int]) -> Floats | None:
    """Repeat shares of the rungs `fresh` that could be sampled a second time later on, 1 elsewhere; None: of none."""
    if not situation.verified or "again" not in situation.terms.modes or situation.terms.streamed:
        return None
    shares, tried = np.ones(len(grid.answer)), {attempt.rung.id for attempt in situation.attempts}
    for at in fresh:
        rung = situation.terms.ladder[at]
        if rung.temperature != 0 and rung.id not in tried:
            shares[at] = repeats(grid)[at]
    return shares if (shares < 1.0).any() else None


def look(at: int, mode: BacktrackMode, odds: Odds, grid: Grid, hand: Hand, situation: Situation, unit: Unit) -> Odds:
    """One more arm on rung `at`, beside the rungs' own in `odds`; a rung without an answer in hand is an error."""
    place = hand.latest(situation.terms.ladder[at].id)
    if place is None:
        raise ValueError(f"no answer of rung {situation.terms.ladder[at].id} is in hand")
    answer = hand.held[place]
    if mode == "again":
        return replace(odds, repeat=repeats(grid)).again(at, answer.correct)
    if mode == "verify":
        return _verdict(answer, place, odds.harm, situation, unit.verdict(answer.attempt))
    return _comparison(at, answer, place, odds, grid)


def _verdict(answer: Held, place: int, harm: float, situation: Situation, cost: float) -> Odds:
    row = Odds.of(answer.correct[None], np.array([cost]), situation.sensitivity, situation.false_accept, harm)
    return replace(row, kept=np.zeros_like(row.kept), doubts=(Doubt(0, place, row.kept[0]),))


def _comparison(at: int, answer: Held, place: int, odds: Odds, grid: Grid) -> Odds:
    return compared_again(at, answer.correct, place, float(odds.cost[at]), odds.harm, grid)


def compared_first(at: int, cost: float, harm: float, grid: Grid) -> Odds:
    """A second sample of rung `at` beside its first, of which nothing is known but the rung, as an arm."""
    if grid.curves is None or grid.repeat is not None:
        return compared_again(at, grid.answer[at], 0, cost, harm, grid)
    return _compared_first(at, harm, grid.curves, grid.collision).costing(np.array([cost]))


@lru_cache(maxsize=256)  # the same for every step of a ladder
def _compared_first(at: int, harm: float, curves: Curves, collision: float) -> Odds:
    one = np.ones(1)
    grid = Grid(one, one, curves.answer, curves.success, collision=collision)
    return compared_again(at, curves.answer[at], 0, 0.0, harm, grid)


def compared_again(at: int, correct: Floats, place: int, cost: float, harm: float, grid: Grid) -> Odds:
    """A second sample of rung `at` beside its answer in hand, which is `correct` (G,), as an arm.

    An equal answer ships. Another one, or none, leaves both in hand, the first less trusted.
    """
    single, share = grid.answer[at], float(repeats(grid)[at])
    whole = np.divide(grid.success[at], single, out=np.zeros_like(single), where=single > 0)
    right, wrong = (whole * part for part in agreed(correct, single, share, grid.collision))
    return Odds(
        good=(right - harm * wrong)[None],
        reject=(1.0 - right - wrong)[None],
        kept=(whole * (1.0 - correct) * (1.0 - share) * single)[None],
        cost=np.array([cost]),
        harm=harm,
        doubts=(Doubt(0, place, correct - right),),
    )
