"""One verifier that is not made of others: what all leaves share, so that each brings only its own check.

A leaf turns its own breakdown into an *unsure* verdict with an error line, never into an accept or reject. What it
spends is counted by whoever answers its effects (governor.account).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from governor.effects import Process
from governor.records import Amount, Call, Failure, Reply, Step, Verdict

_MOST_FEEDBACK = 1_000
_MOST_ERROR = 300

Bound: TypeAlias = Callable[[Call], Amount]
"""The most that something can spend on a call."""

Doubt: TypeAlias = Callable[[Step, str], bool]
"""Whether no answer that begins with a text is accepted (governor.protocols.Foreseeing)."""

Work: TypeAlias = Callable[[Step, Call, Reply], Process[Verdict]]
"""A leaf's check. It may raise: the leaf turns that into an unsure verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A Verifier made of a check and its rates; `spend` bounds one whole verification of a reply to a call.

    `redraws`: asked again about the same reply, it errs anew.
    """

    name: str
    sensitivity: float
    false_accept: float
    work: Work
    spend: Bound = field(default=lambda _: Amount())
    wants_logprobs: bool = False
    needs_whole_answer: bool = True
    redraws: bool = False
    doubt: Doubt | None = None

    def bound(self, call: Call) -> Amount:
        return self.spend(call)

    @property
    def foresees(self) -> bool:
        return self.doubt is not None

    def doubts(self, step: Step, text: str) -> str:
        try:
            return self.name if self.doubt is not None and self.doubt(step, text) else ""
        except Exception:  # noqa: BLE001  what breaks down here does so on the whole answer, and is told there
            return ""

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        try:
            verdict = yield from self.work(step, call, reply)
        except Exception as cause:  # noqa: BLE001  whatever broke, the verdict is unsure and says so
            verdict = Verdict(decision="unsure", verifier=self.name, error=one_line(cause))
        return _told(verdict, self.name, reply)


def pure(check: Callable[[Step, Reply], Verdict]) -> Work:
    """A check without effects as a leaf's work."""

    def work(step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del call
        yield from ()
        return check(step, reply)

    return work


def accept(score: float | None = None) -> Verdict:
    """An accepting verdict; the leaf adds its name."""
    return Verdict(decision="accept", verifier="", score=score)


def reject(failure: Failure, feedback: str, score: float | None = None) -> Verdict:
    """A rejecting verdict with feedback that a model can act on."""
    return Verdict(decision="reject", verifier="", failure=failure, feedback=feedback, score=score)


def unsure(feedback: str = "", score: float | None = None) -> Verdict:
    """A verdict that decides nothing, without anything being broken."""
    return Verdict(decision="unsure", verifier="", feedback=feedback, score=score)


def decided(passed: bool, failure: Failure, feedback: str, score: float | None = None) -> Verdict:
    """Accept when `passed`, else reject with this failure and feedback."""
    return accept(score) if passed else reject(failure, feedback, score)


def one_line(cause: BaseException) -> str:
    """An error as one line for a person."""
    text = " ".join(f"{type(cause).__name__}: {cause}".split())
    return shortened(text, _MOST_ERROR)


def shortened(text: str, most: int) -> str:
    """Text cut to `most` characters, with an ellipsis where something is missing."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _told(verdict: Verdict, name: str, reply: Reply) -> Verdict:
    """The verdict under the leaf's name. An unreadable answer that was cut off failed for being cut off."""
    cut = reply.truncated and verdict.decision == "reject" and verdict.failure == "format"
    return replace(
        verdict,
        verifier=verdict.verifier or name,
        failure="truncated" if cut else verdict.failure,
        feedback=shortened(verdict.feedback, _MOST_FEEDBACK),
    )
