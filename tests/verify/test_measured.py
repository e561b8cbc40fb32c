"""Measured rates in place of assumed ones; everything else is the verifier's own."""

from __future__ import annotations

from dataclasses import dataclass

from governor.drivers import drive
from governor.effects import Process
from governor.protocols import Redrawn, Verifier
from governor.records import Amount, Call, Reply, Rung, Step, Verdict
from governor.verify.measured import Measured

CALL = Call(step_id="s", rung=Rung(id="a", model="m"), messages=())


@dataclass(frozen=True)
class Judge:
    """A verifier with every property set away from its default."""

    name: str = "judge"
    sensitivity: float = 0.9
    false_accept: float = 0.3
    needs_whole_answer: bool = False
    wants_logprobs: bool = True
    redraws: bool = True

    def bound(self, call: Call) -> Amount:
        return Amount(calls=3)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        yield from ()
        return Verdict(decision="accept", verifier=self.name, score=0.7)


class Plain:
    """A verifier that says nothing of redrawing."""

    name, sensitivity, false_accept, needs_whole_answer, wants_logprobs = "plain", 0.9, 0.1, True, False

    def bound(self, call: Call) -> Amount:
        return Amount()

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        yield from ()
        return Verdict(decision="reject", verifier=self.name)


def test_only_the_rates_are_others() -> None:
    inner = Judge()
    measured: Verifier = Measured(inner, 0.8, 0.1, 50)
    assert (measured.sensitivity, measured.false_accept) == (0.8, 0.1)
    assert (measured.name, measured.needs_whole_answer, measured.wants_logprobs) == ("judge", False, True)
    assert measured.bound(CALL) == Amount(calls=3)
    process = measured.verify(Step(id="s", messages=()), CALL, Reply(text="x"))
    assert drive(process, lambda effect: None).score == 0.7


def test_it_redraws_where_the_inner_one_does() -> None:
    assert isinstance(Measured(Judge(), 0.8, 0.1, 50), Redrawn)
    assert Measured(Judge(), 0.8, 0.1, 50).redraws
    assert not Measured(Plain(), 0.8, 0.1, 50).redraws
