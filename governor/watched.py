"""A backend whose replies are watched while they stream, and ended where a rung's stop rules say so.

Every call of a rung with `stops` is read as a stream, a blocking one too. A reply that is ended early says by which
rule (`Reply.stopped`): one that is sure or over its budget counts as cut, so that it may be gone on from; one that is
stuck is never trusted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace

from governor.pieces import awhole, whole
from governor.protocols import Backend, Counting, Delta, Foresighted, Pressed, Stopping
from governor.records import Call, Reply, Rung
from governor.stops.phrases import STUCK, ended_by
from governor.stops.settings import Stops
from governor.stops.watch import Watch
from governor.streaming import Reading


class Watched:
    """The backend `inner` with the stop rules of its rungs."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    def call(self, call: Call) -> Reply:
        if call.rung.stops is None:
            return self.inner.call(call)
        return whole(self.stream(call), call.rung.model)

    async def acall(self, call: Call) -> Reply:
        if call.rung.stops is None:
            return await self.inner.acall(call)
        return await awhole(self.astream(call), call.rung.model)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        stops = call.rung.stops
        return self.inner.stream(call) if stops is None else self._watched(call, self._asked(call))

    def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        stops = call.rung.stops
        return self.inner.astream(call) if stops is None else self._awatched(call, self._asked(call))

    def continues(self, rung: Rung) -> bool:
        return self.inner.continues(rung)

    def counts(self, rung: Rung) -> bool:
        """Whether the inner backend counts the tokens of this rung's streams as they run."""
        return isinstance(self.inner, Counting) and self.inner.counts(rung)

    def ready(self, rung: Rung) -> None:
        """Raises what the inner backend knows would fail."""
        if isinstance(self.inner, Foresighted):
            self.inner.ready(rung)

    def pressure(self, rung: Rung) -> Callable[[], float] | None:
        """What asks how busy the rung's engine is; None where the inner backend can't tell."""
        return self.inner.pressure(rung) if isinstance(self.inner, Pressed) else None

    def stops(self, rung: Rung) -> bool:
        """Whether the rung's server runs the rules itself."""
        return isinstance(self.inner, Stopping) and self.inner.stops(rung)

    def close(self) -> None:
        self.inner.close()

    def _asked(self, call: Call) -> Call:
        return call if self.stops(call.rung) else asked(call)

    def _watching(self, call: Call) -> _Watching:
        return _Watching(call, judged=not self.stops(call.rung))

    def _watched(self, call: Call, asked: Call) -> Generator[Delta | Reply, None, None]:
        watching, pieces = self._watching(call), iter(self.inner.stream(asked))
        try:
            for piece in pieces:
                yield watching.told(piece)
                if (ended := watching.ended(piece)) is not None:
                    yield ended
                    return
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    async def _awatched(self, call: Call, asked: Call) -> AsyncGenerator[Delta | Reply, None]:
        watching, pieces = self._watching(call), aiter(self.inner.astream(asked))
        try:
            async for piece in pieces:
                yield watching.told(piece)
                if (ended := watching.ended(piece)) is not None:
                    yield ended
                    return
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()


class _Watching:
    """One call's stream under its rules."""

    def __init__(self, call: Call, *, judged: bool) -> None:
        assert call.rung.stops is not None
        self._call = call
        self._reading = Reading(call)
        self._judge = Judge(call.rung.stops, call.rung.temperature) if judged else None
        self._logprobs: list[float] = []

    def told(self, piece: Delta | Reply) -> Delta | Reply:
        """The piece as it is handed on: a whole reply says which rule ended its thought, if the engine's did."""
        if isinstance(piece, Delta):
            return piece
        whole = piece if self._call.logprobs else replace(piece, logprobs=None)
        return marked(whole, ended_by(piece.thinking))

    def ended(self, piece: Delta | Reply) -> Reply | None:
        """The reply where a rule ends it with this piece; None to go on."""
        if isinstance(piece, Reply):
            return None
        self._reading.take(piece, None)
        self._logprobs += [token.logprob for token in piece.tokens]
        rule = self._judge.rule(piece) if self._judge is not None else ""
        if not rule:
            return None
        logprobs = tuple(self._logprobs) if self._call.logprobs and self._logprobs else None
        cut = replace(self._reading.cut(), logprobs=logprobs, usage_known=piece.usage is not None)
        return marked(cut, rule)


def marked(reply: Reply, rule: str) -> Reply:
    """The reply with the rule that ended it; one that is stuck says so as its finish reason."""
    if not rule:
        return reply
    return replace(reply, stopped=rule, finish_reason="stuck" if rule in STUCK else reply.finish_reason)


class Judge:
    """What the rules say of one reply's pieces, one after the other. Mutable; `temperature` is the sampling's."""

    def __init__(self, stops: Stops, temperature: float | None = None) -> None:
        self._watch = Watch(stops, temperature=temperature)
        self._made = 0

    def rule(self, piece: Delta) -> str:
        """The name of the rule that ends the reply with this piece; empty to go on."""
        made = None
        if piece.usage is not None:
            made, self._made = piece.usage.output_tokens - self._made, piece.usage.output_tokens
        tokens = () if piece.text and piece.thinking else piece.tokens
        for text, thinking in ((piece.thinking, True), (piece.text, False)):
            if text and (rule := self._watch.read(text, thinking=thinking, tokens=tokens, made=made)):
                return rule
            made = 0 if text and made is not None else made  # where a piece is both, its tokens count as thought
        return ""


def doubted(reply: Reply, stops: Stops, temperature: float | None = None) -> Reply:
    """A whole reply that nobody watched as it came: stuck where it goes round in circles, else as it is.

    Only `repeat` is judged: what the other rules would have ended early is paid for, and no worse for it.
    """
    if stops.repeat is None:
        return reply
    alone = Stops(repeat=stops.repeat, repeat_period=stops.repeat_period, repeat_tokens=stops.repeat_tokens)
    return marked(reply, Judge(alone, temperature).rule(Delta(reply.text, reply.thinking)))


def asked(call: Call) -> Call:
    """The call with the log-probabilities that its rung's rules read, if they read any."""
    stops = call.rung.stops
    if stops is None or not stops.reads_confidence:
        return call
    return replace(call, logprobs=True, top_logprobs=stops.alternatives)
