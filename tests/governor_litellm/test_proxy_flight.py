"""No flight is ever lost: whatever happens to a request, its loop ends and its reservation is settled, once."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.errors import BackendUnavailableError, LedgerUnavailableError
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import Policy, policy_from
from governor.protocols import Ledger
from governor.records import Call, Outcome, Step
from governor_litellm.flight import GONE, SILENCE, Flight, Request
from governor_litellm.models import ProxyModels, RouterBackend
from governor_litellm.wires.chat import ChatWire

Event = Literal["right", "wrong", "garbage", "fails", "fails unsent", "leaves", "shown", "cancelled", "lost"]
Further = Literal["right", "wrong", "fails", "hangs"]
POLICY = policy_from(
    {
        "version": 1,
        "app": "a",
        "ledger": "memory://",
        "models": {"weak": {"wire": "plain"}, "strong": {"wire": "plain"}},
        "verify": {"regex": "42"},
        "budget": {"app": {"per": "total", "calls": 1000}},
        "ladder": [
            {"id": "w", "model": "weak", "price": {"input": 1, "output": 1}, "answer_tokens": 50, "timeout": 0.05},
            {"id": "s", "model": "strong", "price": {"input": 9, "output": 9}, "answer_tokens": 50, "timeout": 0.05},
        ],
    }
)


def response(text: str | None) -> Any:
    message = SimpleNamespace(content=text, tool_calls=None, reasoning_content=None)
    choices = [] if text is None else [SimpleNamespace(message=message, finish_reason="stop", logprobs=None)]
    usage = SimpleNamespace(prompt_tokens=5, completion_tokens=5)
    return SimpleNamespace(choices=choices, usage=usage, model="m")


class Router:
    """Answers further calls one after the other as it is told."""

    def __init__(self, answers: list[Further]) -> None:
        self.answers, self.calls = list(answers), 0
        self.model_list: list[Any] = []

    async def acompletion(self, **_: Any) -> Any:
        self.calls += 1
        match self.answers.pop(0) if self.answers else "right":
            case "fails":
                raise ValueError("no")
            case "hangs":
                await asyncio.sleep(30)
            case _:
                pass
        return response("42" if self.calls % 2 else "41")


class Bench:
    """One flight on a ledger of its own, and what became of it."""

    def __init__(
        self,
        policy: Policy,
        answers: list[Further] | None = None,
        ledger: Ledger | None = None,
        *,
        thinks: bool = False,
    ) -> None:
        self.router = Router(answers or [])
        self.ledger = ledger or open_ledger("memory://")
        models = ProxyModels(lambda: self.router)
        self.governor = Governor(policy, backend=RouterBackend(models, policy), ledger=self.ledger)
        step = Step(id="s1", messages=({"role": "user", "content": "What?"},))
        self.ended: list[Flight] = []
        request = Request(
            wire=ChatWire(),
            step=step,
            terms=self.governor.terms(step),
            kept={"messages": [{"role": "user", "content": "What?"}]},
            bucket={},
            thinks=thinks,
        )
        self.flight = Flight(self.governor, models, request, self.ended.append)

    async def begun(self) -> Call | Outcome:
        self.flight.start()
        answer = await self.flight.admitted()
        self.flight.tries.begun = 1
        return answer

    def settled(self) -> None:
        assert self.ended == [self.flight], "`over` is called once"
        balance = self.ledger.balance("app:a")
        assert balance.reserved.calls == 0
        assert balance.overshoot.calls == 0


async def happen(bench: Bench, event: Event, waiter: asyncio.Task[Outcome]) -> None:
    flight = bench.flight
    match event:
        case "right" | "wrong":
            flight.give(response("42" if event == "right" else "41"))
        case "garbage":
            flight.give(response(None))
        case "fails":
            flight.fail(RuntimeError("broken"))
        case "fails unsent":
            flight.fail(BackendUnavailableError("refused", model="weak", sent=False), final=False)
        case "leaves":
            flight.leave("the client went away")
        case "shown":
            flight.leave("the client went away", 3)
        case "cancelled":
            waiter.cancel()
        case "lost":
            flight.lost()
    await asyncio.sleep(0)


EVENTS = st.lists(
    st.sampled_from(["right", "wrong", "garbage", "fails", "fails unsent", "leaves", "shown", "cancelled", "lost"]),
    min_size=1,
    max_size=4,
)
FURTHER = st.lists(st.sampled_from(["right", "wrong", "fails", "hangs"]), max_size=5)


@settings(max_examples=150)
@given(events=EVENTS, further=FURTHER)
def test_whatever_happens_the_flight_ends_and_is_settled(events: list[Event], further: list[Further]) -> None:
    async def fly() -> None:
        bench = Bench(POLICY, further)
        assert isinstance(await bench.begun(), Call)
        waiter = asyncio.create_task(bench.flight.outcome())
        await asyncio.sleep(0)
        for event in events:
            await happen(bench, event, waiter)
        async with asyncio.timeout(10):
            await asyncio.wait([waiter, bench.flight.task], return_when=asyncio.ALL_COMPLETED)
        await asyncio.sleep(0)
        bench.settled()
        if not waiter.cancelled():
            waiter.exception()

    asyncio.run(fly())


async def test_an_answer_is_charged_once_however_often_it_is_given() -> None:
    bench = Bench(POLICY)
    await bench.begun()
    for _ in range(3):
        bench.flight.give(response("42"))
    outcome = await bench.flight.outcome()
    assert (outcome.status, bench.ledger.balance("app:a").spent.calls) == ("accepted", 1)
    bench.settled()


async def test_what_was_never_sent_costs_nothing() -> None:
    bench = Bench(POLICY)
    await bench.begun()
    bench.flight.tries.begun = 0
    bench.flight.fail(RuntimeError("another hook refused the request"))
    outcome = await bench.flight.outcome()
    assert outcome.status == "error"
    assert bench.ledger.balance("app:a").spent.calls == 0
    assert bench.router.calls == 0, "the client was told: nothing else is tried"
    bench.settled()


async def test_a_failure_that_nobody_saw_goes_up_the_ladder() -> None:
    bench = Bench(POLICY)
    await bench.begun()
    bench.flight.fail(RuntimeError("cut"), final=False)
    outcome = await bench.flight.outcome()
    assert (outcome.status, outcome.answer, bench.router.calls) == ("accepted", "42", 1)
    bench.settled()


async def test_a_request_that_nobody_holds_any_more_ends() -> None:
    class Owner:
        """What the proxy holds on to."""

    bench, owner = Bench(POLICY), Owner()
    await bench.begun()
    bench.flight.watch(owner)
    del owner
    gc.collect()
    async with asyncio.timeout(5):
        outcome = await bench.flight.outcome()
    assert bench.flight.closed == GONE
    assert outcome.status == "error"
    bench.settled()


async def test_a_call_that_nothing_is_heard_of_is_given_up_and_booked_at_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("governor_litellm.flight.PATIENCE", 0.01)
    bench, began = Bench(POLICY), time.monotonic()
    call = await bench.begun()
    assert isinstance(call, Call)
    async with asyncio.timeout(5):
        outcome = await bench.flight.outcome()
    assert time.monotonic() - began >= 4 * call.timeout
    assert (outcome.status, bench.flight.closed, bench.router.calls) == ("error", SILENCE, 0)
    assert bench.ledger.balance("app:a").spent.answer == 50, "it may have cost all that it could"
    bench.settled()


async def test_an_answer_in_time_leaves_nothing_waiting() -> None:
    bench = Bench(POLICY)
    await bench.begun()
    bench.flight.give(response("42"))
    assert (await bench.flight.outcome()).status == "accepted"
    flight = weakref.ref(bench.flight)
    del bench
    gc.collect()
    await asyncio.sleep(0)
    assert flight() is None, "no timer holds on to it"


async def test_an_answer_that_nobody_waits_for_is_not_taken_back() -> None:
    """In shadow the request is over as soon as its answer is known; the loop still books it as it was."""

    class Owner:
        """What the proxy holds on to."""

    bench, owner = Bench(POLICY.model_copy(update={"mode": "shadow"})), Owner()
    await bench.begun()
    bench.flight.watch(owner)
    bench.flight.give(response("41"))
    del owner
    gc.collect()
    outcome = await bench.flight.outcome()
    assert (outcome.arm, bench.flight.closed) == ("shadow", "")
    assert bench.ledger.balance("app:a").spent.tokens == 10


async def test_a_visible_answer_is_booked_by_its_bytes_a_thinking_one_at_its_bound() -> None:
    bench = Bench(POLICY)
    await bench.begun()
    bench.flight.leave("the client went away", 7)
    await bench.flight.outcome()
    assert bench.ledger.balance("app:a").spent.answer == 7
    rungs = [rung.model_copy(update={"thinking_tokens": 9}) for rung in POLICY.ladder]
    thinking = Bench(POLICY.model_copy(update={"ladder": tuple(rungs)}))
    await thinking.begun()
    thinking.flight.leave("the client went away", 7)
    await thinking.flight.outcome()
    assert thinking.ledger.balance("app:a").spent.answer == 59


async def test_what_an_unknown_model_may_have_thought_is_booked_too() -> None:
    for bench in (Bench(POLICY.model_copy(update={"models": {}})), Bench(POLICY, thinks=True)):
        await bench.begun()
        bench.flight.leave("the client went away", 0)
        await bench.flight.outcome()
        assert bench.ledger.balance("app:a").spent.answer == 50


async def test_a_ledger_that_is_down_refuses_under_a_money_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(POLICY)

    def down(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("down")

    monkeypatch.setattr(bench.ledger, "reserve", down)
    outcome = await bench.begun()
    assert isinstance(outcome, Outcome)
    assert outcome.status == "error"
    assert bench.ended == [bench.flight]
