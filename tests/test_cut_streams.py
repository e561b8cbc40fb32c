"""Streams that can be cut: what they reserve, how they are extended, where they end, what the ledger then says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor import Governor, Reply, Usage
from governor.errors import BackendReplyError, LedgerUnavailableError, ReservationError
from governor.ledger import open_ledger
from governor.plan.reach import tokens_at
from governor.policy import policy_from
from governor.protocols import Delta, Ledger
from governor.records import Amount, Call, Limit, Outcome
from governor.testing import ScriptedBackend

QUESTION = "Tell me a long story."
MOST = 1024
APP = "app:test"


def story(words: int) -> Reply:
    """A reply of so many words, each one token."""
    return Reply(text=" ".join(["so"] * words), usage=Usage(20, words))


def words(text: str) -> int:
    return len(text.split())


class Watched:
    """A ledger that keeps what it was asked to hold, and may be made to fail."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.held: list[int] = []
        self.before: Callable[[], object] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def reserve(self, key: str, amount: Amount, limits: Any, **how: Any) -> Any:
        found = self._ledger.reserve(key, amount, limits, **how)
        self.held.append(amount.answer)
        return found

    def extend(self, key: str, amount: Amount, **how: Any) -> Any:
        if self.before is not None:
            self.before()
        found = self._ledger.extend(key, amount, **how)
        self.held.append(amount.answer)
        return found


def governed(script: Any, limit: int, *, counted: bool = True, ledger: Any = None, **keys: Any) -> Governor:
    policy = policy_from(
        {
            "version": 1,
            "app": "test",
            "ladder": [{"id": "low", "model": "m/small", "answer_tokens": MOST}],
            "budget": {"app": {"answer_tokens": limit, "per": "total"}} | keys.pop("budget", {}),
            "backtrack": {"max_attempts": 1},
            **keys,
        }
    )
    backend = ScriptedBackend(script, counted=["low"] if counted else [])
    return Governor(policy, backend=backend, ledger=ledger or open_ledger("memory://"))


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Any:
    return _read if request.param == "sync" else _aread


def _read(governor: Governor, **context: Any) -> tuple[str, Outcome]:
    stream = governor.stream(QUESTION, **context)
    text = "".join(stream)
    assert stream.outcome is not None
    return text, stream.outcome


def _aread(governor: Governor, **context: Any) -> tuple[str, Outcome]:
    async def collect() -> tuple[str, Outcome]:
        stream = governor.astream(QUESTION, **context)
        text = "".join([piece async for piece in stream])
        assert stream.outcome is not None
        return text, stream.outcome

    return asyncio.run(collect())


def test_less_than_the_bound_is_held_and_more_while_it_runs(read: Any) -> None:
    ledger = Watched(open_ledger("memory://"))
    text, outcome = read(governed([story(1000)], 20_000, ledger=ledger))
    first, *later = ledger.held
    assert (words(text), outcome.status, outcome.refusal) == (1000, "unverified", None)
    assert first < MOST
    assert set(later[:-1]) == {64}
    assert sum(ledger.held) == MOST
    assert ledger.balance(APP).spent.answer == 1000


@pytest.mark.parametrize("how", ["run", "not counted"])
def test_what_can_not_be_cut_holds_its_bound(how: str) -> None:
    ledger = Watched(open_ledger("memory://"))
    governor = governed([story(10)], 20_000, ledger=ledger, counted=how == "run")
    outcome = governor.run(QUESTION) if how == "run" else _read(governor)[1]
    assert (outcome.status, ledger.held) == ("unverified", [MOST])


def test_a_stream_is_cut_exactly_where_the_budget_ends(read: Any) -> None:
    ledger = open_ledger("memory://")
    text, outcome = read(governed([story(1000)], 700, ledger=ledger))
    assert (words(text), words(outcome.answer)) == (700, 700)
    assert (outcome.reply.finish_reason, outcome.status) == ("length", "best_so_far")
    assert (outcome.refusal.kind, outcome.refusal.scope) == ("too_large", APP)
    balance = ledger.balance(APP)
    assert (balance.spent.answer, balance.reserved.answer, balance.overshoot) == (700, 0, Amount())


def test_the_last_stream_opens_with_what_is_left(read: Any) -> None:
    ledger = open_ledger("memory://")
    governor = governed([story(100), story(50), story(500)], 500, ledger=ledger)
    assert [words(read(governor)[0]) for _ in range(3)] == [100, 50, 350]
    text, outcome = read(governor)
    assert (text, outcome.status, outcome.refusal.kind) == ("", "refused", "budget_exceeded")


def test_it_waits_for_others_instead_of_opening_short(read: Any) -> None:
    ledger = open_ledger("memory://")
    ledger.reserve("other", Amount(answer=250), [Limit(APP, answer=300)])
    _, outcome = read(governed([], 300, ledger=ledger))
    assert (outcome.status, outcome.refusal.kind, outcome.refusal.retry_after) == ("refused", "budget_busy", 1.0)


def test_it_goes_on_when_others_settle_while_it_asks(read: Any) -> None:
    ledger = Watched(open_ledger("memory://"))
    ledger._ledger.reserve("other", Amount(answer=700), [Limit(APP, answer=1200)])
    asked = 0

    def settle_late() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            ledger._ledger.settle("other", Amount(answer=100))

    ledger.before = settle_late
    text, outcome = read(governed([story(900)], 1200, ledger=ledger, budget={"streams": {"quantile": 0.9}}))
    assert (words(text), outcome.refusal) == (900, None)
    assert asked > 3


def test_a_refusal_that_was_overcome_is_not_told(read: Any) -> None:
    ledger = Watched(open_ledger("memory://"))
    ledger._ledger.reserve("other", Amount(answer=700), [Limit(APP, answer=1500)])
    asked = iter(range(100))
    ledger.before = lambda: ledger._ledger.settle("other", Amount(answer=100)) if next(asked) == 9 else None
    text, outcome = read(governed([replace(story(MOST), finish_reason="length")], 1500, ledger=ledger))
    assert (words(text), outcome.reply.finish_reason, outcome.refusal) == (MOST, "length", None)


def test_a_ledger_that_forgot_the_reservation_ends_the_stream(read: Any) -> None:
    def unknown() -> None:
        raise ReservationError("unknown")

    ledger = Watched(open_ledger("memory://"))
    ledger.before = unknown
    text, outcome = read(governed([story(1000)], 20_000, ledger=ledger, fail="open"))
    assert (words(text), outcome.error) == (ledger.held[0], "unknown")


def test_money_is_cut_at_too(read: Any) -> None:
    ledger = open_ledger("memory://")
    governor = governed(
        [story(1000)],
        20_000,
        ledger=ledger,
        budget={"app": {"usd": 0.001, "per": "total"}},
        models={"m/small": {"price": {"input": 0, "output": 2.0}}},
    )
    text, outcome = read(governor)
    assert (words(text), outcome.refusal.dimension) == (500, "micros")
    assert ledger.balance(APP).spent.micros == 1000


def test_tokens_that_come_together_never_pass_what_is_held(read: Any) -> None:
    """A server under load sends several tokens in one piece."""

    class Lumps(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            for at in range(50, 1001, 50):
                yield Delta(text=" so" * 50, usage=Usage(20, at))
            yield story(1000)

    ledger = open_ledger("memory://")
    governor = governed([], 730, ledger=ledger)
    governor.backend = Lumps([], counted=["low"])
    text, _ = read(governor)
    assert words(text) == ledger.balance(APP).spent.answer == 700


@pytest.mark.parametrize(("fail", "said"), [("open", 1000), ("closed", None)])
def test_a_store_that_goes_away_ends_the_stream_or_not_as_the_policy_says(
    fail: str, said: int | None, read: Any
) -> None:
    ledger = Watched(open_ledger("memory://"))

    def gone() -> None:
        raise LedgerUnavailableError("gone")

    ledger.before = gone
    text, outcome = read(governed([story(1000)], 20_000, ledger=ledger, fail=fail))
    assert words(text) == (said or ledger.held[0])
    assert (outcome.reply.finish_reason == "length") is (said is None)
    assert ("gone" in outcome.error) is (said is None)


def test_a_stream_that_breaks_off_is_booked_at_what_it_could_have_reached(read: Any) -> None:
    class Broken(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            yield Delta(text="so", usage=Usage(20, 1))
            raise BackendReplyError("cut", model="m/small")

    ledger = Watched(open_ledger("memory://"))
    governor = governed([], 20_000, ledger=ledger)
    governor.backend = Broken([], counted=["low"])
    read(governor)
    balance = ledger.balance(APP)
    assert (balance.spent.answer, balance.overshoot) == (ledger.held[0], Amount())


def test_leaving_while_it_is_paused_closes_the_models_stream_and_settles() -> None:
    closed: list[bool] = []

    class Closing(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            try:
                yield from super().stream(call)
            finally:
                closed.append(True)

    ledger = Watched(open_ledger("memory://"))
    governor = governed([], 20_000, ledger=ledger)
    governor.backend = Closing([story(1000)], counted=["low"])

    def interrupted() -> None:
        raise KeyboardInterrupt

    ledger.before = interrupted
    with pytest.raises(KeyboardInterrupt):
        _read(governor, id="left")
    held = ledger.reservation("left")
    assert (closed, held.state, held.amount.answer) == ([True], "settled", ledger.held[0])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 1023), min_size=1, max_size=6),
    limit=st.integers(1, 3000),
    step=st.integers(1, 200),
    quantile=st.floats(0.05, 0.99),
)
def test_streams_never_pass_a_limit_and_leave_less_than_a_usual_answer(
    lengths: list[int], limit: int, step: int, quantile: float
) -> None:
    ledger = open_ledger("memory://")
    budget = {"streams": {"step": step, "quantile": quantile}}
    governor = governed([story(one) for one in lengths], limit, ledger=ledger, budget=budget)
    shown = [words(_read(governor)[0]) for _ in lengths]
    balance = ledger.balance(APP)
    assert sum(shown) == balance.spent.answer <= limit
    assert balance.reserved == balance.overshoot == Amount()
    if sum(lengths) > limit:
        (forecast,) = governor.explain(QUESTION).plan.forecasts
        least = min(tokens_at(forecast, 0.5), max(tokens_at(forecast, quantile), step))
        assert limit - sum(shown) < least + 1


def test_the_model_makes_no_token_that_is_not_held(read: Any) -> None:
    made = 0

    class Lazy(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            nonlocal made
            for made in range(1, 1001):
                yield Delta(text=" so", usage=Usage(20, made))
            yield story(1000)

    governor = governed([], 730)
    governor.backend = Lazy([], counted=["low"])
    text, _ = read(governor)
    assert (words(text), made) == (730, 730)


def test_pieces_that_do_not_say_their_tokens_count_as_their_bytes(read: Any) -> None:
    """A server that ignores what it is asked must not be able to overspend."""

    class Silent(ScriptedBackend):
        def stream(self, call: Call) -> Iterator[Delta | Reply]:
            for _ in range(1000):
                yield Delta(text=" so")
            yield story(1000)

    ledger = open_ledger("memory://")
    governor = governed([], 730, ledger=ledger)
    governor.backend = Silent([], counted=["low"])
    text, _ = read(governor)
    assert words(text) == 730 // 3
    assert ledger.balance(APP).spent.answer == 3 * words(text)
