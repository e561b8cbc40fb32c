"""What makes a reply unusable before anybody judges what it says: it was cut, it is stuck, or it is empty."""

from __future__ import annotations

from governor.records import Reply, Verdict

_CUT = "the answer was cut off by its token limit"


def flaw(reply: Reply) -> Verdict | None:
    """The rejection of an unusable reply. A verifier may still accept one that was cut, where what matters is there."""
    if reply.stuck:
        feedback = f"the reasoning was stuck (rule {reply.stopped})" if reply.stopped else "the reasoning was stuck"
        return Verdict(decision="reject", verifier="complete", failure="stuck", feedback=feedback)
    if reply.truncated:
        feedback = f"the thought was ended by its rule {reply.stopped}" if reply.stopped else _CUT
        return Verdict(decision="reject", verifier="complete", failure="truncated", feedback=feedback)
    if not reply.text.strip() and not reply.tool_calls:
        return Verdict(decision="reject", verifier="complete", failure="empty", feedback="the answer was empty")
    return None
