"""Which of several samples leads: the answer of a rung with `samples` over one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from governor.records import Reply
from governor.verify.samples import vote


def plurality(replies: Sequence[Reply], total: int) -> tuple[int, bool]:
    """Index of the leading reply, and whether the samples still to come (of `total`) can't change that.

    The most frequent answer leads, of equally frequent ones the first. Replies without an answer (see `vote`)
    count for nothing. Stopping once the majority is settled: Li et al., arXiv 2401.10480.
    """
    votes = [vote(reply) for reply in replies]
    counts = Counter(one for one in votes if one is not None)
    left = total - len(replies)
    if not counts:
        return 0, left <= 0
    (leading, most), *others = counts.most_common(2)
    behind = others[0][1] if others else 0
    return votes.index(leading), left <= 0 or most > behind + left
