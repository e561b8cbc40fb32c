"""One thought looked at as it grows: what it would have answered at each budget, and how sure it was there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from governor.errors import LadderError, Problem, RecordError
from governor.estimate.curves import Floats
from governor.learn.certify import Bools
from governor.learn.ladder import HIDDEN, Ladder
from governor.learn.schema import Row
from governor.learn.table import Table, draw
from governor.learn.tabulate import tabulate

Places: TypeAlias = npt.NDArray[np.intp]

STRICT = 0.99
"""A label from here up is a right answer, where a ladder says nothing else."""


_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """N thoughts at K growing budgets, the last of which is the whole thought.

    `rungs` and `budgets` (K,) rise; a budget is tokens of thought. (N, K): `tokens` spent so far with the answer,
    `known` whether a label is recorded, `right`, and `signals` by the name of their field (NaN where none is
    recorded). `groups` (N,): thoughts about one question depend on each other.
    """

    groups: tuple[str, ...]
    rungs: tuple[str, ...]
    budgets: Floats
    tokens: Floats
    known: Bools
    right: Bools
    signals: Mapping[str, Floats]

    @property
    def last(self) -> Places:
        """(N,): the place of the whole thought, the last look with a label."""
        place: Places = self.known.shape[1] - 1 - self.known[:, ::-1].argmax(axis=1)
        return place

    def ended(self, stop: Bools) -> Places:
        """(N,): the first look that is told to stop (N, K) and has a label, else the whole thought."""
        told = stop & self.known
        place: Places = np.where(told.any(axis=1), told.argmax(axis=1), self.last)
        return place

    def lost(self, at: Places) -> Bools:
        """(N,): whether the answer at these looks is wrong, and the whole thought's right."""
        thought = np.arange(len(self.groups))
        lost: Bools = ~self.right[thought, at] & self.right[thought, self.last]
        return lost


def read_looks(rows: Iterable[Row], ladder: Ladder, fields: Iterable[str], *, seed: int = 0) -> Looks:
    """The thoughts of a ladder whose rungs are budgets of one thought, with the fields that are signals.

    A mean over hidden samples becomes one outcome, drawn by `seed`. LadderError where the ladder does not say that it
    continues, where a field is a label or known only afterwards, or where no row holds one.
    """
    names = tuple(dict.fromkeys(fields))
    _refuse(ladder, names)
    held = list(rows)
    table = draw(tabulate(iter(held), ladder), seed)
    usable = ~np.isnan(table.correct) & ~np.isnan(table.output_tokens)
    longest = np.where(usable, table.output_tokens, 0.0).max(axis=(0, 2), initial=0.0)
    order = np.argsort(longest, kind="stable")
    thought = usable.sum(axis=1) > 1
    if not thought.any():
        raise RecordError(f"{ladder.name}: no thought has a label at two of the ladder's budgets")
    known = _thoughts(usable, order, thought)
    tokens = np.where(known, _thoughts(table.output_tokens, order, thought), 0.0)
    return Looks(
        groups=tuple(table.groups[q] for q in np.nonzero(thought)[0].tolist()),
        rungs=tuple(table.rungs[k] for k in order.tolist()),
        budgets=_budgets(tokens),
        tokens=tokens,
        known=known,
        right=known & (_thoughts(table.correct, order, thought) >= STRICT),
        signals={name: _thoughts(_signal(held, table, name), order, thought) for name in names},
    )


def _budgets(tokens: Floats) -> Floats:
    """(K,): the longest length, less the answer's one token where several thoughts were cut there."""
    longest = tokens.max(axis=0)
    budgets: Floats = longest - ((tokens == longest).sum(axis=0) > 1)
    return budgets


def _refuse(ladder: Ladder, names: tuple[str, ...]) -> None:
    if not ladder.continues:
        hint = "say `continues: true` in it where they are"
        raise LadderError(Problem("its rungs are not budgets of one thought", file=ladder.name, hint=hint))
    if hidden := HIDDEN.intersection(names):
        raise LadderError(Problem("is a label, or known only afterwards", field=min(hidden)))


def _signal(rows: list[Row], table: Table, name: str) -> Floats:
    """(Q, K, S) of one field."""
    qids, rungs, samples = (
        {key: at for at, key in enumerate(keys)} for keys in (table.qids, table.rungs, table.samples)
    )
    found = np.full(table.correct.shape, np.nan)
    for row in rows:
        value = row.fields.get(name)
        if row.qid not in qids or row.rung not in rungs or row.sample not in samples or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise RecordError(f"{row.place}: {name}: must be a number from 0, is {value!r:.40}")
        found[qids[row.qid], rungs[row.rung], samples[row.sample]] = value
    if np.isnan(found).all():
        raise RecordError(f"no row of the ladder's rungs has the field '{name}'")
    return found


def _thoughts(values: npt.NDArray[_Scalar], order: Places, thought: Bools) -> npt.NDArray[_Scalar]:
    """(Q, K, S) as (N, K): the thoughts (Q, S) that count, looks from the smallest budget."""
    return values.transpose(0, 2, 1)[:, :, order][thought]
