"""Recorded outcomes of one ladder as dense arrays: what fitting, replay and certification read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Outcomes of Q questions on K rungs (the ladder's order) with up to S recorded samples each.

    `questions`, `nodes` and `groups` are (Q,): the text, the graph node ("default" unless a field plays it) and what
    may never stand on both sides of a split (the text itself, or the group asked for). `samples` names the S columns.
    The arrays are (Q, K, S), NaN or None where nothing is recorded: `correct` in 0..1 (a fraction is a mean over
    `drawn_from` hidden samples), `output_tokens`, `cost` in the ladder's unit, `score` in 0..1 (the verifier's field),
    `finished` False where a length is cut (censored), `answers` normalised answer texts.
    """

    qids: tuple[str, ...]
    questions: tuple[str, ...]
    nodes: tuple[str, ...]
    groups: tuple[str, ...]
    rungs: tuple[str, ...]
    samples: tuple[str, ...]
    correct: Floats
    drawn_from: Floats
    output_tokens: Floats
    cost: Floats
    score: Floats
    finished: npt.NDArray[np.bool_]
    answers: npt.NDArray[np.object_]

    def take(self, rows: Any) -> Table:
        """These questions only (an index array or a boolean mask over Q), in the order given."""
        at = np.flatnonzero(rows) if np.asarray(rows).dtype == np.bool_ else np.asarray(rows, dtype=np.intp)
        names = ("qids", "questions", "nodes", "groups")
        picked = {name: tuple(getattr(self, name)[i] for i in at.tolist()) for name in names}
        arrays = ("correct", "drawn_from", "output_tokens", "cost", "score", "finished", "answers")
        return Table(
            rungs=self.rungs, samples=self.samples, **picked, **{name: getattr(self, name)[at] for name in arrays}
        )
