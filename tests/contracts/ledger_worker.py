"""Run as a process by the ledger's fault tests: `ledger_worker.py MODE URI NAME COUNT`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.records import Amount, Limit, Window

APP = Limit("app", tokens=1_000)


def race(uri: str, name: str, attempts: int) -> None:
    """Reserve as often as told, print how many were admitted."""
    ledger = open_ledger(uri)
    admitted = 0
    for number in range(attempts):
        try:
            ledger.reserve(f"{name}-{number}", Amount(tokens=7), (APP, Limit(f"step:{name}")))
        except BudgetExceededError:
            continue
        admitted += 1
    sys.stdout.write(f"{admitted}\n")


def churn(uri: str, name: str, steps: int) -> None:
    """Run through steps without end until killed; print a line after each operation that was confirmed."""
    ledger = open_ledger(uri)
    limits = (Limit("app", tokens=10**9), Limit("slid", window=Window(sliding=86_400.0)))
    for number in range(steps):
        key = f"{name}-{number}"
        operations: tuple[Callable[[], object], ...] = (
            lambda key=key: ledger.reserve(key, Amount(tokens=5), limits, sent=False),  # type: ignore[misc]
            lambda key=key: ledger.extend(key, Amount(tokens=10), whole=True),  # type: ignore[misc]
            (lambda key=key: ledger.settle(key, Amount(tokens=8)))  # type: ignore[misc]
            if number % 3
            else (lambda key=key: ledger.refund(key)),  # type: ignore[misc]
        )
        for operation in operations:
            operation()
            sys.stdout.write("done\n")
            sys.stdout.flush()


def fill(uri: str, name: str, size: int) -> None:
    """Reserve until the disk is full (a file size limit), then show that a settle fails and mends."""
    ledger = open_ledger(uri)
    ledger.reserve("first", Amount(tokens=1), (Limit("app"),))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    confirmed = 0
    try:
        for number in range(100_000):
            ledger.reserve(f"{name}-{number}", Amount(tokens=1), (Limit("app"),))
            confirmed += 1
    except LedgerUnavailableError as error:
        sys.stdout.write(f"{error}\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.settle("first", Amount(tokens=1))
    sys.stdout.write(f"{confirmed}\n")


if __name__ == "__main__":
    modes: dict[str, Callable[[str, str, int], None]] = {"race": race, "churn": churn, "fill": fill}
    modes[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
