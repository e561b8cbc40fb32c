"""Whether a question is like those that were fitted on: of others, what was learned tells less than nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.estimate.curves import Floats
from governor.estimate.features import Features
from governor.estimate.hashed import Sparse

COUNTS = list(Features.__slots__).index("in_context")
"""The plain numbers of `features` that stand before it are counts of the question's own text."""


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """How far questions lay from those fitted on that were held out: of 1,000, about one lay further.

    `unseen` is the share of a text's hashed words and pairs without weight, `distance` the squared Mahalanobis distance
    (1936) of the logs of its COUNTS from their mean `centre` (COUNTS,); `whitening` (COUNTS, COUNTS) makes their
    covariance about 1, and takes out counts that never varied.
    """

    unseen: float
    distance: float
    centre: Floats
    whitening: Floats

    def foreign(self, words: Sparse, numbers: Floats) -> bool:
        """Whether a text goes beyond either; `words` are weighted, 0 where fitting knew nothing of a bucket."""
        if unseen_share(words) > self.unseen:
            return True
        place = (numbers[:COUNTS] - self.centre) @ self.whitening
        return float(place @ place) > self.distance


def unseen_share(words: Sparse) -> float:
    """Of a text's buckets, those without weight; 0 of a text without words."""
    return 1.0 - np.count_nonzero(words.value) / max(len(words.value), 1) if len(words.value) else 0.0
