"""Whether a question is like those that were fitted on: of others, what was learned tells less than nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.estimate.features import Features
from governor.estimate.hashed import Indices, Sparse

_TEXT = list(Features.__slots__)[: list(Features.__slots__).index("in_context")]  # the rest is not of the question
_SIZE = {"chars", "words", "distinct_words", "latin", "lines"}

COUNTS: Indices = np.array([at for at, name in enumerate(_TEXT) if name not in _SIZE], dtype=np.intp)
"""Where the counts of a question's own text stand in `numbers_of`, but for its size: length makes nothing foreign."""


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """How far questions like those fitted on lie from them; `governor.learn.familiarity` says how it was measured.

    `unseen` is the share of a text's hashed words and pairs without weight, `distance` the squared Mahalanobis distance
    (1936) of the logs of its COUNTS from their mean `centre` (N,); `whitening` (N, N) makes their covariance about 1,
    and takes out counts that never varied.
    """

    unseen: float
    distance: float
    centre: Floats
    whitening: Floats

    def foreign(self, words: Sparse, numbers: Floats) -> bool:
        """Whether a text goes beyond either; `words` are weighted, 0 where fitting knew nothing of a bucket."""
        if unseen_share(words) > self.unseen:
            return True
        place = (numbers[COUNTS] - self.centre) @ self.whitening
        return float(place @ place) > self.distance


def unseen_share(words: Sparse) -> float:
    """Of a text's buckets, those without weight; 0 of a text without words."""
    return 1.0 - np.count_nonzero(words.value) / max(len(words.value), 1) if len(words.value) else 0.0
