"""How a shared value is changed: load, change, save if nobody else did; and what a shelf may hold.

    update(ledger, "online:support", lambda old: merged(old, mine))

A shelf (`governor.protocols.Shelf`) compares and sets; the loop here makes of that a change that loses nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from governor.errors import LedgerError, LedgerUnavailableError
from governor.protocols import Shelf

LARGEST = 1 << 20
"""Bytes that one value may have."""

LONGEST_KEY = 512
"""Characters that a key may have."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1


def update(
    shelf: Shelf,
    key: str,
    change: Callable[[bytes | None], bytes],
    *,
    ttl: float | None = None,
    attempts: int = 30,
    pause: Callable[[float], None] = time.sleep,
) -> bytes:
    """Replace the value under `key` by `change` of it (of None where there is none), and return what was saved.

    `change` may run several times, once for each time that another writer came first. Pauses between tries grow
    from 1 to 100 ms with full jitter. Raises LedgerUnavailableError after `attempts` tries, and whatever shelf or
    change raise.
    """
    for number in range(attempts):
        found = shelf.load(key)
        old, version = found or (None, 0)
        value = change(old)
        if shelf.save(key, value, version, ttl=ttl):
            return value
        # Full jitter spreads writers that met once (Brooker 2015, "Exponential backoff and jitter").
        longest = min(_FIRST_PAUSE * 2.0**number, _LONGEST_PAUSE)
        pause(random.uniform(0.0, longest))  # noqa: S311 - spreads retries in time, guards nothing
    raise LedgerUnavailableError(f"shelf value '{key}': other writers came first {attempts} times in a row")


def check_key(key: str) -> None:
    """LedgerError unless a value may be kept under this key."""
    if not 0 < len(key) <= LONGEST_KEY:
        raise LedgerError(f"a shelf's key has 1 to {LONGEST_KEY} characters, not {len(key)}")


def check_value(key: str, value: bytes) -> None:
    """LedgerError unless the value is small enough to be kept."""
    if len(value) > LARGEST:
        raise LedgerError(f"shelf value '{key}' has {len(value):,} bytes; at most {LARGEST:,} are kept")
