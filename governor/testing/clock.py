"""A clock that only moves when it is told to, and the error that an action must raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Error = TypeVar("Error", bound=Exception)


class FrozenClock:
    """A clock that stands still until it is turned; call it for the seconds."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Turn the clock by `seconds` (back, if negative)."""
        self.seconds += seconds


def raised(kind: type[Error], action: Callable[[], object]) -> Error:
    """The error of this kind that `action` raises; AssertionError if it raises none."""
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
