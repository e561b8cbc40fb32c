"""What answers in hand and looks at them tell: P(correct | difficulty) of each, and how likely what was seen is.

Given the difficulty, answers of different rungs are independent. A second sample of a rung repeats the first one's
outcome with the rung's repeat share, and is drawn anew otherwise; a second verdict of the same answer has noise of
its own. All arrays run over difficulties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from governor.estimate.curves import Floats
from governor.records import COMPARISONS, Attempt

REPEAT = 0.7
"""Assumed share of second samples that only repeat the first one's outcome, where none was measured."""

COLLISION = 0.3
"""Assumed P(two wrong answers are equal), where none was measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a ladder's rungs by id: `answer` P(correct | whole reply), `repeat` shares.

    `sensitivity` and `false_accept` are those by which a rejection is read; `collision` P(equal | both wrong).
    """

    answer: Mapping[str, Floats]
    repeat: Mapping[str, float]
    sensitivity: float
    false_accept: float
    collision: float = COLLISION


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """An answer in hand: the attempt that speaks for it last, P(correct | difficulty), how often it was judged.

    `doubted` is True once a verdict rejected it, or a second sample came to another answer.
    """

    attempt: Attempt
    correct: Floats
    verdicts: int = 1
    doubted: bool = False

    @property
    def rung(self) -> str:
        return self.attempt.rung.id


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Everything in hand after some attempts, and the likelihood of what the last one showed (G,)."""

    held: tuple[Held, ...]
    likelihood: Floats


def agreement(attempt: Attempt) -> bool | None:
    """Whether an answer is that of the one it was compared with; None where nothing was or could be compared."""
    if attempt.mode not in COMPARISONS or attempt.verdict is None or attempt.verdict.score is None:
        return None
    return attempt.verdict.score >= 0.5


def told(attempts: Sequence[Attempt], known: Known) -> Told:
    """The answers in hand, oldest first. Attempts on rungs that are not known count for nothing."""
    one = np.ones_like(next(iter(known.answer.values()))) if known.answer else np.ones(1)
    so_far = Told((), one)
    for attempt in attempts:
        if attempt.rung.id in known.answer:
            seen = _SEEN.get(attempt.mode, _fresh)(attempt, so_far.held, known)
            so_far = seen or Told(so_far.held, one)
        else:
            so_far = Told(so_far.held, one)
    return so_far


def agreed(correct: Floats, single: Floats, repeat: float, collision: float) -> tuple[Floats, Floats]:
    """P(equal, first correct) and P(equal, first wrong) of a second whole sample, per difficulty.

    `correct` is P(first correct), `single` P(a sample is correct). Two correct answers are equal.
    """
    right_again = repeat + (1.0 - repeat) * single
    wrong_again = 1.0 - (1.0 - repeat) * single
    return correct * right_again, (1.0 - correct) * wrong_again * collision


def _fresh(attempt: Attempt, held: tuple[Held, ...], known: Known) -> Told | None:
    if not attempt.shippable:
        return None
    return _judged(Held(attempt, known.answer[attempt.rung.id]), held, known)


def _again(attempt: Attempt, held: tuple[Held, ...], known: Known) -> Told | None:
    first = _of_rung(attempt, held)
    if first is None or not attempt.shippable:
        return _fresh(attempt, held, known)
    share, single = known.repeat[attempt.rung.id], known.answer[attempt.rung.id]
    if not attempt.rejected:
        correct = share * first.correct + (1.0 - share) * single
        return Told((*held, Held(attempt, correct)), np.ones_like(single))
    kept, rejected = _rejection(single, known)
    chance = share + (1.0 - share) * rejected
    correct = _share_of(share * first.correct + (1.0 - share) * kept, chance)
    return Told((*held, Held(attempt, correct, doubted=True)), chance)


def _verified(attempt: Attempt, held: tuple[Held, ...], known: Known) -> Told | None:
    first = _of_rung(attempt, held)
    if first is None:
        return None
    others = tuple(one for one in held if one is not first)
    return _judged(replace(first, attempt=attempt, verdicts=first.verdicts + 1), others, known)


def _compared(attempt: Attempt, held: tuple[Held, ...], known: Known) -> Told | None:
    first, equal = _of_rung(attempt, held), agreement(attempt)
    if first is None or equal is None:
        return _fresh(attempt, held, known)
    share, single = known.repeat[attempt.rung.id], known.answer[attempt.rung.id]
    right, wrong = agreed(first.correct, single, share, known.collision)
    others = tuple(one for one in held if one is not first)
    if equal:
        sure = replace(first, attempt=attempt, correct=_share_of(right, right + wrong))
        return Told((*others, sure), right + wrong)
    chance = 1.0 - right - wrong
    old = replace(first, correct=_share_of(first.correct - right, chance), doubted=True)
    new = Held(attempt, _share_of((1.0 - first.correct) * (1.0 - share) * single, chance), doubted=True)
    return Told((*others, old, new), chance)


_SEEN = {"again": _again, "verify": _verified, "agree": _compared}


def _judged(answer: Held, others: tuple[Held, ...], known: Known) -> Told:
    """The answer after its latest verdict."""
    if not answer.attempt.rejected:
        return Told((*others, answer), np.ones_like(answer.correct))
    kept, rejected = _rejection(answer.correct, known)
    return Told((*others, replace(answer, correct=_share_of(kept, rejected), doubted=True)), rejected)


def _rejection(correct: Floats, known: Known) -> tuple[Floats, Floats]:
    """P(correct, rejected) and P(rejected)."""
    kept = correct * (1.0 - known.sensitivity)
    return kept, kept + (1.0 - correct) * (1.0 - known.false_accept)


def _of_rung(attempt: Attempt, held: tuple[Held, ...]) -> Held | None:
    return next((one for one in reversed(held) if one.rung == attempt.rung.id), None)


def _share_of(part: Floats, whole: Floats) -> Floats:
    result: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return result
