"""What outcomes taught, as sums: replicas add them up, and forget by half lives.

now = now.faded(1).plus(learned)        on the shelf: stored.faded(outcomes since).plus(learned since)
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from governor.errors import LedgerError
from governor.estimate.curves import Floats

Ints = npt.NDArray[np.uint32]

PRIORS = 5
"""Priors that stand side by side: see governor.estimate.recalibration."""

HALF_LIFE = 2_000.0
"""Outcomes after which what an outcome taught counts half."""

TRIAL = 500.0
"""Outcomes after which a prior's success counts half: shorter, so that "nothing is off" is given up soon."""

CLUSTERS, HEADS, BANDS = 256, 32, 32
"""Most clusters and rungs that are kept apart, and numbers in a cluster's sketch."""

OTHERS = ""
"""The first cluster: what was kept of clusters that had to give way."""

_FORMAT, _VERSION = "governor-online", 1


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Sums over outcomes, which replicas add up.

    `sums` (C, K, 5), over `clusters` and `heads`, is of w, w x, w x x, w r and w x r, where w is a factor's precision,
    x the forecast's logit and r the factor's centre less x. `losses` (M,) is the log loss of each of the PRIORS in
    nats, `count` the number of outcomes (both, like the sums, with half lives). `sketches` (C, BANDS) say what a
    cluster's prompts look like. Clusters stand in the order in which they were last seen, OTHERS first.
    """

    heads: tuple[str, ...] = ()
    clusters: tuple[str, ...] = (OTHERS,)
    sketches: Ints = field(default_factory=lambda: np.zeros((1, BANDS), dtype=np.uint32))
    sums: Floats = field(default_factory=lambda: np.zeros((1, 0, 5)))
    losses: Floats = field(default_factory=lambda: np.zeros(PRIORS))
    count: float = 0.0

    def faded(self, outcomes: float) -> Evidence:
        """As it counts after so many further outcomes."""
        keep, tried = 0.5 ** (outcomes / HALF_LIFE), 0.5 ** (outcomes / TRIAL)
        return replace(self, sums=self.sums * keep, losses=self.losses * tried, count=self.count * keep)

    def plus(self, other: Evidence) -> Evidence:
        """Both together; clusters of `other` count as seen last. The oldest give way where they are too many."""
        heads = _united(self.heads, other.heads)[:HEADS]
        named = set(other.clusters)
        clusters = (OTHERS, *(name for name in self.clusters if name not in named), *other.clusters[1:])
        rows = {name: row for row, name in enumerate(clusters)}
        sums = np.zeros((len(clusters), len(heads), 5))
        sketches = np.zeros((len(clusters), BANDS), dtype=np.uint32)
        for part in (self, other):
            at = np.array([rows[name] for name in part.clusters])
            known = [column for column, head in enumerate(part.heads) if head in heads]
            columns = [heads.index(part.heads[column]) for column in known]
            sums[at[:, None], columns] += part.sums[:, known]
            sketches[at] = part.sketches
        losses = self.losses + other.losses
        return Evidence(heads, clusters, sketches, sums, losses, self.count + other.count)._bounded()

    def instead_of(self, other: Evidence) -> Evidence:
        """What is to be added where `other`, of the same cell, was added already and this one says more."""
        return replace(self, sums=self.sums - other.sums, losses=self.losses - other.losses)

    def _bounded(self) -> Evidence:
        over = len(self.clusters) - CLUSTERS
        if over <= 0:
            return self
        kept = np.r_[0, over + 1 : len(self.clusters)]
        sums = self.sums[kept]
        sums[0] += self.sums[1 : over + 1].sum(axis=0)
        clusters = tuple(self.clusters[row] for row in kept.tolist())
        return replace(self, clusters=clusters, sketches=self.sketches[kept], sums=sums)

    def to_bytes(self) -> bytes:
        """For a shelf: JSON, arrays as base64 of their little-endian bytes. At most about 0.6 MiB."""
        arrays = {name: base64.b64encode(_portable(getattr(self, name)).tobytes()).decode() for name in _ARRAYS}
        names = {"heads": self.heads, "clusters": self.clusters, "count": self.count}
        return json.dumps({"format": _FORMAT, "version": _VERSION, **names, **arrays}).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Evidence:
        """What `to_bytes` gave; LedgerError for anything else."""
        try:
            found = json.loads(value)
            if found["format"] != _FORMAT:
                raise ValueError(f"its format is {found['format']!r}")
            if found["version"] > _VERSION:
                raise LedgerError(
                    f"the learned state was written by a newer version ({found['version']}, known is {_VERSION}): "
                    "upgrade compute-governor"
                )
            return cls._read(found)
        except (ValueError, KeyError, TypeError) as cause:
            raise LedgerError(
                f"the learned state can't be read ({cause}): delete its shelf value to begin anew"
            ) from cause

    @classmethod
    def _read(cls, found: dict[str, Any]) -> Evidence:
        heads, clusters = tuple(found["heads"]), tuple(found["clusters"])
        shapes = {"sketches": (len(clusters), BANDS), "sums": (len(clusters), len(heads), 5), "losses": (PRIORS,)}
        arrays = {
            name: np.frombuffer(base64.b64decode(found[name], validate=True), dtype=kind).reshape(shapes[name])
            for name, kind in _ARRAYS.items()
        }
        count = float(found["count"])
        if not (np.isfinite(count) and all(np.isfinite(array).all() for array in arrays.values())):
            raise ValueError("a number in it is not finite")
        if not clusters or clusters[0] != OTHERS or len({*clusters}) < len(clusters) or len({*heads}) < len(heads):
            raise ValueError("its names are not in order")
        return cls(heads, clusters, count=count, **arrays)


_ARRAYS = {"sketches": "<u4", "sums": "<f8", "losses": "<f8"}


def _portable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _united(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
