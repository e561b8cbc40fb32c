"""Which prompts are alike: a sketch of a prompt's words, and the cluster that it falls into.

Prompts of one template share most of their words, whatever is filled in. A sketch is a one-permutation MinHash (Li,
Owen & Zhang 2012, "One permutation hashing", NIPS): words are spread over bands, each band keeps its smallest hash, and
the share of equal bands estimates how many words two prompts have in common (Jaccard). The first prompt of a cluster
stands for it. A named node is part of the cluster, so that like prompts of two nodes stay apart.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from governor.estimate.evidence import BANDS, OTHERS, Evidence, Ints
from governor.records import Step

ALIKE = 0.35
"""Share of equal bands from which on two prompts count as of one template."""

NODE_CLUSTERS = 32
"""Templates that one named node keeps apart; further ones count as the node's own mixed cluster."""

_HEAD, _TAIL = 160, 80  # characters that are read: instructions stand at a prompt's ends
_WORD = re.compile(r"[^\W\d_]{2,}")
_DEFAULT = "default"


def sketch(text: str) -> Ints:
    """BANDS numbers that are mostly equal for texts that share most words; 0 is an empty band."""
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"
    bands = [0] * BANDS
    for word in set(_WORD.findall(read.lower())):
        mixed = zlib.crc32(word.encode("utf-8", "replace")) * 2654435761 & 0xFFFFFFFF
        band, value = mixed % BANDS, (mixed >> 5) + 1
        if not 0 < bands[band] <= value:
            bands[band] = value
    return np.array(bands, dtype=np.uint32)


@dataclass(frozen=True, eq=False)  # no slots: rows are looked up by node once and kept
class Templates:
    """The clusters of some evidence, to be looked up by step."""

    evidence: Evidence = field(default_factory=Evidence)

    def find(self, step: Step) -> tuple[str, Ints]:
        """The step's cluster, known or new, and the sketch that would stand for it.

        A prompt without words is of its node's mixed cluster, or of OTHERS where the node has no name.
        """
        seen = sketch(step.prompt)
        node = "" if step.node == _DEFAULT else step.node
        mixed = f"{node}|" if node else OTHERS
        if not seen.any():
            return mixed, seen
        rows = self._by_node.get(node)
        if rows is not None:
            row = _most_alike(seen, self.evidence.sketches[rows])
            if row >= 0:
                return self.evidence.clusters[rows[row]], seen
            if node and len(rows) >= NODE_CLUSTERS:
                return mixed, np.zeros_like(seen)
        return f"{node}|{zlib.crc32(seen.tobytes()):08x}", seen

    @cached_property
    def _by_node(self) -> dict[str, npt.NDArray[np.intp]]:
        """Rows of each node's clusters but the mixed one."""
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.evidence.clusters):
            node, _, template = name.rpartition("|")
            if template:
                found.setdefault(node, []).append(row)
        return {node: np.array(rows, dtype=np.intp) for node, rows in found.items()}


def _most_alike(seen: Ints, others: Ints) -> int:
    """The row of the most similar sketch, -1 if none is similar enough. Bands that are empty in both do not count."""
    used = np.count_nonzero(others | seen, axis=1)
    equal = np.count_nonzero((others == seen) & (seen > 0), axis=1)
    share = equal / np.maximum(used, 1)
    row = int(share.argmax())
    return row if share[row] >= ALIKE else -1
