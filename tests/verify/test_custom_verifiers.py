from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from governor.effects import CallModel, Process
from governor.errors import VerifierError
from governor.protocols import Verifier
from governor.records import Amount, Call, Reply, Step, Usage, Verdict
from governor.verify import custom, known_verifiers, problems_of
from tests.verify.driver import STEP, Driver, built, call_of, judged, reply

HERE = "tests.verify.test_custom_verifiers"


def is_42(step: Step, given: Reply) -> bool:
    assert step.prompt
    return given.text == "42"


async def is_42_later(step: Step, given: Reply) -> bool:
    await asyncio.sleep(0)
    return is_42(step, given)


def share_of_digits(step: Step, given: Reply) -> float:
    del step
    return sum(letter.isdigit() for letter in given.text) / len(given.text)


def own_verdict(step: Step, given: Reply) -> Verdict:
    del step, given
    return Verdict(decision="reject", verifier="mine", feedback="try again", failure="wrong", micros=5, seconds=2.0)


def breaks(step: Step, given: Reply) -> bool:
    raise KeyError("two\nlines")


def says(step: Step, given: Reply) -> Any:
    del step
    mistaken: Any = "yes"
    word = Verdict(decision=mistaken, verifier="")
    return {"none": None, "two": 2, "nan": math.nan, "text": "accept", "word": word}[given.text]


def interrupts(step: Step, given: Reply) -> bool:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("function", "text", "decision", "score"),
    [
        ("is_42", "42", "accept", None),
        ("is_42", "41", "reject", None),
        ("is_42_later", "42", "accept", None),
        ("share_of_digits", "12ab", "accept", 0.5),
        ("share_of_digits", "1abc", "reject", 0.25),
    ],
)
def test_functions(function: str, text: str, decision: str, score: float | None) -> None:
    verdict = judged({"callable": f"{HERE}:{function}"}, text)
    assert (verdict.decision, verdict.score, verdict.verifier) == (decision, score, "callable")
    assert verdict.seconds == 1.0


def test_the_threshold_of_a_score() -> None:
    assert judged({"callable": f"{HERE}:share_of_digits", "threshold": 0.9}, "12ab").decision == "reject"


def test_a_verdict_of_one_s_own_keeps_its_name_while_the_account_counts_its_cost() -> None:
    verdict = judged({"callable": f"{HERE}:own_verdict"}, "x")
    assert (verdict.verifier, verdict.feedback, verdict.micros, verdict.seconds) == ("mine", "try again", 0, 1.0)


@pytest.mark.parametrize(
    ("function", "text", "error"),
    [
        ("breaks", "x", "KeyError: 'two\\nlines'"),
        ("says", "none", "returned None"),
        ("says", "two", "returned 2"),
        ("says", "nan", "returned nan"),
        ("says", "text", "returned 'accept'"),
        ("says", "word", "decision 'yes'"),
    ],
)
def test_a_broken_function_is_unsure_in_one_line(function: str, text: str, error: str) -> None:
    verdict = judged({"callable": f"{HERE}:{function}"}, text)
    assert verdict.decision == "unsure"
    assert error in verdict.error
    assert "\n" not in verdict.error


def test_an_interruption_is_no_breakdown() -> None:
    with pytest.raises(KeyboardInterrupt):
        judged({"callable": f"{HERE}:interrupts"}, "x")


def test_closing_a_verification_closes_its_check() -> None:
    process = built({"agreement": 2}).verify(STEP, call_of(STEP), reply("Answer: 1"))
    assert isinstance(next(process), CallModel)
    process.close()
    with pytest.raises(StopIteration):
        next(process)


@pytest.mark.parametrize("place", ["no_such_module:f", f"{HERE}:no_such", f"{HERE}:HERE"])
def test_a_function_that_is_not_there(place: str) -> None:
    with pytest.raises(VerifierError, match=r"can't be imported|not callable"):
        built({"callable": place})
    verdict = judged({"callable": place}, "x", fail="open")
    assert (verdict.decision, bool(verdict.error)) == ("unsure", True)


@dataclass(frozen=True)
class Foreign:
    """A third party's verifier that asks a model and then does what its options say."""

    then: str
    name: str = "foreign"
    sensitivity: float = 0.9
    false_accept: float = 0.1
    needs_whole_answer: bool = True
    wants_logprobs: bool = False

    def bound(self, call: Call) -> Amount:
        del call
        return Amount(calls=1)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del step, reply
        answer = yield CallModel(call)
        if self.then == "break":
            raise RuntimeError("broken")
        return Verdict(decision="accept", verifier=self.name, usage=answer.usage, calls=1)


def make_foreign(options: Mapping[str, Any]) -> Foreign:
    return Foreign(**options)


def make_nothing(options: Mapping[str, Any]) -> Any:
    return dict(options)


READY = Foreign("accept")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def found(group: str) -> list[EntryPoint]:
        names = {"foreign": "make_foreign", "ready": "READY", "nothing": "make_nothing", "gone": "gone"}
        return [EntryPoint(name, f"{HERE}:{value}", group) for name, value in names.items()]

    monkeypatch.setattr(custom, "entry_points", found)
    custom.installed.cache_clear()
    yield
    custom.installed.cache_clear()


@pytest.mark.usefixtures("installed")
def test_verifiers_of_other_packages() -> None:
    assert {"foreign", "ready", "complete"} <= set(known_verifiers())
    assert problems_of({"foreign": {"then": "accept"}}) == []
    for spec in ({"foreign": {"then": "accept"}}, "ready"):
        verifier = built(spec)
        assert isinstance(verifier, Verifier)
        assert (verifier.name, verifier.sensitivity, verifier.false_accept) == ("foreign", 0.9, 0.1)
        assert verifier.bound(call_of(STEP)) == Amount(calls=1)
        verdict = Driver([reply("x")]).run(verifier, reply("y"))
        assert (verdict.decision, verdict.usage, verdict.calls) == ("accept", Usage(10, 4), 1)


@pytest.mark.usefixtures("installed")
def test_a_foreign_verifier_that_breaks_still_states_what_it_spent() -> None:
    verdict = Driver([reply("x")]).run(built({"foreign": {"then": "break"}}), reply("y"))
    assert (verdict.decision, verdict.error) == ("unsure", "RuntimeError: broken")
    assert (verdict.usage, verdict.calls, verdict.micros) == (Usage(10, 4), 1, 18)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("spec", [{"foreign": {"wrong": 1}}, "nothing", "gone"])
def test_a_foreign_verifier_that_can_t_be_made(spec: Any) -> None:
    with pytest.raises(VerifierError, match=r"can't be made|is no Verifier"):
        built(spec)
    assert judged(spec, "x", fail="open").decision == "unsure"
