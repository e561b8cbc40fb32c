"""What several samples say together: which of them leads, and whether two of them agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from governor.records import Reply, Verdict
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


def compared(first: Reply, second: Reply) -> Verdict:
    """Whether two samples give the same answer: score 1 or 0, never a decision. No score where one gives none."""
    one, other = vote(first), vote(second)
    if one is None or other is None:
        return Verdict(decision="unsure", verifier="agreement", feedback="there is no answer to compare")
    equal = one == other
    feedback = "" if equal else "two samples came to different answers"
    return Verdict(decision="unsure", verifier="agreement", score=float(equal), feedback=feedback)
