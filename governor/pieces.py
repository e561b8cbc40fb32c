"""The pieces of a streamed answer, and the reply that ends them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from governor.errors import BackendReplyError
from governor.protocols import Delta
from governor.records import Reply


def whole(pieces: Iterator[Delta | Reply], model: str) -> Reply:
    """The reply that ends a stream, read to there. BackendReplyError where none does."""
    for piece in pieces:
        if isinstance(piece, Reply):
            return piece
    raise endless(model)


async def awhole(pieces: AsyncIterator[Delta | Reply], model: str) -> Reply:
    """The same, awaiting; the stream is closed behind it."""
    try:
        async for piece in pieces:
            if isinstance(piece, Reply):
                return piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
    raise endless(model)


def endless(model: str) -> BackendReplyError:
    """What is wrong with a stream that had no reply."""
    return BackendReplyError("the stream ended without a final reply", model=model)
