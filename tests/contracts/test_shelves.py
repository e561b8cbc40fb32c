from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import cast

import pytest

from governor.ledger import open_ledger
from governor.protocols import Shelf
from governor.testing import FrozenClock, ShelfContract


def open_shelf(uri: str, clock: Callable[[], float]) -> Shelf:
    return cast("Shelf", open_ledger(uri, clock=clock))


class TestMemory(ShelfContract):
    @pytest.fixture(autouse=True)
    def _threads_change_often(self) -> Iterator[None]:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(usual)

    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        return open_shelf("memory://", clock)


class TestSqlite(ShelfContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> Iterator[None]:
        self.paths = (tmp_path / f"{number}.db" for number in count())
        self.opened: list[Shelf] = []
        yield
        for shelf in self.opened:
            shelf.close()  # type: ignore[attr-defined]

    def make_shelf(self, clock: Callable[[], float]) -> Shelf:
        shelf = open_shelf(f"sqlite:///{next(self.paths)}", clock)
        self.opened.append(shelf)
        return shelf


@pytest.mark.parametrize("uri", ["memory://", "sqlite:///{}/x.db"])
def test_every_ledger_that_governor_brings_is_a_shelf(uri: str, tmp_path: Path) -> None:
    ledger = open_ledger(uri.format(tmp_path))
    assert isinstance(ledger, Shelf)
    ledger.close()


class _LastWins:
    """A shelf that sets without comparing."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.load = shelf.load

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        found = self._shelf.load(key)
        return self._shelf.save(key, value, found[1] if found else 0, ttl=ttl)


def test_the_contract_notices_a_shelf_that_does_not_compare() -> None:
    class Careless(TestMemory):
        def make_shelf(self, clock: Callable[[], float]) -> Shelf:
            return _LastWins(super().make_shelf(clock))

    with pytest.raises(AssertionError):
        Careless().test_a_save_needs_the_version_that_is_stored()
    with pytest.raises(AssertionError):
        Careless().test_no_version_comes_twice_even_after_a_value_was_gone()


def test_expired_values_leave_the_file(tmp_path: Path) -> None:
    clock = FrozenClock()
    ledger = open_ledger(f"sqlite:///{tmp_path}/x.db", clock=clock)
    shelf = cast("Shelf", ledger)
    for number in range(50):
        shelf.save(f"session:{number}", b"x" * 1000, 0, ttl=10.0)
    clock.advance(11.0)
    shelf.save("other", b"1", 0)
    with ledger._store.transaction() as books:  # type: ignore[attr-defined]
        assert books._execute("SELECT count(*) FROM shelf WHERE key <> ''").fetchone() == (1,)
    ledger.close()
