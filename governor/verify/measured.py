"""A verifier whose error rates were measured on records, in place of those that are assumed of it."""

from __future__ import annotations

from dataclasses import dataclass

from governor.effects import Process
from governor.protocols import Redrawn, Verifier
from governor.records import Amount, Call, Reply, Step, Verdict
from governor.verify.foresight import doubts, foresees


@dataclass(frozen=True, slots=True)
class Measured:
    """Verifier (governor.protocols) that judges as `inner` does; its rates were counted on `verdicts` labelled ones."""

    inner: Verifier
    sensitivity: float
    false_accept: float
    verdicts: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def needs_whole_answer(self) -> bool:
        return self.inner.needs_whole_answer

    @property
    def wants_logprobs(self) -> bool:
        return self.inner.wants_logprobs

    @property
    def redraws(self) -> bool:
        """Whether the inner verifier's errors are drawn anew each time."""
        return isinstance(self.inner, Redrawn) and self.inner.redraws

    @property
    def foresees(self) -> bool:
        return foresees(self.inner)

    def doubts(self, step: Step, text: str) -> str:
        return doubts(self.inner, step, text)

    def bound(self, call: Call) -> Amount:
        return self.inner.bound(call)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        return self.inner.verify(step, call, reply)
