"""Streams: what is shown when, who may start over, and what leaving early leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from governor import Governor, Reply, Usage
from governor.errors import BackendReplyError, BackendUnavailableError
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Delta, Ledger
from governor.records import Call, Outcome
from governor.testing import ScriptedBackend

LADDER = [
    {"id": "low", "model": "m/small", "answer_tokens": 100},
    {"id": "high", "model": "m/large", "answer_tokens": 100},
]
QUESTION = "What is 12 * 17?"
CUT = Reply(text="two hundred", finish_reason="length", usage=Usage(20, 5))
WHOLE = Reply(text="two hundred and four", usage=Usage(20, 5))


class Breaking(ScriptedBackend):
    """Streams break off before their last word where the script says so with a reply named `broken`."""

    closed_early = 0

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        try:
            for piece in super().stream(call):
                if isinstance(piece, Reply) and piece.model == "broken":
                    raise BackendReplyError("cut", model="m/small")
                yield piece
        except GeneratorExit:
            self.closed_early += 1
            raise

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        for piece in list(self.stream(call)) if call.hold else self.stream(call):
            yield piece


def governed(script: Any, ledger: Ledger | None = None, **keys: Any) -> tuple[Governor, Breaking]:
    continues = keys.pop("continues", ())
    backend = Breaking(script, continues=continues)
    policy = policy_from({"version": 1, "app": "test", "dial": 0.9, "ladder": LADDER, **keys})
    return Governor(policy, backend=backend, ledger=ledger or open_ledger("memory://")), backend


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Any:
    def one(governor: Governor, **context: Any) -> tuple[str, Outcome | None]:
        if request.param == "sync":
            stream = governor.stream(QUESTION, **context)
            return "".join(stream), stream.outcome

        async def collect() -> tuple[str, Outcome | None]:
            stream = governor.astream(QUESTION, **context)
            return "".join([piece async for piece in stream]), stream.outcome

        return asyncio.run(collect())

    return one


def test_a_model_that_is_down_is_replaced_before_anything_was_shown(read: Any) -> None:
    governor, _ = governed([BackendUnavailableError("down", sent=False), WHOLE])
    text, outcome = read(governor)
    assert (text, outcome.status, outcome.rung) == (WHOLE.text, "unverified", "high")


def test_a_stream_that_breaks_after_text_was_shown_ends_there(read: Any) -> None:
    governor, backend = governed([Reply(text="two hundred", model="broken"), WHOLE])
    text, outcome = read(governor)
    assert (text, len(backend.calls)) == ("two hundred", 1)
    assert (outcome.status, len(outcome.attempts)) == ("error", 1)
    assert "broke off after text was shown: cut" in outcome.error


def test_a_cut_answer_is_gone_on_from_and_never_started_over(read: Any) -> None:
    governor, _ = governed([CUT, Reply(text=" and four", usage=Usage(20, 5))], continues=["low", "high"])
    assert read(governor)[0] == "two hundred and four"
    governor, backend = governed([CUT, WHOLE])
    text, outcome = read(governor)
    assert (text, len(backend.calls), outcome.status) == ("two hundred", 1, "best_so_far")


def test_samples_are_held_back_until_they_have_voted(read: Any) -> None:
    ladder = [{"id": "vote", "model": "m/small", "samples": 3, "temperature": 0.7}]
    governor, _ = governed([Reply(text="7"), Reply(text="9"), Reply(text="9")], ladder=ladder)
    assert read(governor)[0] == "9"


def test_in_shadow_no_verifier_holds_the_text_back(read: Any) -> None:
    governor, backend = governed([WHOLE], mode="shadow")
    text, outcome = read(governor, checks=({"arithmetic": "12 * 17"},))
    assert (text, backend.calls[0].hold, outcome.arm) == (WHOLE.text, False, "shadow")


def test_leaving_closes_the_models_stream_at_once() -> None:
    ledger = open_ledger("memory://")
    governor, backend = governed([WHOLE], ledger, budget={"step": {"calls": 5}})
    pieces: Any = iter(governor.stream(QUESTION, id="step"))
    assert next(pieces) == "two"
    pieces.close()
    held = ledger.reservation("step")
    assert held is not None
    assert (held.state, held.amount.calls, backend.closed_early) == ("settled", 1, 1)


def test_an_interrupt_while_a_held_call_is_under_way_settles_it() -> None:
    ledger = open_ledger("memory://")
    governor, _ = governed([KeyboardInterrupt()], ledger)
    with pytest.raises(KeyboardInterrupt):
        list(governor.stream(QUESTION, id="step", checks=({"arithmetic": "12 * 17"},)))
    held = ledger.reservation("step")
    assert held is not None
    assert (held.state, held.amount.calls) == ("settled", 1)


def test_a_bug_reaches_the_reader(read: Any) -> None:
    governor, _ = governed([ZeroDivisionError("bug")])
    with pytest.raises(ZeroDivisionError):
        read(governor)


def test_the_step_sees_the_readers_context_and_leaves_nothing_in_it() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="")
    seen: list[str] = []

    def script(call: Call) -> Reply:
        seen.append(mark.get())
        mark.set("the step's")
        return WHOLE

    governor, _ = governed(script)
    mark.set("the reader's")
    for _ in governor.stream(QUESTION):
        assert mark.get() == "the reader's"
    assert seen == ["the reader's"]


async def test_leaving_an_async_stream_cancels_and_settles() -> None:
    ledger = open_ledger("memory://")

    class Endless(ScriptedBackend):
        async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
            yield Delta("one")
            await asyncio.sleep(60)
            yield WHOLE

    policy = policy_from({"version": 1, "app": "test", "ladder": LADDER})
    governor = Governor(policy, backend=Endless([]), ledger=ledger)
    pieces: Any = aiter(governor.astream(QUESTION, id="step"))
    assert await anext(pieces) == "one"
    await pieces.aclose()
    held = ledger.reservation("step")
    assert held is not None
    assert held.state == "settled"
