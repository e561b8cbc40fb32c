"""Step -> sparse counts: words, pairs of words, node, tools and state, hashed into a fixed number of buckets.

Feature hashing (Weinberger et al. 2009, arXiv 0902.2206) needs no vocabulary: an artifact stays small, and a word
never seen in training is just a bucket without weight.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.estimate.features import SCAN_HEAD, SCAN_TAIL, told_state, tool_names
from governor.records import Step

Indices = npt.NDArray[np.intp]

_WORD = re.compile(rb"[0-9a-z_\x80-\xff]{2,}")
_PAIR = np.uint32(0x9E3779B1)  # Knuth's multiplier: the order of two words matters
_CONTEXT_WEIGHT = 0.5  # of the node and of each tool, beside a text of length 1
_STATE_WEIGHT = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Bucket numbers (N,), each once, with their values (N,): `1 + log(count)` of a text's words and pairs."""

    at: Indices
    value: Floats


def words_of(text: str, buckets: int) -> Sparse:
    """The words of a text and its pairs of neighbouring words; of a very long text those of its head and tail.

    `buckets` is a power of two. Work is bounded, whatever the text's length.
    """
    if len(text) > SCAN_HEAD + SCAN_TAIL:
        text = f"{text[:SCAN_HEAD]}\n{text[-SCAN_TAIL:]}"
    found = _WORD.findall(text.lower().encode("utf-8", "replace"))
    one = np.fromiter(map(crc32, found), np.uint32, len(found))
    both = np.concatenate([one, one[:-1] * _PAIR + one[1:]]) if len(one) else one
    at, counts = np.unique((both ^ (both >> np.uint32(15))) & np.uint32(buckets - 1), return_counts=True)
    return Sparse(at.astype(np.intp), 1.0 + np.log(counts))


def context_of(step: Step, buckets: int) -> Sparse:
    """What is known of a step beside its text: the graph node, the tools on offer, its state's numbers and words."""
    found = {_bucket(f"node={step.node}", buckets): _CONTEXT_WEIGHT}
    for name in tool_names(step.tools):
        found[_bucket(f"tool={name}", buckets)] = _CONTEXT_WEIGHT
    for name, told in told_state(step.state).items() if step.state else ():
        if isinstance(told, str):
            found[_bucket(f"state={name}={told}", buckets)] = _CONTEXT_WEIGHT
        else:
            found[_bucket(f"state={name}", buckets)] = _STATE_WEIGHT * math.copysign(math.log1p(abs(told)), told)
    return Sparse(np.array(list(found), dtype=np.intp), np.array(list(found.values())))


def _bucket(name: str, buckets: int) -> int:
    return crc32(name.encode("utf-8", "replace")) & (buckets - 1)
