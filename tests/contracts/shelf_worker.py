"""Run as a process by the shelf's fault tests: `shelf_worker.py MODE URI COUNT`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from governor.errors import LedgerUnavailableError
from governor.ledger import open_ledger
from governor.protocols import Shelf
from governor.shelf import update


def add_one(old: bytes | None) -> bytes:
    """One more than the number that the value begins with, padded so that a torn write would show."""
    number = int((old or b"0 ").partition(b" ")[0]) + 1
    return b"%d " % number + str(number % 10).encode() * 5_000


def count(uri: str, times: int) -> None:
    """Add one as often as told; print each number whose save was confirmed."""
    shelf = cast("Shelf", open_ledger(uri))
    for _ in range(times):
        saved = update(shelf, "n", add_one, attempts=200)
        sys.stdout.write(f"{int(saved.partition(b' ')[0])}\n")
        sys.stdout.flush()


def fill(uri: str, size: int) -> None:
    """Save until the disk is full (a file size limit), then show that it mends."""
    shelf = cast("Shelf", open_ledger(uri))
    update(shelf, "n", add_one)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    kept = 0
    try:
        for number in range(10_000):
            shelf.save(f"k{number}", b"x" * 10_000, 0)
            kept += 1
    except LedgerUnavailableError as error:
        sys.stdout.write(f"{error}\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    update(shelf, "n", add_one)
    sys.stdout.write(f"{kept}\n")


if __name__ == "__main__":
    modes: dict[str, Callable[[str, int], None]] = {"count": count, "fill": fill}
    modes[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
