"""The streams of governed requests: shown as they come, a sentence at a time, or once they are accepted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from governor.errors import BackendError, BackendTimeoutError
from governor.records import Outcome, Usage
from governor_litellm.desk import Desk
from governor_litellm.flight import Flight
from governor_litellm.told import ended, paid, problem, refused
from governor_litellm.watching import Watching
from governor_litellm.window import Window

log = logging.getLogger("governor.proxy")


SHOWN = "the stream was shown, which can't be taken back"


async def streamed(
    desk: Desk, flight: Flight, response: AsyncIterator[Any], account: Any = None
) -> AsyncGenerator[Any, None]:
    """The chunks that the client gets. `account` is LiteLLM's object that logs the call."""
    await flight.heard()
    flight.reading()
    watching = flight.watching(response, account)
    if watching is None:  # nothing is booked: the ledger was down, and this part of the traffic is not governed
        async for chunk in response:
            yield chunk
        return
    source = _source(desk, flight, timely(flight, response), watching)
    request, veils = flight.request, flight.veils
    try:
        async for chunk in source:
            yield request.wire.veiled(chunk, request.kept) if veils else chunk
    finally:
        await source.aclose()


def _source(desk: Desk, flight: Flight, response: AsyncIterator[Any], watching: Watching) -> AsyncGenerator[Any, None]:
    doubts = flight.request.doubts
    if not flight.holds:
        return passed(flight, response, watching)
    answered = _answered(response, watching)
    if flight.speculates and doubts is not None:
        return speculated(desk, flight, answered, watching, Window(doubts))
    return held(desk, flight, answered, watching)


async def _answered(response: AsyncIterator[Any], watching: Watching) -> AsyncGenerator[Any, None]:
    """The chunks; what fails after a whole answer is not the answer's."""
    try:
        async for chunk in response:
            yield chunk
    except Exception as error:
        if not watching.stands():
            raise
        log.warning("a stream failed after its whole answer: %s", type(error).__name__)


async def timely(flight: Flight, response: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The chunks, as long as the call has time. Raises BackendTimeoutError.

    What LiteLLM is told is a limit between two chunks: one that comes now and then keeps a stream alive for ever.
    """
    call, left, alarm = flight.call, flight.left, _Alarm()
    timer = None if left is None else asyncio.get_running_loop().call_later(max(left, 0.0), alarm.ring)
    try:
        async for chunk in alarm.heeded(aiter(response)):
            yield chunk
    except TimeoutError:
        if not alarm.rang() or call is None:
            raise
        model = call.rung.model
        text = f"{model}: no whole answer within {call.timeout:g} s"
        raise BackendTimeoutError(text, model=model, seconds=call.timeout) from None
    finally:
        if timer is not None:
            timer.cancel()


class _Alarm:
    """What `asyncio.timeout` does, with one timer for all chunks of a stream: there are many, and each would cost one.

    It cancels only the wait for a chunk, never what is done with it.
    """

    def __init__(self) -> None:
        self._rang = asyncio.Event()
        self._waiting: asyncio.Task[Any] | None = None

    def ring(self) -> None:
        self._rang.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def rang(self) -> bool:
        return self._rang.is_set()

    async def heeded(self, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """The chunks until it rings; then TimeoutError."""
        while not self.rang():
            task = self._waiting = asyncio.current_task()
            assert task is not None
            others = task.cancelling()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if self.rang() and task.uncancel() <= others:
                    break
                raise
            finally:
                self._waiting = None
            yield chunk
        raise TimeoutError


async def passed(flight: Flight, response: AsyncIterator[Any], watching: Watching) -> AsyncGenerator[Any, None]:
    """Every chunk at once; what it came to is booked at the end."""
    try:
        async for chunk in response:
            yield watching.take(chunk)
            if watching.rule:
                break
        await watching.close()
    except (GeneratorExit, asyncio.CancelledError):
        flight.leave("the client went away", watching.shown)
        raise
    except Exception as error:
        flight.fail(error)
        if isinstance(error, BackendTimeoutError):
            raise _as_told(error) from None
        raise
    flight.closed = flight.closed or SHOWN
    _finish(flight, watching, None)
    usage = await _paid(flight)
    for chunk in watching.ending(usage, told=flight.request.usage):
        yield chunk


async def held(
    desk: Desk, flight: Flight, response: AsyncIterator[Any], watching: Watching
) -> AsyncGenerator[Any, None]:
    """Nothing before acceptance; then the chunks of the attempt that ships, with the usage of all."""
    chunks: list[Any] = []
    lost: Exception | None = None
    try:
        async for chunk in response:
            chunks.append(watching.take(chunk))
            if watching.rule:
                break
        await watching.close()
    except asyncio.CancelledError:
        flight.leave("the client went away")
        raise
    except Exception as error:  # noqa: BLE001 - nothing was shown, so that another attempt may still answer
        lost = _as_told(error)
        flight.fail(error, final=False)
    else:
        _finish(flight, watching, chunks)
    outcome = await desk.settled(flight)
    for chunk in _released(flight, outcome, chunks, lost):
        yield chunk


async def speculated(
    desk: Desk, flight: Flight, response: AsyncIterator[Any], watching: Watching, window: Window
) -> AsyncGenerator[Any, None]:
    """Whole sentences as long as nothing is doubted; the rest, or an attempt in place of all, at acceptance."""
    lost: Exception | None = None
    try:
        async with aclosing(_opened(flight, response, watching, window)) as opened:
            async for chunk in opened:
                flight.closed = flight.closed or SHOWN
                watching.tell(chunk)
                yield chunk
        await watching.close()
    except (GeneratorExit, asyncio.CancelledError):
        flight.leave("the client went away", watching.shown)
        raise
    except Exception as error:  # told on, or kept for the case that no other attempt answers
        flight.fail(error, final=bool(window.shown))
        lost = _as_told(error)
        if window.shown and lost is error:
            raise
        if window.shown:
            raise lost from None
    else:
        if window.shown:
            _withhold(watching, window)
        _finish(flight, watching, window.chunks)
    outcome = await desk.settled(flight)
    for chunk in _released(flight, outcome, window.chunks, lost, shown=bool(window.shown))[window.shown :]:
        yield chunk


async def _opened(
    flight: Flight, response: AsyncIterator[Any], watching: Watching, window: Window
) -> AsyncGenerator[Any, None]:
    """What of a stream may be shown before its end, until a rule or a doubt ends it."""
    wire = flight.request.wire
    split = wire.splitter()
    async for chunk in response:
        for event in split(chunk):
            seen, new = watching.take(event), watching.new
            text = "".join(delta.text for delta in new or ())
            for free in window.take(seen, text, waits=new is None or wire.waits(event)):
                yield free
            watching.doubted = bool(window.doubt)
            if watching.rule or watching.doubted:
                return


def _withhold(watching: Watching, window: Window) -> None:
    """See to it that a stream of which a part was shown ends there, where it is doubted."""
    window.close()
    if window.doubt:
        watching.withheld = True
        del window.chunks[window.shown :]


async def _paid(flight: Flight) -> Usage:
    """What the client pays for, once it is settled."""
    try:
        return paid(await flight.outcome())
    except Exception:  # the client has its answer; the desk has told it
        log.debug("a stream ended in an error of the loop", exc_info=True)
        return Usage()


def _released(
    flight: Flight, outcome: Outcome | None, first: list[Any], lost: Exception | None, *, shown: bool = False
) -> list[Any]:
    """The chunks of the answer that ships. What was `shown` of the first one can only be gone on with."""
    if outcome is None:  # the loop broke down under `fail: open`
        if lost is not None:
            raise lost
        return first
    shipped = first if shown else flight.shipped(outcome)
    if shipped is None:
        raise lost or refused(outcome, ended(flight, outcome))
    if outcome.reply is not None and outcome.reply.usage == paid(outcome):
        return list(shipped)
    pieces = shipped if shown else _joined(shipped)
    return [flight.request.wire.charged_chunk(chunk, paid(outcome)) for chunk in pieces]


def _joined(chunks: list[Any]) -> list[Any]:
    """Raw bytes in one piece: the event that tells the usage may lie across two."""
    raw = [chunk for chunk in chunks if isinstance(chunk, bytes)]
    return [b"".join(raw)] if raw and len(raw) == len(chunks) else chunks


def _as_told(error: Exception) -> Exception:
    """An error as the proxy tells it: its own as they are."""
    if not isinstance(error, BackendTimeoutError):
        return error
    return problem(f"governor: {error}", "timeout", HTTPStatus.GATEWAY_TIMEOUT)


def _finish(flight: Flight, watching: Watching, chunks: list[Any] | None) -> None:
    """Hand in what a stream came to; `chunks` are those that may still be shown, None where all were."""
    try:
        reply = watching.reply()
        if chunks is not None:
            chunks += watching.ending(reply.usage, told=flight.request.usage)
    except BackendError as error:
        flight.fail(error, final=chunks is None)
    except Exception as error:
        log.exception("a stream could not be read")
        flight.fail(error, final=chunks is None)
    else:
        flight.give_reply(reply, chunks)
        watching.log(reply)
