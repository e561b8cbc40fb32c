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
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from governor.estimate.evidence import BANDS, OTHERS, Evidence, Ints
from governor.records import Step

ALIKE = 0.35
"""Share of equal bands from which on two prompts count as of one template."""

NODE_CLUSTERS = 32
"""Templates that one named node keeps apart; further ones count as the node's own mixed cluster."""

_HEAD, _TAIL = 120, 60  # characters that are read: instructions stand at a prompt's ends
_WORD = re.compile(r"[^\W\d_]{2,}")
_EMPTY = 1 << 32
_NEVER = np.uint32(0xFFFFFFFF)  # no word has this value
_DEFAULT = "default"


def sketch(text: str) -> Ints:
    """BANDS numbers that are mostly equal for texts that share most words; 0 is an empty band."""
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"
    bands = [_EMPTY] * BANDS
    for band, value in map(_hashed, set(_WORD.findall(read.lower()))):
        if value < bands[band]:
            bands[band] = value
    return np.array(bands, dtype=np.int64).astype(np.uint32)  # empty wraps to 0


@lru_cache(maxsize=1 << 16)
def _hashed(word: str) -> tuple[int, int]:
    """A word's band and its value in it: 1 .. 2**27."""
    mixed = zlib.crc32(word.encode("utf-8", "replace")) * 2654435761 & 0xFFFFFFFF
    return mixed % BANDS, (mixed >> 5) + 1


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
        group = self._by_node.get(node)
        if group is not None:
            row = group.most_alike(seen)
            if row >= 0:
                return self.evidence.clusters[row], seen
            if node and len(group.rows) >= NODE_CLUSTERS:
                return mixed, np.zeros_like(seen)
        return f"{node}|{zlib.crc32(seen.tobytes()):08x}", seen

    def prepare(self) -> None:
        """Build the look-up now, rather than at the first use."""
        _ = self._by_node

    @cached_property
    def _by_node(self) -> dict[str, _Group]:
        """Each node's clusters but the mixed one."""
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.evidence.clusters):
            node, _, template = name.rpartition("|")
            if template:
                found.setdefault(node, []).append(row)
        return {node: _Group.of(rows, self.evidence.sketches[rows]) for node, rows in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Clusters among which a prompt may fall: their rows, sketches (C, BANDS) and numbers of filled bands (C,)."""

    rows: list[int]
    sketches: Ints
    filled: npt.NDArray[np.intp]

    @classmethod
    def of(cls, rows: list[int], sketches: Ints) -> _Group:
        return cls(rows, np.where(sketches > 0, sketches, _NEVER), np.count_nonzero(sketches, axis=1))

    def most_alike(self, seen: Ints) -> int:
        """The row of the cluster whose sketch is most similar, -1 if none is similar enough."""
        equal = (self.sketches == seen).sum(axis=1)
        share = equal / np.maximum(self.filled, np.count_nonzero(seen))
        best = int(share.argmax())
        return self.rows[best] if share[best] >= ALIKE else -1
