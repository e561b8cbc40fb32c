"""Streams of a governed step: what may be shown at once is, the rest appears when it is accepted.

A call with `hold=False` (no verifier needs the whole answer) passes its text through as it comes; the text of
a held call is shown at acceptance. Rejected attempts are never shown. A stream whose backend counts its tokens is read
as far as is reserved for it, and the loop says whether it goes on (Resume) or ends there (Cut).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from governor.drivers import Performer, adrive, stepped
from governor.effects import CallModel, Cut, Effect, Paused, Process, Resume
from governor.errors import BackendError, BackendStreamError
from governor.pieces import endless
from governor.protocols import Backend, Delta
from governor.records import Call, Outcome, Reply, Usage

Texts: TypeAlias = Generator[str, None, Any]


class _End:
    """Marks the end of a stream in its queue."""


_END: Final = _End()


class Shown:
    """What the reader has seen, and the gate in front of it."""

    def __init__(self) -> None:
        self.anything = False

    def begin(self, call: Call) -> None:
        """Refuse a call that would start over after text was shown."""
        if self.anything and not call.prefix and not call.hold:
            raise BackendStreamError("text was shown, so the answer can't be started over", sent=False)

    @contextmanager
    def guarded(self, call: Call) -> Generator[None, None, None]:
        """While a call is read: its failure after text was shown ends the stream."""
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


class Reading:
    """One call's stream: what was read of it, and the piece that waits because it lies beyond what is held."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._started = time.monotonic()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._usage = Usage()
        self._waiting: Delta | Reply | None = None

    def waiting(self, upto: int | None) -> Delta | Reply | Paused | None:
        """The piece that waited, or a pause where `upto` tokens were read: nothing more need be made then."""
        piece, self._waiting = self._waiting, None
        if piece is None and upto is not None and self._usage.output_tokens >= upto:
            return Paused(self._usage.output_tokens + 1)
        return piece

    def take(self, piece: Delta | Reply | Paused | None, upto: int | None) -> Delta | Reply | Paused:
        """The piece if it lies within `upto` output tokens, else it waits. Raises at an end without a Reply (None)."""
        if isinstance(piece, Paused):
            return piece
        if piece is None:
            raise endless(self.call.rung.model)
        usage = self._after(piece)
        if upto is not None and usage.output_tokens > upto:
            self._waiting = piece
            return Paused(usage.output_tokens)
        if isinstance(piece, Delta):
            self._text.append(piece.text)
            self._thinking.append(piece.thinking)
            self._usage = usage
        return piece

    def _after(self, piece: Delta | Reply) -> Usage:
        """What the call has come to with a piece. One that does not say counts as its bytes, the most it can be."""
        if piece.usage is not None:
            return piece.usage
        written = len(f"{piece.text}{piece.thinking}".encode("utf-8", "surrogatepass"))
        return replace(self._usage, output_tokens=self._usage.output_tokens + written)

    def cut(self) -> Reply:
        """What was read, as a reply that ended at its limit."""
        return Reply(
            text="".join(self._text),
            thinking="".join(self._thinking),
            finish_reason="length",
            usage=self._usage,
            seconds=time.monotonic() - self._started,
            model=self.call.rung.model,
        )


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
        context, texts = copy_context(), self._texts()  # trace spans join the caller's, and don't leak into it
        try:
            while not isinstance(piece := context.run(next, texts, _END), _End):
                yield piece
        finally:
            context.run(texts.close)

    def _texts(self) -> Generator[str, None, None]:
        reader = _Reader(self._backend)
        try:
            self.outcome = yield from stepped(self._process(), partial(self._performed, reader))
        finally:
            reader.close()
        if rest := reader.shown.rest(self.outcome):
            yield rest

    def _performed(self, reader: _Reader, effect: Effect) -> Texts:
        match effect:
            case CallModel(call, upto):
                reader.open(call)
                return (yield from reader.read(upto))
            case Resume(upto):
                return (yield from reader.read(upto))
            case Cut():
                return reader.cut()
            case _:
                return self._perform(effect)


class _Reader:
    """The stream that is read now; one after the other."""

    def __init__(self, backend: Backend) -> None:
        self.shown = Shown()
        self._backend = backend
        self._reading: Reading
        self._pieces: Iterator[Delta | Reply] = iter(())

    def open(self, call: Call) -> None:
        self.shown.begin(call)
        self._reading = Reading(call)
        with self.shown.guarded(call):
            self._pieces = iter(self._backend.stream(call))

    def read(self, upto: int | None) -> Texts:
        reading, piece = self._reading, None
        try:
            with self.shown.guarded(reading.call):
                while True:
                    piece = reading.take(reading.waiting(upto) or next(self._pieces, None), upto)
                    if not isinstance(piece, Delta):
                        return piece
                    if self.shown.passes(reading.call, piece):
                        yield piece.text
        finally:
            if not isinstance(piece, Paused):
                self.close()

    def cut(self) -> Reply:
        self.close()
        return self._reading.cut()

    def close(self) -> None:
        """Close a stream that was left before its end; one that is no generator closes itself."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()


class AsyncStream:
    """The same for `async for`; the step runs in a task of its own, which leaving the loop early cancels."""

    def __init__(self, backend: Backend, process: Callable[[], Process[Outcome]], perform: Performer) -> None:
        self._backend = backend
        self._process = process
        self._perform = perform
        self.outcome: Outcome | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        texts: asyncio.Queue[str | _End] = asyncio.Queue()
        worker = asyncio.ensure_future(self._work(texts.put_nowait))
        try:
            while not isinstance(piece := await texts.get(), _End):
                yield piece
            await worker
        finally:
            worker.cancel()
            await asyncio.wait([worker])

    async def _work(self, put: Callable[[str | _End], None]) -> None:
        reader = _AsyncReader(self._backend, put)
        try:
            self.outcome = await adrive(self._process(), partial(self._performed, reader))
            if rest := reader.shown.rest(self.outcome):
                put(rest)
        finally:
            put(_END)
            await reader.close()

    def _performed(self, reader: _AsyncReader, effect: Effect) -> Any:
        match effect:
            case CallModel(call, upto):
                reader.open(call)
                return reader.read(upto)
            case Resume(upto):
                return reader.read(upto)
            case Cut():
                return reader.cut()
            case _:
                return self._perform(effect)


class _AsyncReader:
    """The same for asynchronous streams; text is handed to `put`."""

    def __init__(self, backend: Backend, put: Callable[[str], None]) -> None:
        self.shown = Shown()
        self._backend = backend
        self._put = put
        self._reading: Reading
        self._pieces: AsyncIterator[Delta | Reply] | None = None

    def open(self, call: Call) -> None:
        self.shown.begin(call)
        self._reading = Reading(call)
        with self.shown.guarded(call):
            self._pieces = aiter(self._backend.astream(call))

    async def read(self, upto: int | None) -> Reply | Paused:
        reading, piece = self._reading, None
        try:
            with self.shown.guarded(reading.call):
                while True:
                    piece = reading.take(reading.waiting(upto) or await self._next(), upto)
                    if not isinstance(piece, Delta):
                        return piece
                    if self.shown.passes(reading.call, piece):
                        self._put(piece.text)
        finally:
            if not isinstance(piece, Paused):
                await self.close()

    async def _next(self) -> Delta | Reply | None:
        return None if self._pieces is None else await anext(self._pieces, None)

    async def cut(self) -> Reply:
        await self.close()
        return self._reading.cut()

    async def close(self) -> None:
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()
