"""What is learned from and what is tested, kept apart: folds of one table, or one table against another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from governor.errors import RecordError
from governor.estimate.curves import Floats
from governor.learn.ladder import Ladder
from governor.learn.outcomes import Rows
from governor.learn.routing import Forecaster as Router
from governor.learn.table import Flags, Table, folds, normalised, split


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Questions with the fold of each, (Q,), and which of them are `tested`; the others are learned from alone."""

    table: Table
    fold: Rows
    tested: Flags

    @classmethod
    def crossed(cls, table: Table, count: int, seed: int) -> Sides:
        """Every question is tested by what was learned on the other folds."""
        return cls(table, folds(table.groups, count, seed), np.ones(len(table.qids), dtype=np.bool_))

    @classmethod
    def apart(cls, train: Table, test: Table, count: int, seed: int) -> Sides:
        """`test` is tested by what is learned on `train`, less the questions that stand in both.

        Training questions have folds of their own, for what is chosen among them.
        """
        asked = {normalised(text) for text in test.questions}
        groups = set(test.groups)
        kept = [
            at
            for at, (text, group) in enumerate(zip(train.questions, train.groups, strict=True))
            if group not in groups and not (text and normalised(text) in asked)
        ]
        if not kept:
            raise RecordError("every question to fit on is tested too")
        table = stacked(train.take(kept), test)
        tested = np.arange(len(table.qids)) >= len(kept)
        fold = np.full(len(tested), count, dtype=np.intp)
        fold[~tested] = folds(table.groups[: len(kept)], count, seed)
        return cls(table, fold, tested)

    def splits(self) -> Iterator[tuple[Rows, Rows]]:
        """(training rows, test rows), no text on both sides."""
        for part in np.unique(self.fold[self.tested]).tolist():
            train, test = split(self.table, self.fold, part)
            yield np.flatnonzero(train), np.flatnonzero(test)

    def forecast(self, router: Router) -> Floats:
        """P(correct) of every question, (Q, K), by a router that learned on training rows of the other folds."""
        p = np.empty((len(self.fold), len(self.table.rungs)))
        for part in np.unique(self.fold).tolist():
            test = self.fold == part
            train = ~test if self.tested.all() else ~test & ~self.tested
            p[test] = router(np.flatnonzero(train), np.flatnonzero(test))
        return p


def complete(table: Table, ladder: Ladder) -> Table:
    """The questions with an attempt (two, to be compared) recorded on every rung. Raises RecordError for none."""
    draws = 2 if ladder.checking.kind == "agreement" else 1
    whole = (table.usable.sum(axis=2) >= draws).all(axis=1)
    if not whole.any():
        attempts = "2 recorded attempts" if draws > 1 else "a recorded attempt"
        raise RecordError(f"{ladder.records}: no question has {attempts} of every rung")
    return table if whole.all() else table.take(whole)


def shuffled(table: Table, seed: int) -> Table:
    """The labels of all rungs together dealt to other questions; texts, costs and answers keep their place."""
    order = np.random.default_rng(seed).permutation(len(table.qids))
    told = ("correct", "drawn_from", "verdict", "verifier", "noisy")
    moved: dict[str, Any] = {}
    for name in told:
        array = getattr(table, name)
        moved[name] = None if array is None else array[order]
    return replace(table, **moved)


def stacked(one: Table, other: Table) -> Table:
    """The questions of both tables, which have the same rungs; samples are matched by their place."""
    samples = max((one.samples, other.samples), key=len)
    values: dict[str, Any] = {"rungs": one.rungs, "samples": samples}
    for field in fields(Table):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, tuple) and field.name not in values:
            values[field.name] = (*first, *second)
        elif isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
            values[field.name] = np.concatenate([_widened(first, len(samples)), _widened(second, len(samples))])
    return Table(**values)


def _widened(array: Any, samples: int) -> Any:
    """(Q, K, S) with as many samples; nothing is recorded of those that are new."""
    questions, rungs, there = array.shape
    blank = {"f": np.nan, "b": False}.get(array.dtype.kind)
    return np.concatenate([array, np.full((questions, rungs, samples - there), blank, dtype=array.dtype)], axis=2)
