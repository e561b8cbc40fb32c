from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.effects import CallModel, Process
from governor.protocols import Verifier
from governor.records import Amount, Call, Decision, Reply, Step, Usage, Verdict
from governor.verify.combine import Combined, How
from tests.verify.driver import STEP, TOP, Driver, built, call_of, reply

MIRROR: dict[str, Decision] = {"accept": "reject", "reject": "accept", "unsure": "unsure"}
ROWS: list[tuple[How, list[Decision], Decision, int]] = [
    ("all", ["accept", "accept"], "accept", 2),
    ("all", ["reject", "accept"], "reject", 1),
    ("all", ["accept", "reject", "accept"], "reject", 2),
    ("all", ["unsure", "reject"], "reject", 2),
    ("all", ["unsure", "accept"], "unsure", 2),
    ("any", ["reject", "accept", "reject"], "accept", 2),
    ("any", ["reject", "reject"], "reject", 2),
    ("any", ["unsure", "accept"], "accept", 2),
    ("any", ["reject", "unsure"], "unsure", 2),
    ("then", ["accept", "reject"], "accept", 1),
    ("then", ["reject", "accept"], "reject", 1),
    ("then", ["unsure", "accept"], "accept", 2),
    ("then", ["unsure", "unsure"], "unsure", 2),
]


@dataclass(frozen=True)
class Fixed:
    """Always decides the same, and asks a model first."""

    decision: Decision
    sensitivity: float = 0.9
    false_accept: float = 0.2
    needs_whole_answer: bool = False
    wants_logprobs: bool = False
    name: str = "fixed"
    score: float | None = None

    def bound(self, call: Call) -> Amount:
        del call
        return Amount(1, 2, 3, 4)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del step, reply
        yield CallModel(call)
        return Verdict(
            decision=self.decision,
            verifier=self.name,
            score=self.score,
            feedback=f"{self.name} says {self.decision}",
            error="broken" if self.decision == "unsure" else "",
        )


decisions = st.sampled_from(["accept", "reject", "unsure"])
members = st.builds(Fixed, decisions, st.floats(0, 1), st.floats(0, 1))
some = st.lists(members, min_size=1, max_size=4).map(tuple)
hows = st.sampled_from(["all", "any", "then"])


def decide(verifier: Verifier) -> Verdict:
    return Driver(repeat(reply("y"))).run(verifier, reply("x"))


@pytest.mark.parametrize(("how", "given_decisions", "decision", "asked"), ROWS)
def test_who_decides_and_who_is_asked(
    how: How, given_decisions: list[Decision], decision: Decision, asked: int
) -> None:
    verdict = decide(Combined(how, tuple(Fixed(one) for one in given_decisions)))
    assert verdict.decision == decision
    assert (verdict.calls, verdict.micros, verdict.usage) == (asked, 18 * asked, Usage(10 * asked, 4 * asked))
    assert verdict.seconds == 0.5 * asked


@given(members, hows)
def test_one_member_alone_decides(member: Fixed, how: How) -> None:
    combined = Combined(how, (member,))
    assert decide(combined).decision == member.decision
    assert combined.sensitivity == pytest.approx(member.sensitivity)
    assert combined.false_accept == pytest.approx(member.false_accept)


@given(some, some, some, hows)
def test_grouping_does_not_matter(a: tuple[Fixed, ...], b: tuple[Fixed, ...], c: tuple[Fixed, ...], how: How) -> None:
    left = Combined(how, (Combined(how, a + b), *c))
    right = Combined(how, (*a, Combined(how, b + c)))
    flat = Combined(how, a + b + c)
    assert decide(left).decision == decide(right).decision == decide(flat).decision
    assert left.bound(call_of(STEP)) == right.bound(call_of(STEP)) == flat.bound(call_of(STEP))
    assert left.sensitivity == pytest.approx(flat.sensitivity) == pytest.approx(right.sensitivity)
    assert left.false_accept == pytest.approx(flat.false_accept)


@given(some, st.randoms(), st.sampled_from(["all", "any"]))
def test_order_does_not_matter_for_all_and_any(given_members: tuple[Fixed, ...], chance: Any, how: How) -> None:
    shuffled = list(given_members)
    chance.shuffle(shuffled)
    assert decide(Combined(how, given_members)).decision == decide(Combined(how, tuple(shuffled))).decision


@given(some)
def test_any_is_all_seen_in_a_mirror(given_members: tuple[Fixed, ...]) -> None:
    mirrored = tuple(Fixed(MIRROR[member.decision]) for member in given_members)
    assert decide(Combined("any", given_members)).decision == MIRROR[decide(Combined("all", mirrored)).decision]


@given(some, hows)
def test_rates_stay_probabilities_and_spend_within_the_bound(given_members: tuple[Fixed, ...], how: How) -> None:
    combined = Combined(how, given_members)
    assert 0 <= combined.sensitivity <= 1
    assert 0 <= combined.false_accept <= 1
    assert combined.bound(call_of(STEP)).calls == 4 * len(given_members)
    assert decide(combined).calls <= len(given_members)


def test_rates_under_independence() -> None:
    pair = (Fixed("accept", 0.9, 0.2), Fixed("accept", 0.8, 0.5))
    rates = {how: (Combined(how, pair).sensitivity, Combined(how, pair).false_accept) for how in ("all", "any", "then")}
    assert rates["all"] == pytest.approx((0.72, 0.1))
    assert rates["any"] == pytest.approx((0.98, 0.6))
    assert rates["then"] == pytest.approx((0.8, 0.5))


def test_feedback_scores_and_names() -> None:
    rejected = decide(Combined("any", (Fixed("reject", name="a"), Fixed("reject", name="b"))))
    assert rejected.feedback == "a says reject\nb says reject"
    assert rejected.verifier == "any(a, b)"
    doubtful = decide(Combined("all", (Fixed("unsure", name="a"), Fixed("accept"), Fixed("unsure", name="b"))))
    assert doubtful.error == "broken; broken"
    scored = (Fixed("accept", score=0.9), Fixed("accept", score=0.6), Fixed("accept"))
    assert decide(Combined("all", scored)).score == 0.6


def test_what_one_member_wants_all_want() -> None:
    pair = Combined("any", (Fixed("accept"), Fixed("accept", needs_whole_answer=True, wants_logprobs=True)))
    assert (pair.needs_whole_answer, pair.wants_logprobs) == (True, True)
    assert isinstance(pair, Verifier)


def test_nothing_can_t_be_combined() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Combined("all", ())


def test_a_cheap_check_spares_the_judge() -> None:
    spec = {"then": [{"confidence": 0.9}, {"judge": "top"}]}
    verifier = built(spec, judge_rungs={"top": TOP})
    sure = Driver()
    assert sure.run(verifier, reply("x", logprobs=(0.0,))).decision == "accept"
    assert sure.calls == []
    silent = Driver([reply('{"verdict": "reject", "score": 0}')])
    verdict = silent.run(verifier, reply("x"))
    assert (verdict.decision, verdict.calls, len(silent.calls)) == ("reject", 1, 1)
