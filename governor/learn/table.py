"""Recorded outcomes of one ladder as dense arrays: what fitting, replay and certification read."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from governor.errors import RecordError
from governor.estimate.curves import Floats
from governor.learn.chance import uniform

Flags: TypeAlias = npt.NDArray[np.bool_]
Texts: TypeAlias = npt.NDArray[np.object_]

_SHARED = ("rungs", "samples")
_NAMES = ("qids", "questions", "nodes", "groups", "contexts")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Outcomes of Q questions on K rungs (the ladder's order) with up to S recorded samples each.

    `questions`, `nodes` and `groups` are (Q,): the text ("" where none was recorded), the graph node ("default" unless
    a field plays it) and what may never stand on both sides of a split (a digest of the text, or the group asked for).
    `samples` names the S columns. The arrays are (Q, K, S), NaN or None where nothing is recorded: `correct` in 0..1
    (a fraction is a mean over `drawn_from` hidden samples; a verdict where nobody knows better), `output_tokens`,
    `cost` in the ladder's unit, `score` in 0..1 (the verifier's field), `finished` False where a length is cut
    (censored), `answers` normalised answer texts. Where any row has a verdict: `verdict` (1 accepted, 0 rejected, NaN),
    `verifier` (its name, or None), `noisy` (True where `correct` is only that verdict). Where any row holds what was
    known beside the text: `contexts` (Q,), the fields `index`, `tools` and `state` of the step.
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
    finished: Flags
    answers: Texts
    verdict: Floats | None = None
    verifier: Texts | None = None
    noisy: Flags | None = None
    contexts: tuple[Mapping[str, Any], ...] = ()

    def take(self, rows: Any) -> Table:
        """These questions only (an index array or a boolean mask over Q), in the order given."""
        asked = np.asarray(rows)
        at: npt.NDArray[np.intp] = np.arange(len(self.qids))[asked if asked.size else []]
        picked: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in at.tolist()) for name in _NAMES if getattr(self, name)
        }
        for field in fields(self):
            array = getattr(self, field.name)
            if field.name not in (*_SHARED, *_NAMES) and array is not None:
                picked[field.name] = array[at]
        return replace(self, **picked)

    @property
    def usable(self) -> Flags:
        """(Q, K, S): whether label and cost of an attempt are both known, so that it can be replayed."""
        return ~np.isnan(self.correct) & ~np.isnan(self.cost)

    @property
    def missing(self) -> Mapping[str, int]:
        """Per rung the number of questions without any label on it."""
        none = np.isnan(self.correct).all(axis=2).sum(axis=0)
        return dict(zip(self.rungs, none.tolist(), strict=True))


def draw(table: Table, seed: int) -> Table:
    """One outcome for each mean over hidden samples: uniform(seed, qid, rung) < mean.

    Means are the fractions in rows without a sample's name; a fraction of a named sample is partial credit and stays.
    """
    if "" not in table.samples:
        return table
    s = table.samples.index("")
    correct = table.correct.copy()
    means = correct[:, :, s]
    for q, k in np.argwhere((means > 0) & (means < 1)).tolist():
        means[q, k] = uniform(seed, table.qids[q], table.rungs[k]) < means[q, k]
    return replace(table, correct=correct)


def folds(groups: Sequence[str], k: int, seed: int) -> npt.NDArray[np.intp]:
    """The fold 0..k-1 of each question, (Q,): whole groups, in an order drawn from `seed`, each to the emptiest fold.

    Fold sizes differ by no more than the largest group. Raises RecordError where there are fewer groups than folds.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < k:
        raise RecordError(f"{k} folds need {k} groups of questions or more, and there are {len(sizes)}")
    filled = [0] * k
    fold_of: dict[str, int] = {}
    for group in sorted(sizes, key=lambda group: (uniform(seed, "fold", group), group)):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return np.array([fold_of[group] for group in groups], dtype=np.intp)


def split(table: Table, fold_of: npt.NDArray[np.intp], fold: int) -> tuple[Flags, Flags]:
    """Training and test questions of one fold, two masks (Q,).

    A question whose normalised text is also tested is in neither: under a group that was asked for, two groups may
    hold the same question.
    """
    test: Flags = fold_of == fold
    texts = [normalised(text) for text in table.questions]
    tested = {text for text, held in zip(texts, test.tolist(), strict=True) if held and text}
    return ~test & np.array([text not in tested for text in texts], dtype=np.bool_), test


def normalised(text: str) -> str:
    """Text as it is compared: compatibility forms, case and white space made one."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(plain.casefold().split())
