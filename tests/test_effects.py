"""A process that is begun in one place and ends in another is the process as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.drivers import drive
from governor.effects import CallModel, Effect, Now, Process, opened, rest
from governor.records import Call, Rung

CALL = CallModel(Call(step_id="s", rung=Rung(id="low", model="m/low", answer_tokens=10), messages=()))
KINDS: dict[str, Effect] = {"now": Now(), "call": CALL}
Script = Sequence[tuple[str, bool]]
"""Effects by kind, and whether each is answered by an error."""


def process(script: Script) -> Process[list[str]]:
    """Asks for the effects in order, and tells what it was answered."""
    told: list[str] = []
    for kind, _ in script:
        try:
            answer: str = yield KINDS[kind]
            told.append(answer)
        except ValueError as fault:
            told.append(f"failed {fault}")
    return told


def performer(script: Script) -> Any:
    """Answers the effects in order, whichever process they come from."""
    answers = iter(enumerate(script))

    def perform(_: Effect) -> str:
        number, (_kind, fails) = next(answers)
        if fails:
            raise ValueError(number)
        return str(number)

    return perform


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), max_size=8))
def test_a_process_begun_apart_is_the_same_process(script: Script) -> None:
    perform, begun = performer(script), process(script)
    found = drive(opened(begun), perform)
    if isinstance(found, CallModel):
        found = drive(rest(begun, found), perform)
    assert found == drive(process(script), performer(script))


def test_it_waits_for_its_first_call() -> None:
    script: Script = [("now", True), ("call", False), ("now", False)]
    begun = process(script)
    assert drive(opened(begun), performer(script)) is CALL
    assert drive(rest(begun, CALL), lambda effect: type(effect).__name__) == ["failed 0", "CallModel", "Now"]


def test_what_a_process_does_not_catch_leaves_it() -> None:
    def fragile() -> Process[str]:
        yield Now()
        yield CALL
        return "whole"

    def refuse(_: Effect) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        drive(opened(fragile()), refuse)
    begun = fragile()
    drive(opened(begun), lambda _: None)
    with pytest.raises(KeyError):
        drive(rest(begun, CALL), refuse)
