"""Nodes that were left for an interrupt after they had asked a model: what they return when resumed is judged too.

A graph inside such a node goes on behind its models, so that the resumed node asks none. That one was asked is kept in
the ledger's store, where a resumption in another process finds it; a ledger that is no Shelf keeps nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from governor.errors import LedgerError
from governor.facade import Governor
from governor.shelf import update
from governor_langgraph.place import place_of
from governor_langgraph.trail import KEEP_SECONDS, shelf_of

_RESUMING = "__pregel_resuming"
"""LangGraph's key under `configurable`, private there: true while a run goes on after an interrupt."""


def pause(governor: Governor, config: Mapping[str, Any]) -> None:
    """Keeps that the node has asked a model. LedgerError where it can't be kept and the policy is closed."""
    shelf = shelf_of(governor)
    if shelf is not None:
        with _open_or_closed(governor):
            update(shelf, _key(governor, config), lambda _: b"asked", ttl=KEEP_SECONDS)


def paused(governor: Governor, config: Mapping[str, Any]) -> bool:
    """Whether the node goes on after an interrupt before which it asked a model.

    Where that can't be read: LedgerError, or False where the policy is open.
    """
    shelf = shelf_of(governor)
    if shelf is None or not (config.get("configurable") or {}).get(_RESUMING):
        return False
    found = None
    with _open_or_closed(governor):
        found = shelf.load(_key(governor, config))
    return found is not None


@contextmanager
def _open_or_closed(governor: Governor) -> Generator[None, None, None]:
    """While the store is asked: under `fail: open` a step goes on without it."""
    try:
        yield
    except LedgerError:
        if governor.policy.fail == "closed":
            raise


def _key(governor: Governor, config: Mapping[str, Any]) -> str:
    """The task of the graph, which keeps its name when it is resumed; hashed, as names may be longer than keys."""
    task = (config.get("metadata") or {}).get("langgraph_checkpoint_ns") or ""
    digest = blake2b(f"{place_of(config).session}\0{task}".encode("utf-8", "surrogatepass"), digest_size=16)
    return f"paused:{governor.policy.app}:{digest.hexdigest()}"
