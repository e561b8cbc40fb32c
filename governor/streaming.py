"""Streams of a governed step: what may be shown at once is, the rest appears when it is accepted.

A call with `hold=False` (no verifier needs the whole answer) passes its text through as it comes; the text of
a held call is shown at acceptance. Rejected attempts are never shown.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from governor.errors import BackendReplyError
from governor.protocols import Backend
from governor.records import Call, Outcome, Reply


class Abandoned(BaseException):
    """Thrown into the loop when the reader of a stream went away."""


class _End:
    """Marks the end of a stream in its queue."""


_END: Final = _End()


class Shown:
    """What the reader has seen, and the gate in front of it. `put` delivers text to the reader."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put
        self.anything = False
        self.abandoned = threading.Event()

    def admit(self, call: Call) -> None:
        """Refuse a call that would start over after text was already shown: it could not be taken back."""
        if self.anything and not call.hold and not call.prefix and call.purpose == "answer":
            raise BackendReplyError(
                "the stream broke off after text was shown, so it can't be started over",
                model=call.rung.model,
                sent=False,
            )

    def piece(self, call: Call, text: str) -> None:
        """Show a piece of text unless its call is held back."""
        if self.abandoned.is_set():
            raise Abandoned
        if text and not call.hold:
            self.anything = True
            self._put(text)

    def rest(self, outcome: Outcome) -> str:
        """What is still to be shown once the outcome is known."""
        return "" if self.anything else outcome.answer


def _call(backend: Backend, shown: Shown, call: Call) -> Reply:
    shown.admit(call)
    for piece in backend.stream(call):
        if isinstance(piece, Reply):
            return piece
        shown.piece(call, piece.text)
    raise BackendReplyError("the stream ended without a final reply", model=call.rung.model)


async def _acall(backend: Backend, shown: Shown, call: Call) -> Reply:
    shown.admit(call)
    async for piece in backend.astream(call):
        if isinstance(piece, Reply):
            return piece
        shown.piece(call, piece.text)
    raise BackendReplyError("the stream ended without a final reply", model=call.rung.model)


class Stream:
    """Iterate for text; afterwards `outcome` holds how the step ended (None while it runs).

    `run` drives the step, given the call port of this stream. Leaving the loop early cancels the step, and its
    reservation is settled.
    """

    def __init__(self, backend: Backend, run: Callable[[Callable[[Call], Reply]], Outcome]) -> None:
        self._backend = backend
        self._run = run
        self.outcome: Outcome | None = None

    def __iter__(self) -> Iterator[str]:
        pieces: queue.Queue[str | BaseException | _End] = queue.Queue()
        shown = Shown(pieces.put)

        def work() -> None:
            try:
                self.outcome = self._run(lambda call: _call(self._backend, shown, call))
                if rest := shown.rest(self.outcome):
                    pieces.put(rest)
                pieces.put(_END)
            except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
                pieces.put(error)

        # The worker sees the reader's context, so that trace spans join the caller's.
        worker = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        worker.start()
        try:
            yield from _drain(pieces)
        finally:
            shown.abandoned.set()
            worker.join()


def _drain(pieces: queue.Queue[str | BaseException | _End]) -> Iterator[str]:
    while not isinstance(piece := pieces.get(), _End):
        if isinstance(piece, BaseException):
            raise piece
        yield piece


class AsyncStream:
    """The same for `async for`."""

    def __init__(
        self, backend: Backend, run: Callable[[Callable[[Call], Awaitable[Reply]]], Awaitable[Outcome]]
    ) -> None:
        self._backend = backend
        self._run = run
        self.outcome: Outcome | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        pieces: asyncio.Queue[str | _End] = asyncio.Queue()
        shown = Shown(pieces.put_nowait)

        async def work() -> None:
            try:
                self.outcome = await self._run(lambda call: _acall(self._backend, shown, call))
                if rest := shown.rest(self.outcome):
                    pieces.put_nowait(rest)
            finally:
                pieces.put_nowait(_END)

        worker = asyncio.ensure_future(work())
        try:
            while not isinstance(piece := await pieces.get(), _End):
                yield piece
            await worker
        finally:
            worker.cancel()
            await asyncio.wait([worker])
