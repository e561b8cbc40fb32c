"""Verifiers made of verifiers: all, any, then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from governor.effects import Process
from governor.protocols import Verifier
from governor.records import Amount, Call, Reply, Step, Verdict
from governor.verify.foresight import doubts, foresees

How: TypeAlias = Literal["all", "any", "then"]


@dataclass(frozen=True, slots=True)
class Combined:
    """Members asked in order.

    `all` ends at the first rejection; it accepts if every member does, and is unsure otherwise.
    `any` ends at the first acceptance; it rejects if every member does, and is unsure otherwise.
    `then` ends at the first member that is not unsure.

    Rates assume independent members: `all` has the products of sensitivity s and false-accept f, `any` has
    1 - prod(1 - s) and 1 - prod(1 - f). Which member of `then` decides is not known beforehand, so it has the
    lowest s and the highest f of its members, between which the truth lies.
    """

    how: How
    members: tuple[Verifier, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError(f"'{self.how}' needs at least one verifier")

    @property
    def name(self) -> str:
        return f"{self.how}({', '.join(member.name for member in self.members)})"

    @property
    def sensitivity(self) -> float:
        return _SENSITIVITY[self.how]([member.sensitivity for member in self.members])

    @property
    def false_accept(self) -> float:
        return _FALSE_ACCEPT[self.how]([member.false_accept for member in self.members])

    @property
    def needs_whole_answer(self) -> bool:
        return any(member.needs_whole_answer for member in self.members)

    @property
    def wants_logprobs(self) -> bool:
        return any(member.wants_logprobs for member in self.members)

    @property
    def foresees(self) -> bool:
        return _FORESEES[self.how](map(foresees, self._deciding))

    def doubts(self, step: Step, text: str) -> str:
        """A member of `all`, every member of `any`, or the first of `then`, whose rejection decides."""
        why = [doubts(member, step, text) for member in self._deciding]
        return "; ".join(filter(None, why)) if _FORESEES[self.how](map(bool, why)) else ""

    @property
    def _deciding(self) -> tuple[Verifier, ...]:
        """The members of which a rejection can be told before the others are asked."""
        return self.members[:1] if self.how == "then" else self.members

    def bound(self, call: Call) -> Amount:
        return sum((member.bound(call) for member in self.members), Amount())

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        verdicts: list[Verdict] = []
        for member in self.members:
            verdict = yield from member.verify(step, call, reply)
            verdicts.append(verdict)
            if verdict.decision in _DECISIVE[self.how]:
                return verdict
        return _CONCLUSION[self.how](self.name, verdicts)


def _all_asked(name: str, verdicts: Sequence[Verdict]) -> Verdict:
    """Nobody rejected: accept unless somebody is unsure."""
    doubt = _doubt(name, verdicts)
    return doubt or Verdict(decision="accept", verifier=name, score=_score(min, verdicts))


def _any_asked(name: str, verdicts: Sequence[Verdict]) -> Verdict:
    """Nobody accepted: reject unless somebody is unsure."""
    doubt = _doubt(name, verdicts)
    return doubt or Verdict(
        decision="reject",
        verifier=name,
        score=_score(max, verdicts),
        feedback="\n".join(dict.fromkeys(verdict.feedback for verdict in verdicts if verdict.feedback)),
        failure=verdicts[0].failure,
    )


def _then_asked(name: str, verdicts: Sequence[Verdict]) -> Verdict:
    """Everybody is unsure."""
    return _doubt(name, verdicts) or verdicts[-1]


def _doubt(name: str, verdicts: Sequence[Verdict]) -> Verdict | None:
    """The doubts of all that are unsure as one verdict, None where nobody is."""
    unsure = [verdict for verdict in verdicts if verdict.decision == "unsure"]
    if not unsure:
        return None
    return Verdict(
        decision="unsure",
        verifier=unsure[0].verifier if len(unsure) == 1 else name,
        score=_score(min, unsure),
        feedback="\n".join(dict.fromkeys(verdict.feedback for verdict in unsure if verdict.feedback)),
        error="; ".join(verdict.error for verdict in unsure if verdict.error),
    )


def _score(choose: Callable[[list[float]], float], verdicts: Sequence[Verdict]) -> float | None:
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return choose(scores) if scores else None


def _either(rates: Sequence[float]) -> float:
    return 1 - math.prod(1 - rate for rate in rates)


_DECISIVE: dict[How, frozenset[str]] = {
    "all": frozenset({"reject"}),
    "any": frozenset({"accept"}),
    "then": frozenset({"accept", "reject"}),
}
_FORESEES: dict[How, Callable[[Iterable[bool]], bool]] = {"all": any, "any": all, "then": any}
_CONCLUSION: dict[How, Callable[[str, Sequence[Verdict]], Verdict]] = {
    "all": _all_asked,
    "any": _any_asked,
    "then": _then_asked,
}
_SENSITIVITY: dict[How, Callable[[Sequence[float]], float]] = {"all": math.prod, "any": _either, "then": min}
_FALSE_ACCEPT: dict[How, Callable[[Sequence[float]], float]] = {"all": math.prod, "any": _either, "then": max}
