"""What is doubted of an answer's beginning is accepted with no ending."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from governor.effects import Process
from governor.protocols import Verifier
from governor.records import Amount, Call, Reply, Rung, Step, ToolCall, Verdict
from governor.verify import answer, build_verifier, may_foresee
from governor.verify.combine import Combined
from governor.verify.custom import Guarded
from governor.verify.foresight import doubts, foresees
from governor.verify.kinds import KINDS
from governor.verify.leaf import Leaf, pure
from governor.verify.measured import Measured

STEP = Step(id="s", messages=({"role": "user", "content": "?"},))
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {}}},)
CALL = Call(step_id="s", rung=Rung(id="r", model="m"), messages=STEP.messages)

LEAVES: list[Any] = [
    "complete",
    {"contains": {"text": "a", "absent": ["bad word", "<th"]}},
    {"contains": {"text": "", "absent": ["Straße"], "ignore_case": False}},
    {"regex": {"pattern": r"\d", "max_chars": 6}},
    {"regex": {"pattern": "a .*", "mode": "fullmatch", "max_chars": 9}},
    {"regex": "4"},
    {"choice": ["a", "b"]},
    {"complete": {"refusals": False}},
]
SPECS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.dictionaries(
        st.sampled_from(["all", "any", "then"]), st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=1
    ),
    max_leaves=5,
)
PIECES = (
    "a ",
    "bad",
    " word",
    "4",
    "<think>",
    "</think>",
    "<th",
    "ink>",
    "stra\u00dfe ",
    "STRASSE",
    "\u200b",
    "\n",
    "b.",
)
WORDS = st.one_of(st.sampled_from([*PIECES, "I'm sorry, but I", " can't", " help with that. "]), st.text(max_size=4))
TEXTS = st.lists(WORDS, max_size=9).map("".join)


def made(spec: Any) -> Verifier:
    verifier = build_verifier(spec, bound=lambda _: Amount())
    assert verifier is not None
    return verifier


def verdict(verifier: Verifier, step: Step, reply: Reply) -> Verdict:
    work: Process[Verdict] = verifier.verify(step, CALL, reply)
    with pytest.raises(StopIteration) as ended:
        next(work)
    value: Verdict = ended.value.value
    return value


@given(SPECS, TEXTS, TEXTS, st.booleans(), st.booleans())
@example(LEAVES[1], "a bad word ", "", False, False)
@example(LEAVES[1], "a <th", "ink>x</think>", False, False)
@example("complete", "I'm sorry, but I can't help with that. ", "", True, True)
def test_what_is_doubted_is_never_accepted(spec: Any, begun: str, rest: str, offered: bool, called: bool) -> None:
    whole = begun + rest
    assume(answer._THOUGHT_END.search(answer._THOUGHT.sub("", whole)) is None)
    verifier, step = made(spec), Step(id="s", messages=STEP.messages, tools=TOOLS * offered)
    if doubts(verifier, step, begun):
        calls = (ToolCall(id="1", name="look", arguments="{}"),) * (offered and called)
        for finish in ("stop", "length", "doubted"):
            reply = Reply(text=whole, tool_calls=calls, finish_reason=finish)
            assert verdict(verifier, step, reply).decision == "reject"


@given(SPECS)
def test_a_spec_tells_whether_its_verifier_foresees(spec: Any) -> None:
    assert may_foresee(spec) == foresees(made(spec))


@given(SPECS, TEXTS)
def test_what_can_foresee_nothing_doubts_nothing(spec: Any, text: str) -> None:
    assert may_foresee(spec) or not doubts(made(spec), STEP, text)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("complete", "I'm sorry, but I can't help with that. "),
        (LEAVES[1], "some Bad Word, "),
        (LEAVES[3], "no number yet"),
        ({"all": [{"regex": "4"}, "complete"]}, "I cannot help you there. "),
        ({"any": ["complete", LEAVES[3]]}, "I cannot help you there. "),
        ({"then": ["complete", {"regex": "4"}]}, "I cannot help you there. "),
    ],
)
def test_what_can_be_told_is_told(spec: Any, text: str) -> None:
    assert doubts(made(spec), STEP, text)
    assert not doubts(made(spec), STEP, "So")


def test_a_member_that_is_asked_later_decides_nothing_alone() -> None:
    refusal = "I cannot help you there. "
    assert not doubts(made({"any": ["complete", {"regex": "4"}]}), STEP, refusal)
    assert not doubts(made({"then": [{"regex": "4"}, "complete"]}), STEP, refusal)


def test_the_kinds_that_foresee_say_so() -> None:
    kinds = [next(iter(one)) if isinstance(one, dict) else one for one in LEAVES if may_foresee(one)]
    assert {name for name, kind in KINDS.items() if kind.foresees} == set(kinds)


def test_a_wrong_spec_foresees_nothing() -> None:
    assert not may_foresee({"complet": {}})
    assert not may_foresee(None)


def test_wrappers_pass_doubts_on() -> None:
    inner = made("complete")
    for outer in (Measured(inner, 0.9, 0.1, 50), Guarded(inner), Combined("all", (inner,))):
        assert foresees(outer)
        assert doubts(outer, STEP, "I cannot help you there. ") == "complete"
    blind = Guarded(made({"regex": "4"}))
    assert not foresees(blind)
    assert not doubts(blind, STEP, "x")


def test_a_doubt_that_breaks_down_doubts_nothing() -> None:
    def broken(step: Step, text: str) -> bool:
        raise ValueError(text)

    work = pure(lambda step, reply: Verdict(decision="accept", verifier=""))
    leaf = Leaf(name="x", sensitivity=1.0, false_accept=0.0, work=work, doubt=broken)
    assert foresees(leaf)
    assert not doubts(leaf, STEP, "anything")
