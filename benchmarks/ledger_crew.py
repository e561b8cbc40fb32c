"""Processes that begin together: each sets itself up, waits for all others, and then works."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Barrier
from typing import Any, TypeVar

T = TypeVar("T")

SETUP_SECONDS = 120.0
"""How long one waits for the slowest to be set up; threading.BrokenBarrierError then, in all of them."""

_GATES: list[Barrier] = []


def together(size: int, work: Callable[..., T], *arguments: Any) -> list[T]:
    """What `work(place, *arguments)` returned in each of `size` fresh processes, by place.

    Each must call `ready` once; the first error is raised. All is pickled: `work` is a function of a module.
    """
    context = get_context("spawn")  # no state of this process, no copied connections
    gate = context.Barrier(size)
    with ProcessPoolExecutor(size, mp_context=context, initializer=_stand_at, initargs=(gate,)) as pool:
        working = [pool.submit(work, place, *arguments) for place in range(size)]
        return [one.result() for one in working]


def ready() -> None:
    """Says that this process is set up, and waits for the others."""
    _GATES[-1].wait(SETUP_SECONDS)


def _stand_at(gate: Barrier) -> None:
    _GATES.append(gate)
