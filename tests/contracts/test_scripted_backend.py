from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from governor.errors import BackendTimeoutError
from governor.protocols import Backend, Delta
from governor.records import Call, Reply, Rung, Usage
from governor.testing import FrozenClock, ScriptedBackend, raised

CALL = Call(step_id="s", rung=Rung(id="low", model="m"), messages=({"role": "user", "content": "three words here"},))


def test_answers_come_in_order_and_calls_are_kept() -> None:
    late = BackendTimeoutError("late")
    backend: Backend = ScriptedBackend([Reply(text="one"), late, "two words"])
    assert backend.call(CALL) == Reply(text="one")
    assert raised(BackendTimeoutError, lambda: backend.call(CALL)) is late
    assert backend.call(CALL) == Reply(text="two words", usage=Usage(3, 2), model="m")
    assert isinstance(backend, ScriptedBackend)
    assert backend.calls == [CALL] * 3
    with pytest.raises(AssertionError, match=r"used up: unforeseen call of rung 'low' \(answer\)"):
        backend.call(CALL)


async def test_a_function_of_the_call_answers_in_every_colour() -> None:
    backend = ScriptedBackend(lambda call: Reply(text=f"to {call.rung.id}: yes \n ok", thinking="hm"))
    reply = Reply(text="to low: yes \n ok", thinking="hm")
    assert backend.call(CALL) == await backend.acall(CALL) == reply
    pieces = list(backend.stream(CALL))
    assert pieces == [piece async for piece in backend.astream(CALL)]
    assert pieces[0] == Delta(thinking="hm")
    assert pieces[-1] == reply
    assert "".join(piece.text for piece in pieces[:-1] if isinstance(piece, Delta)) == reply.text
    assert len(backend.calls) == 4


def test_continuation_and_closing_are_as_told() -> None:
    backend = ScriptedBackend([], continues={"low"})
    assert backend.continues(CALL.rung)
    assert not ScriptedBackend([]).continues(CALL.rung)
    backend.close()
    assert backend.closed


def test_a_frozen_clock_stands_until_it_is_turned() -> None:
    clock = FrozenClock(10.0)
    assert (clock(), clock()) == (10.0, 10.0)
    clock.advance(-2.5)
    assert clock() == 7.5


def test_raised_notices_when_nothing_is_raised() -> None:
    with pytest.raises(AssertionError, match="KeyError was not raised"):
        raised(KeyError, lambda: None)


def test_the_module_needs_no_pytest() -> None:
    code = "import sys, governor.testing; assert not {'pytest', '_pytest', 'hypothesis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
