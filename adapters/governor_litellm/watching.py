"""A stream of a call under the stop rules of its rung: read as it passes, and ended where one of them says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from governor.errors import BackendReplyError
from governor.plan.bounds import bound
from governor.plan.dialects import Dialect
from governor.protocols import Delta
from governor.records import Call, Reply, Usage
from governor.stops.phrases import STUCK, ended_by
from governor.watched import Judge, marked
from governor_litellm.reply import Evidence, layers, response_of
from governor_litellm.wires import Chunks, Wire

log = logging.getLogger("governor.proxy")

_TELLING: set[asyncio.Task[None]] = set()
"""LiteLLM's callbacks may wait for other servers: nobody waits for them but a proxy that stops."""


class Watching:
    """Mutable, made for one stream. `judged`: the rung's rules act; without any the stream is only read.

    `rule` is the one that ended it, once one has. `doubted` is set by whom doubts it before its end, `withheld` where
    the rest of it is not to be shown: both only of one that is `speculated`, of which `tell` is told what was shown.
    `source` is LiteLLM's object that gives the chunks, `account` the one that logs the call, where that is known.
    """

    def __init__(
        self,
        wire: Wire,
        call: Call,
        dialect: Dialect,
        source: Any,
        *,
        judged: bool = True,
        speculated: bool = False,
        account: Any = None,
    ) -> None:
        self.rule = ""
        self.doubted = self.withheld = self._failed = False
        self.new: Sequence[Delta] | None = ()
        """What the chunk that came last has added; None where it could not be read."""
        self._call, self._dialect, self._source = call, dialect, source
        # LiteLLM logs a stream of messages itself, however it ends, where the provider speaks that format.
        self._account: Any = getattr(source, "logging_obj", None) or (
            None if dialect.messages else _account_of(source) or account
        )
        cuttable = speculated or call.rung.stops is not None
        self._reading: Chunks = wire.chunks(call, dialect, source, cuttable=cuttable)
        self._told = wire.chunks(call, dialect, source, cuttable=True) if speculated else self._reading
        stops = call.rung.stops if judged else None
        self._judge = None if stops is None else Judge(stops, call.rung.temperature)

    @property
    def shown(self) -> int | None:
        """Bytes read so far: no fewer than their tokens; None where they bound nothing."""
        return self._reading.shown

    def take(self, chunk: Any) -> Any:
        """Read a chunk; as much of it as is to be shown. Reading must never break what is streamed."""
        try:
            self.new = None
            self.new = deltas = self._reading.add(chunk)
            if self._judge is None:
                return chunk
            rule = next((rule for delta in deltas if (rule := self._judge.rule(delta))), "")
            if rule and (rule in STUCK or not self._reading.ended):  # one that came too late to end anything did not
                self.rule = rule
                return self._reading.trimmed(chunk)
            return chunk
        except Exception:
            log.exception("a chunk could not be read")
            return chunk

    def tell(self, chunk: Any) -> None:
        """Take note of a chunk that was shown."""
        self._told.add(chunk)

    def reply(self) -> Reply:
        """What it came to. Raises BackendError where it broke off."""
        if not self._cut:
            whole = self._proven(self._reading.reply())
            return whole if self._judge is None else marked(whole, ended_by(whole.thinking))
        cut = self._bounded(self._reading.cut())
        return marked(cut, self.rule) if self.rule else replace(cut, finish_reason="doubted")

    def stands(self) -> bool:
        """Whether what was read is a whole answer with a known usage. Asked of one that failed; its end is then made.

        Only of a stream of LiteLLM's own: a guardrail that reads it first may refuse the whole answer at its end.
        """
        upstream = type(self._source).__module__.startswith("litellm.")
        if self._cut or not (upstream and self._reading.ended):
            return False
        try:
            self._failed = self.reply().usage_known
        except Exception:
            log.debug("a stream that failed could not be read", exc_info=True)
        return self._failed

    def _proven(self, whole: Reply) -> Reply:
        """The reply without what LiteLLM made up for it where the server told nothing: its end, and its usage."""
        said = Evidence.within(self._source)
        if said is None or (said.finished and said.counted):
            return whole
        if not said.finished:
            model, usage = self._call.rung.model, whole.usage if said.counted else None
            text = f"{model}: the stream broke off before the reply was finished"
            raise BackendReplyError(text, model=model, usage=usage)
        return self._bounded(replace(whole, usage=Usage(), usage_known=False))

    def _bounded(self, reply: Reply) -> Reply:
        """A usage that nobody told is at most what was shown, where no thought can be hidden."""
        most = None if reply.usage_known else shown_at_most(self._call, self._dialect, self.shown)
        return reply if most is None else replace(reply, usage=most, usage_known=True)

    def ending(self, usage: Usage, *, told: bool) -> Sequence[Any]:
        """The chunks that follow the last one; none after a stream that ended well by itself."""
        try:
            if self.withheld:
                return self._told.ending(usage, told=told)
            return self._reading.ending(usage, told=told) if self._cut or self._failed else ()
        except Exception:
            log.exception("a stream that was cut could not be ended as its format wants it")
            return ()

    async def close(self) -> None:
        """End the upstream's work where the stream was cut. Not all of LiteLLM's streams end it themselves."""
        if not self._cut:
            return
        held = (getattr(self._source, name, None) for name in ("response", "litellm_custom_stream_wrapper"))
        for stream in (self._source, *held):
            closing = getattr(stream, "aclose", None)
            if closing is None:
                continue
            try:
                await closing()
            except Exception:
                log.exception("a stream that was cut could not be closed")

    def log(self, reply: Reply) -> None:
        """Tell LiteLLM what a stream that was cut came to, behind the client and the settlement.

        It logs a stream at its own end. Of one without, it would book no spend, and never give back the slot that the
        caller's key holds of its `max_parallel_requests`.
        """
        if self._cut and self._account is not None:
            telling = asyncio.get_running_loop().create_task(self._tell(reply))
            _TELLING.add(telling)
            telling.add_done_callback(_TELLING.discard)

    async def _tell(self, reply: Reply) -> None:
        """Never fails: the answer is given and settled, and these are LiteLLM's books."""
        try:
            whole = response_of(reply, reply.usage if reply.usage_known else self._most, self._account.model)
            await self._account.dispatch_success_handlers(whole, cache_hit=False, prefer_async_handlers=True)
        except Exception:
            log.exception("LiteLLM could not be told of a stream that was cut")

    @property
    def _most(self) -> Usage:
        """What is booked of a call whose usage is not known."""
        most = bound(self._call)
        return Usage(most.input, most.answer)

    @property
    def _cut(self) -> bool:
        return bool(self.rule) or self.doubted


def _account_of(source: Any) -> Any:
    """LiteLLM's object that logs the call of a stream, wherever among its wrappers that lies; None where nowhere."""
    told = (getattr(one, "logging_obj", None) or getattr(one, "litellm_logging_obj", None) for one in layers(source))
    return next((account for account in told if account is not None), None)


async def all_told(seconds: float) -> None:
    """Wait, at most so long, until LiteLLM knows of every stream that this event loop has cut."""
    loop = asyncio.get_running_loop()
    telling = [task for task in _TELLING if task.get_loop() is loop]
    if telling:
        await asyncio.wait(telling, timeout=seconds)


def shown_at_most(call: Call, dialect: Dialect, shown: int | None) -> Usage | None:
    """What `shown` bytes of an answer can have cost; None where thought that is not shown may have been paid for."""
    rung = call.rung
    thinks = rung.effort not in (None, "none") or rung.thinking_tokens or dialect.thinks_by_default
    if shown is None or thinks or not dialect.known:
        return None
    most = bound(call)
    return Usage(most.input, min(shown, most.answer))
