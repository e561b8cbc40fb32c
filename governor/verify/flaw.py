"""What makes a reply unusable before anybody judges what it says: it was cut, or it is empty."""

from __future__ import annotations

from governor.records import Reply, Verdict


def flaw(reply: Reply) -> Verdict | None:
    """The rejection of an unusable reply. A verifier may still accept one that was cut, where what matters is there."""
    if reply.truncated:
        feedback = "the answer was cut off by its token limit"
        return Verdict(decision="reject", verifier="complete", failure="truncated", feedback=feedback)
    if not reply.text.strip() and not reply.tool_calls:
        return Verdict(decision="reject", verifier="complete", failure="empty", feedback="the answer was empty")
    return None
