"""What keeps a proxy under Python 3.11 alive while garbage is collected (cpython issue 148891).

Before 3.12 the interpreter may collect garbage amid `ContextVar.set`. Where what is collected has a finalizer that sets
a context variable itself, the outer one goes on in memory that is freed: the process dies, of a segmentation fault.
LiteLLM's streams have such a finalizer (`CustomStreamWrapper.__del__`), and LiteLLM sets such variables at every
request, with Governor or without.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import Final

MOST_AMID_ONE: Final = 16
"""Collections that can begin amid one `ContextVar.set`, which makes at most two nodes at each of seven levels."""

_held: Final[deque[Context]] = deque(maxlen=MOST_AMID_ONE)


def keep_contexts() -> None:
    """From now on a collection keeps what the current context held when it began. Does nothing from Python 3.12 on."""
    if sys.version_info < (3, 12) and _hold not in gc.callbacks:
        gc.callbacks.append(_hold)


def _hold(phase: str, _info: Mapping[str, int]) -> None:
    """Share the tree that the interrupted `set` may be reading. That `set` ends after the collection does."""
    if phase == "start":
        _held.append(copy_context())
