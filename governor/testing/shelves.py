"""The contract of shelves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from governor.errors import LedgerError
from governor.protocols import Shelf
from governor.shelf import LARGEST, LONGEST_KEY, update
from governor.testing.clock import FrozenClock, raised


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
