"""Streams of a governed step: what may be shown at once is, the rest appears when it is accepted.

A call with `hold=False` (no verifier needs the whole answer) passes its text through as it comes; the text of
a held call is shown at acceptance. Rejected attempts are never shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeAlias

from governor.drivers import Performer, stepped
from governor.effects import CallModel, Effect, Process
from governor.errors import BackendError, BackendReplyError, BackendStreamError
from governor.protocols import Backend, Delta
from governor.records import Call, Outcome, Reply

Pieces: TypeAlias = Generator[str, None, Any]


class _End:
    """Marks the end of a stream in its queue."""


_END: Final = _End()


class Shown:
    """What the reader has seen, and the gate in front of it."""

    def __init__(self) -> None:
        self.anything = False

    @contextmanager
    def guarded(self, call: Call) -> Generator[None, None, None]:
        """One call: refused where it would start over after text was shown; its failure then ends the stream."""
        if self.anything and not call.prefix and not call.hold:
            raise BackendStreamError("text was shown, so the answer can't be started over", sent=False)
        try:
            yield
        except BackendError as fault:
            if not self.anything or call.hold:
                raise
            raise BackendStreamError(
                f"the stream broke off after text was shown: {fault}",
                model=fault.model,
                sent=fault.sent,
                usage=fault.usage,
                seconds=fault.seconds,
            ) from fault

    def passes(self, call: Call, piece: Delta) -> bool:
        """Whether a piece may be shown now."""
        passes = bool(piece.text) and not call.hold
        self.anything = self.anything or passes
        return passes

    def rest(self, outcome: Outcome) -> str:
        """What is still to be shown once the outcome is known."""
        return "" if self.anything else outcome.answer


class Stream:
    """Iterate for text; afterwards `outcome` holds how the step ended (None while it runs).

    The step runs in the reader's own thread, while it asks for the next piece, and in a copy of its context. Leaving
    the loop early ends the step at once: the model's stream is closed and the reservation settled.
    """

    def __init__(self, backend: Backend, process: Callable[[], Process[Outcome]], perform: Performer) -> None:
        self._backend = backend
        self._process = process
        self._perform = perform
        self.outcome: Outcome | None = None

    def __iter__(self) -> Iterator[str]:
        context, pieces = copy_context(), self._pieces()  # trace spans join the caller's, and don't leak into it
        try:
            while not isinstance(piece := context.run(next, pieces, _END), _End):
                yield piece
        finally:
            context.run(pieces.close)

    def _pieces(self) -> Generator[str, None, None]:
        shown = Shown()
        self.outcome = yield from stepped(self._process(), partial(self._performed, shown))
        if rest := shown.rest(self.outcome):
            yield rest

    def _performed(self, shown: Shown, effect: Effect) -> Pieces:
        if not isinstance(effect, CallModel):
            return self._perform(effect)
        call = effect.call
        with shown.guarded(call), _closing(self._backend.stream(call)) as pieces:
            for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
                if shown.passes(call, piece):
                    yield piece.text
            raise _unfinished(call)


class AsyncStream:
    """The same for `async for`; the step runs in a task of its own, which leaving the loop early cancels."""

    def __init__(
        self, backend: Backend, run: Callable[[Callable[[Call], Awaitable[Reply]]], Awaitable[Outcome]]
    ) -> None:
        self._backend = backend
        self._run = run
        self.outcome: Outcome | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        pieces: asyncio.Queue[str | _End] = asyncio.Queue()
        worker = asyncio.ensure_future(self._work(pieces.put_nowait))
        try:
            while not isinstance(piece := await pieces.get(), _End):
                yield piece
            await worker
        finally:
            worker.cancel()
            await asyncio.wait([worker])

    async def _work(self, put: Callable[[str | _End], None]) -> None:
        shown = Shown()
        try:
            self.outcome = await self._run(lambda call: self._call(shown, put, call))
            if rest := shown.rest(self.outcome):
                put(rest)
        finally:
            put(_END)

    async def _call(self, shown: Shown, put: Callable[[str], None], call: Call) -> Reply:
        with shown.guarded(call):
            async with _aclosing(self._backend.astream(call)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        return piece
                    if shown.passes(call, piece):
                        put(piece.text)
            raise _unfinished(call)


def _unfinished(call: Call) -> BackendReplyError:
    return BackendReplyError("the stream ended without a final reply", model=call.rung.model)


@contextmanager
def _closing(pieces: Iterator[Delta | Reply]) -> Generator[Iterator[Delta | Reply], None, None]:
    """Close a stream that was left before its end; one that is no generator closes itself."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


@asynccontextmanager
async def _aclosing(pieces: AsyncIterator[Delta | Reply]) -> AsyncGenerator[AsyncIterator[Delta | Reply], None]:
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
