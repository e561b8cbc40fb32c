"""For tests of what builds on Governor: a turned clock, a scripted backend, the contracts of ledgers and shelves.

    class TestMyLedger(LedgerContract):
        def make_ledger(self, clock, ttl):
            return MyLedger("redis://localhost", clock=clock, ttl=ttl)

Nothing here imports pytest; ask it for readable failures with `pytest.register_assert_rewrite("governor.testing")`.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from governor.errors import BudgetExceededError, LedgerError, ReservationError
from governor.protocols import Delta, Ledger, Shelf
from governor.records import Amount, Call, Limit, Reply, Rung, Usage, text_of
from governor.shelf import LARGEST, LONGEST_KEY, update

Error = TypeVar("Error", bound=Exception)
Answer: TypeAlias = Reply | str | BaseException
Script: TypeAlias = Iterable[Answer] | Callable[[Call], Answer]


class FrozenClock:
    """A clock that stands still until it is turned; call it for the seconds."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Turn the clock by `seconds` (back, if negative)."""
        self.seconds += seconds


class ScriptedBackend:
    """A Backend that answers from a script and keeps each call in `calls`.

    The script is a sequence of answers used in order, or a function of the call. An answer is a Reply, a text (one
    token a word, in the request and in the answer), or an exception to raise. Streams yield word by word. A
    script that is used up raises AssertionError: a call that no test foresaw.
    """

    def __init__(self, script: Script, *, continues: Collection[str] = ()) -> None:
        self.calls: list[Call] = []
        self.closed = False
        self._continues = frozenset(continues)
        self._script = script if callable(script) else _in_order(script)

    def call(self, call: Call) -> Reply:
        self.calls.append(call)
        answer = self._script(call)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Reply) else _reply(call, answer)

    async def acall(self, call: Call) -> Reply:
        return self.call(call)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        reply = self.call(call)
        yield from _pieces(reply)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        for piece in _pieces(self.call(call)):
            yield piece

    def continues(self, rung: Rung) -> bool:
        return rung.id in self._continues

    def close(self) -> None:
        self.closed = True


def _in_order(answers: Iterable[Answer]) -> Callable[[Call], Answer]:
    waiting = deque(answers)

    def next_answer(call: Call) -> Answer:
        if not waiting:
            raise AssertionError(f"the script is used up: unforeseen call of rung '{call.rung.id}' ({call.purpose})")
        return waiting.popleft()

    return next_answer


def _reply(call: Call, text: str) -> Reply:
    asked = sum(len(text_of(message).split()) for message in call.messages)
    return Reply(text=text, usage=Usage(asked, len(text.split())), model=call.rung.model)


def _pieces(reply: Reply) -> Iterator[Delta | Reply]:
    if reply.thinking:
        yield Delta(thinking=reply.thinking)
    for word in re.findall(r"\s*\S+|\s+$", reply.text):
        yield Delta(text=word)
    yield reply


def raised(kind: type[Error], action: Callable[[], object]) -> Error:
    """The error of this kind that `action` raises; AssertionError if it raises none."""
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


_STEP = Limit("step:1", tokens=100)
_APP = Limit("app:a", tokens=150, micros=1_000)


class LedgerContract(ABC):
    """What every ledger must do. Subclass it in a test module and say how an empty ledger is made."""

    ttl = 60.0

    @abstractmethod
    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        """A ledger without reservations, whose leases run `ttl` seconds on `clock`."""

    def _ledger(self) -> Ledger:
        return self.make_ledger(FrozenClock(), self.ttl)

    # reserve

    def test_reserve_holds_on_every_scope(self) -> None:
        ledger = self._ledger()
        held = ledger.reserve("k", Amount(tokens=60, micros=5), (_STEP, _APP))
        assert (held.key, held.state, held.amount) == ("k", "open", Amount(tokens=60, micros=5))
        assert held.limits == (_STEP, _APP)
        for scope in (_STEP.scope, _APP.scope):
            balance = ledger.balance(scope)
            assert (balance.reserved, balance.spent) == (Amount(tokens=60, micros=5), Amount())

    def test_a_limit_can_be_used_up_exactly_and_no_further(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=99), (_STEP,))
        ledger.reserve("l", Amount(tokens=1), (_STEP,))
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("m", Amount(tokens=1), (_STEP,)))
        assert (refusal.scope, refusal.dimension, refusal.limit, refusal.asked) == (_STEP.scope, "tokens", 100, 1)

    def test_a_refusal_changes_nothing_on_any_scope(self) -> None:
        ledger = self._ledger()
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (_APP, _STEP)))
        assert ledger.reservation("k") is None
        assert ledger.balance(_APP.scope).reserved == Amount()
        assert ledger.balance(_STEP.scope).reserved == Amount()

    def test_a_refusal_says_what_is_left_under_all_limits_together(self) -> None:
        ledger = self._ledger()
        ledger.settle(ledger.reserve("j", Amount(tokens=90, micros=300), (_APP,)).key, Amount(tokens=80, micros=300))
        ledger.reserve("k", Amount(tokens=30, micros=100), (_STEP, _APP))
        refusal = raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=71), (_STEP, _APP)))
        assert refusal.left == Amount(40, 600, *[sys.maxsize] * 5)

    def test_an_unlimited_dimension_never_refuses(self) -> None:
        ledger = self._ledger()
        huge = Amount(tokens=1, micros=2**50, millis=2**50, calls=2**50)
        assert ledger.reserve("k", huge, (_STEP,)).amount == huge
        assert ledger.reserve("l", Amount(tokens=2**50), ()).state == "open"

    def test_a_dimension_in_which_nothing_is_asked_never_refuses(self) -> None:
        ledger = self._ledger()
        ledger.settle(ledger.reserve("k", Amount(micros=1_000), (_APP,)).key, Amount(micros=1_500))
        assert ledger.reserve("free", Amount(tokens=10), (_APP,)).state == "open"

    def test_two_limits_of_one_scope_book_it_once(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=10), (_STEP, Limit(_STEP.scope, calls=1)))
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=10)

    def test_negative_amounts_are_refused(self) -> None:
        ledger = self._ledger()
        raised(ValueError, lambda: ledger.reserve("k", Amount(tokens=-1), (_STEP,)))
        ledger.reserve("k", Amount(tokens=1), (_STEP,))
        raised(ValueError, lambda: ledger.extend("k", Amount(tokens=-1)))
        raised(ValueError, lambda: ledger.settle("k", Amount(tokens=-1)))
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=1)

    # the key

    def test_reserving_an_open_key_answers_with_the_same_reservation(self) -> None:
        ledger = self._ledger()
        first = ledger.reserve("k", Amount(tokens=60), (_STEP, _APP))
        assert ledger.reserve("k", Amount(tokens=60), (_APP, _STEP)) == first
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=60)

    def test_reserving_an_open_key_keeps_the_larger_amount(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60, micros=5), (_STEP,))
        assert ledger.reserve("k", Amount(tokens=40, micros=9), (_STEP,)).amount == Amount(tokens=60, micros=9)
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (_STEP,)))
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=60, micros=9)

    def test_reserving_an_open_key_under_other_limits_is_an_error(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        raised(ReservationError, lambda: ledger.reserve("k", Amount(tokens=60), (_STEP, _APP)))
        assert ledger.balance(_APP.scope).reserved == Amount()

    def test_a_closed_key_is_not_reserved_or_extended_again(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=10), (_STEP,))
        ledger.settle("k", Amount(tokens=1))
        raised(ReservationError, lambda: ledger.reserve("k", Amount(tokens=10), (_STEP,)))
        raised(ReservationError, lambda: ledger.extend("k", Amount(tokens=1)))
        ledger.reserve("l", Amount(tokens=10), (_STEP,))
        ledger.refund("l")
        raised(ReservationError, lambda: ledger.reserve("l", Amount(tokens=10), (_STEP,)))
        raised(ReservationError, lambda: ledger.extend("l", Amount(tokens=1)))
        assert ledger.balance(_STEP.scope).reserved == Amount()

    def test_an_unknown_key_is_an_error(self) -> None:
        ledger = self._ledger()
        raised(ReservationError, lambda: ledger.extend("k", Amount(tokens=1)))
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=1)))
        raised(ReservationError, lambda: ledger.refund("k"))
        assert ledger.reservation("k") is None

    # extend

    def test_extend_holds_more(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_STEP, _APP))
        assert ledger.extend("k", Amount(tokens=40, micros=7)).amount == Amount(tokens=100, micros=7)
        assert ledger.balance(_APP.scope).reserved == Amount(tokens=100, micros=7)

    def test_a_refused_extension_changes_nothing(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_APP, _STEP))
        refusal = raised(BudgetExceededError, lambda: ledger.extend("k", Amount(tokens=41, micros=7)))
        assert refusal.left is not None
        assert refusal.left.tokens == 40
        held = ledger.reservation("k")
        assert held is not None
        assert held.amount == Amount(tokens=60)
        assert ledger.balance(_APP.scope).reserved == Amount(tokens=60)

    # settle and refund

    def test_settle_books_what_was_spent_and_frees_the_rest(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60, calls=3), (_STEP, _APP))
        settled = ledger.settle("k", Amount(tokens=25, calls=2))
        assert (settled.state, settled.amount) == ("settled", Amount(tokens=25, calls=2))
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=25, calls=2), Amount())
        assert balance.overshoot == Amount()
        ledger.reserve("l", Amount(tokens=75), (_STEP,))

    def test_settling_more_than_was_held_is_booked_in_full_and_counted(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        ledger.settle("k", Amount(tokens=130))
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.overshoot) == (Amount(tokens=130), Amount(tokens=70))
        raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=1), (_STEP,)))

    def test_settling_twice_alike_books_once_and_otherwise_is_an_error(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        assert ledger.settle("k", Amount(tokens=70)) == ledger.settle("k", Amount(tokens=70))
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=26)))
        raised(ReservationError, lambda: ledger.refund("k"))
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.overshoot) == (Amount(tokens=70), Amount(tokens=10))

    def test_refund_frees_the_hold_once(self) -> None:
        ledger = self._ledger()
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        assert ledger.refund("k") == ledger.refund("k")
        raised(ReservationError, lambda: ledger.settle("k", Amount(tokens=1)))
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount())

    # leases

    def test_an_expired_lease_counts_as_spent_at_its_bound(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        clock.advance(self.ttl - 1)
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=60)
        clock.advance(1)
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=60), Amount())
        held = ledger.reservation("k")
        assert held is not None
        assert held.state == "expired"
        raised(BudgetExceededError, lambda: ledger.reserve("l", Amount(tokens=41), (_STEP,)))

    def test_reserving_or_extending_renews_the_lease(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        renewals: tuple[Callable[[], object], ...] = (
            lambda: ledger.extend("k", Amount()),
            lambda: ledger.reserve("k", Amount(), (_STEP,)),
            lambda: ledger.extend("k", Amount(tokens=1)),
        )
        for renew in renewals:
            clock.advance(self.ttl - 1)
            renew()
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=61)

    def test_a_late_settlement_or_refund_replaces_the_booking(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        for key in ("under", "over", "unsent"):
            ledger.reserve(key, Amount(tokens=20), (_STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=60)
        ledger.settle("under", Amount(tokens=5))
        ledger.settle("over", Amount(tokens=30))
        ledger.refund("unsent")
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(tokens=35), Amount())
        assert balance.overshoot == Amount(tokens=10)

    def test_reserving_an_expired_key_turns_its_booking_into_a_hold_again(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=80), (_STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=80)
        raised(BudgetExceededError, lambda: ledger.reserve("k", Amount(tokens=101), (_STEP,)))
        assert ledger.reserve("k", Amount(tokens=90), (_STEP,)).state == "open"
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount(tokens=90))
        ledger.settle("k", Amount(tokens=50))
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=50)

    def test_extending_an_expired_key_turns_its_booking_into_a_hold_again(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=80), (_STEP,))
        clock.advance(2 * self.ttl)
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=80)
        assert ledger.extend("k", Amount(tokens=20)).amount == Amount(tokens=100)
        balance = ledger.balance(_STEP.scope)
        assert (balance.spent, balance.reserved) == (Amount(), Amount(tokens=100))

    def test_a_clock_that_jumps_back_expires_nothing(self) -> None:
        clock = FrozenClock()
        ledger = self.make_ledger(clock, self.ttl)
        ledger.reserve("k", Amount(tokens=60), (_STEP,))
        clock.advance(-10 * self.ttl)
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=60)
        ledger.settle("k", Amount(tokens=10))
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=10)

    # threads

    def test_threads_admit_exactly_what_fits(self) -> None:
        ledger = self._ledger()

        def attempt(number: int) -> int:
            try:
                ledger.reserve(f"k{number}", Amount(tokens=7), (_STEP, _APP))
            except BudgetExceededError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(attempt, range(80))) == 100 // 7
        assert ledger.balance(_STEP.scope).reserved == Amount(tokens=100 // 7 * 7)

    def test_threads_that_race_for_one_key_share_one_reservation(self) -> None:
        ledger = self._ledger()
        with ThreadPoolExecutor(8) as pool:
            holds = list(pool.map(lambda _: ledger.reserve("k", Amount(tokens=60), (_STEP,)), range(32)))
            settled = list(pool.map(lambda _: ledger.settle("k", Amount(tokens=50)), range(32)))
        assert len(set(map(repr, holds))) == 1
        assert len(set(map(repr, settled))) == 1
        assert ledger.balance(_STEP.scope).spent == Amount(tokens=50)


class ShelfContract(ABC):
    """What every shelf must do. Subclass it in a test module and say how an empty shelf is made."""

    @abstractmethod
    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        """A shelf without values, whose times to live run on `clock` (seconds)."""

    def _shelf(self) -> Shelf:
        return self.make_shelf(FrozenClock())

    # load and save

    def test_what_was_saved_is_loaded_byte_for_byte(self) -> None:
        shelf = self._shelf()
        assert shelf.load("k") is None
        every = bytes(range(256))
        for key, value in (("k", every), ("empty", b""), ("largest", b"x" * LARGEST), ("\u00e9 /%\n", b"1")):
            assert shelf.save(key, value, 0)
            found = shelf.load(key)
            assert found is not None
            assert found[0] == value
            assert found[1] > 0

    def test_a_save_needs_the_version_that_is_stored(self) -> None:
        shelf = self._shelf()
        assert not shelf.save("k", b"no such version", 1)
        assert shelf.save("k", b"first", 0)
        assert not shelf.save("k", b"there is one", 0)
        first = _loaded(shelf, "k")
        assert first[0] == b"first"
        assert shelf.save("k", b"second", first[1])
        assert not shelf.save("k", b"stale", first[1])
        second = _loaded(shelf, "k")
        assert second[0] == b"second"
        assert second[1] != first[1]

    def test_keys_do_not_touch_each_other(self) -> None:
        shelf = self._shelf()
        assert shelf.save("a", b"1", 0)
        before = _loaded(shelf, "a")
        assert shelf.save("b", b"2", 0)
        assert shelf.save("A", b"3", 0)
        assert _loaded(shelf, "a") == before

    def test_a_key_or_value_out_of_bounds_is_refused_and_nothing_kept(self) -> None:
        shelf = self._shelf()
        for key in ("", "k" * (LONGEST_KEY + 1)):
            raised(LedgerError, lambda key=key: shelf.save(key, b"1", 0))  # type: ignore[misc]
            raised(LedgerError, lambda key=key: shelf.load(key))  # type: ignore[misc]
        raised(LedgerError, lambda: shelf.save("k", b"x" * (LARGEST + 1), 0))
        assert shelf.load("k") is None

    # time to live

    def test_a_value_is_gone_when_its_time_is_over(self) -> None:
        clock = FrozenClock()
        shelf = self.make_shelf(clock)
        assert shelf.save("k", b"1", 0, ttl=60.0)
        assert shelf.save("kept", b"2", 0)
        clock.advance(59.0)
        assert _loaded(shelf, "k")[0] == b"1"
        clock.advance(1.0)
        assert shelf.load("k") is None
        assert _loaded(shelf, "kept")[0] == b"2"

    def test_a_save_renews_the_time_or_lifts_it(self) -> None:
        clock = FrozenClock()
        shelf = self.make_shelf(clock)
        assert shelf.save("k", b"1", 0, ttl=60.0)
        clock.advance(40.0)
        assert shelf.save("k", b"2", _loaded(shelf, "k")[1], ttl=60.0)
        clock.advance(40.0)
        assert shelf.save("k", b"3", _loaded(shelf, "k")[1])
        clock.advance(1e6)
        assert _loaded(shelf, "k")[0] == b"3"

    def test_no_version_comes_twice_even_after_a_value_was_gone(self) -> None:
        clock = FrozenClock()
        shelf = self.make_shelf(clock)
        assert shelf.save("k", b"old", 0, ttl=1.0)
        version = _loaded(shelf, "k")[1]
        clock.advance(2.0)
        assert not shelf.save("k", b"late", version)
        assert shelf.save("k", b"new", 0)
        assert not shelf.save("k", b"late", version)
        assert _loaded(shelf, "k")[0] == b"new"

    # threads

    def test_threads_that_update_one_value_lose_nothing(self) -> None:
        shelf = self._shelf()

        def add_one(old: bytes | None) -> bytes:
            return str(int(old or b"0") + 1).encode()

        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(lambda _: update(shelf, "k", add_one, attempts=500), range(80)))
        assert sorted(map(int, saved)) == list(range(1, 81))
        assert _loaded(shelf, "k")[0] == b"80"


def _loaded(shelf: Shelf, key: str) -> tuple[bytes, int]:
    found = shelf.load(key)
    assert found is not None, f"nothing is stored under '{key}'"
    return found
