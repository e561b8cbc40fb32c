from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from governor.ledger import open_ledger
from governor.protocols import Ledger, Reservation
from governor.records import Amount, Limit
from governor.testing import LedgerContract


class TestMemory(LedgerContract):
    keep = 20_000.0

    @pytest.fixture(autouse=True)
    def _threads_change_often(self) -> Iterator[None]:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(usual)

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        return open_ledger("memory://", clock=clock, ttl=ttl, keep=self.keep)


class TestSqlite(LedgerContract):
    keep = 20_000.0

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> Iterator[None]:
        self.paths = (tmp_path / f"ledger {number}%.db" for number in count())
        self.opened: list[Ledger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
        path = str(next(self.paths)).replace("%", "%25").replace(" ", "%20")
        ledger = open_ledger(f"sqlite:///{path}", clock=clock, ttl=ttl, keep=self.keep)
        self.opened.append(ledger)
        return ledger


def test_the_contract_notices_a_ledger_that_forgets_to_refuse() -> None:
    """A contract that can't fail proves nothing: run one of its tests over a ledger without limits."""

    class Lavish(TestMemory):
        def make_ledger(self, clock: Callable[[], float], ttl: float) -> Ledger:
            return _Lavish(super().make_ledger(clock, ttl))

    with pytest.raises(AssertionError):
        Lavish().test_a_limit_can_be_used_up_exactly_and_no_further()
    with pytest.raises(AssertionError):
        Lavish().test_threads_admit_exactly_what_fits()


class _Lavish:
    def __init__(self, ledger: Ledger) -> None:
        self.extend, self.settle, self.refund = ledger.extend, ledger.settle, ledger.refund
        self.reservation, self.balance, self.close = ledger.reservation, ledger.balance, ledger.close
        self._reserve = ledger.reserve

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return self._reserve(key, amount, [Limit(limit.scope) for limit in limits], sent=sent)
