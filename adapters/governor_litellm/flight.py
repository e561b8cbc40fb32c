"""One governed request in flight: the loop in a task of its own, its first call made by the proxy.

The pre-call hook waits for the loop's first call and lets the proxy make it; the hooks after the call hand in what came
of it. Every further call (a higher rung, another sample, a judge) the loop makes itself through the router. Estimate,
reservation, verdicts, backtracking and settlement are the loop's own, once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from governor.arm import arm_of
from governor.drivers import adrive
from governor.errors import BackendError, BackendReplyError, BackendRequestError, BackendStreamError, PolicyError
from governor.facade import Governor
from governor.plan.dialects import Dialect
from governor.protocols import Terms
from governor.records import Call, Limit, Outcome, Reply, Step
from governor.watched import asked, doubted
from governor_litellm.faults import fault
from governor_litellm.guards import as_sent
from governor_litellm.models import NO_FALLBACKS, Ask, ProxyModels, RouterBackend
from governor_litellm.timeouts import steady
from governor_litellm.tries import Tries
from governor_litellm.watching import Watching, shown_at_most
from governor_litellm.wires import Fields, Wire

log = logging.getLogger("governor.proxy")

PATIENCE = 900.0
"""Seconds that a call of the proxy may take, at least, before it counts as lost: longer than any that is alive."""

SILENCE, GONE = "nothing was heard of the call", "the request got lost"
LOST = frozenset({SILENCE, GONE})
"""Why a flight was given up that no hook had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A client's request as the pre-call hook found it, and who it is booked on.

    `kept` are its own fields, which every call of the flight repeats, with what the proxy made of its headers: they may
    hold keys, and are shown nowhere. `bucket` is what LiteLLM books calls by.
    """

    wire: Wire
    step: Step
    terms: Terms
    kept: Mapping[str, Any] = field(repr=False)
    bucket: Mapping[str, Any]
    changes: Fields = field(default_factory=dict)
    """What the client's request loses, or says in another place, before any rung is asked (see evasions)."""
    unbounded: str = ""
    """What of it makes its input unbounded; empty where it has a bound."""
    stream: bool = False
    usage: bool = False
    """Whether the usage of its stream is asked for, where a format tells it only then."""
    checked: bool = True
    """Whether the policy's verifiers have their say."""
    detailed: bool = False
    """Whether the client wants the answer's body to tell what became of it."""
    thinks: bool = False
    """Whether the client's own fields may make a model think, or hide what it thinks."""
    doubts: Callable[[str], str] | None = None
    """Says why no answer that begins with a text is accepted, of a stream that is shown as long as it says nothing."""

    @property
    def limits(self) -> Iterator[Limit]:
        """Every limit that a call of it is held to."""
        call = () if self.terms.call is None else (self.terms.call,)
        for limits in (call, self.terms.limits, *(limits for _, limits in self.terms.models)):
            yield from limits


@dataclass(slots=True, weakref_slot=True, eq=False)
class Flight:
    """Mutable, owned by one request. `over` is called once, when the loop has ended and everything is settled."""

    governor: Governor
    models: ProxyModels
    request: Request
    over: Callable[[Flight], None]
    tries: Tries = field(default_factory=Tries)
    """The requests of the proxy's call: before a deployment is asked nothing can be owed."""
    closed: str = ""
    """Why no further call would be of use to the client; empty while one would."""
    first: asyncio.Future[Call] = field(init=False)
    task: asyncio.Task[Outcome] = field(init=False)
    _answer: asyncio.Future[Reply] = field(init=False)
    _raws: list[tuple[Reply, Any]] = field(default_factory=list)
    _asked: float = 0.0
    _tried: float = 0.0
    _silence: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin the loop, in this event loop and the current context."""
        loop = asyncio.get_running_loop()
        self.first, self._answer = loop.create_future(), loop.create_future()
        self._answer.add_done_callback(_seen)
        self.task = loop.create_task(self._run())
        self.task.add_done_callback(self._ended)

    @property
    def id(self) -> str:
        """The step's, which no other request has."""
        return self.request.step.id

    @property
    def governed(self) -> bool:
        """Whether decisions are carried out: not in shadow, nor in the control part of a canary."""
        return arm_of(self.request.step, self.request.terms) == "governed"

    @property
    def holds(self) -> bool:
        """Whether a stream may only be shown once it is accepted."""
        return self.governed and self.first.done() and self.first.result().hold

    @property
    def speculates(self) -> bool:
        """Whether a stream that is held may be shown a sentence at a time. One of several samples may not be it."""
        call = self.call
        return self.holds and self.request.doubts is not None and call is not None and call.rung.samples == 1

    @property
    def call(self) -> Call | None:
        """The call that the proxy makes, None before the loop has asked for one."""
        return self.first.result() if self.first.done() and not self.first.cancelled() else None

    def dialect(self, call: Call) -> Dialect:
        row = self.models.dialect(self.governor.policy, call.rung.model)
        return replace(row, known=False) if self.request.thinks else row

    async def admitted(self) -> Call | Outcome:
        """The first call, once it is reserved; the outcome where the step ended without one."""
        either: set[asyncio.Future[Any]] = {self.first, self.task}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return self.first.result() if self.first.done() else self.task.result()

    async def heard(self) -> Call | None:
        """The proxy's call, once it is known; None where the step ended without one, or broke down."""
        if not self.first.done():
            with suppress(Exception):  # `over` tells it
                await self.admitted()
        return self.call

    def went(self, data: Mapping[str, Any]) -> None:
        """The proxy's call was sent: further calls say what it said, as other hooks left it after Governor's."""
        call = self.call
        if call is not None and self.governed:
            kept = as_sent(self.request.kept, data, call.rung.instruction)
            self.request = replace(self.request, kept=kept)

    def reading(self) -> None:
        """The proxy's stream is being read. One that nobody may end takes as long as it takes: its reader tells."""
        if self._silence is not None and not self.governed:
            self._silence.cancel()

    def tried(self, kind: object) -> None:
        """LiteLLM asks a deployment, be it once more: the call has its time again."""
        self.tries.begin(kind)
        self._tried = time.monotonic()

    @property
    def untold(self) -> bool:
        """Whether the proxy's call was answered, though nothing told that a deployment was asked."""
        answer = self._answer
        return not self._tried and answer.done() and not answer.cancelled() and answer.exception() is None

    @property
    def left(self) -> float | None:
        """Seconds that are left of the proxy's call, as it was last tried; None where nobody may end it."""
        call = self.call
        if call is None or not self.governed:
            return None
        return max(self._asked, self._tried) + call.timeout - time.monotonic()

    def changes(self, call: Call, *, guarded: bool = False) -> Mapping[str, Any]:
        """The fields of the client's request that a call changes. PolicyError for what can't be expressed.

        `guarded`: whoever makes the call ends it at its time limit.
        """
        request, dialect = self.request, self.dialect(call)
        more = call.messages[len(request.step.messages) :]
        limit = steady(call.timeout, call.rung.timeout, guarded=guarded)
        return {
            **request.changes,
            **request.wire.following(request.kept, more, call.rung.instruction),
            **request.wire.fields(call.rung, dialect, request.kept),
            **self._listening(call, dialect),
            **self._unaided,
            "timeout": smaller(limit, request.kept.get("timeout")),
            **self._between_chunks(limit),
        }

    def watching(self, source: Any, account: Any = None) -> Watching | None:
        """A reader for the stream of the proxy's call. In shadow, and in the control part, no rule acts."""
        call = self.call
        if call is None:
            return None
        heard = asked(call) if self.governed else call
        wire, dialect = self.request.wire, self.dialect(call)
        judged, speculated = self.governed, self.speculates
        return Watching(wire, heard, dialect, source, judged=judged, speculated=speculated, account=account)

    @property
    def veils(self) -> bool:
        """Whether what is given may hold what only stop rules or verifiers read."""
        read = (rung.stops is not None and rung.stops.reads_confidence for rung in self.request.terms.ladder)
        call = self.call
        return self.governed and (any(read) or (call is not None and call.logprobs))

    @property
    def _unaided(self) -> Fields:
        """No fallbacks under a limit in money, where nothing is held at their prices.

        Without a router the model itself would be sent this.
        """
        paid = any(limit.micros is not None for limit in self.request.limits)
        return NO_FALLBACKS if paid and self.models.router() is not None else {}

    def _between_chunks(self, limit: float) -> Fields:
        """A client's own limit for streams, which LiteLLM takes before `timeout`, no larger than the rung's."""
        own = self.request.kept.get("stream_timeout")
        return {} if own is None else {"stream_timeout": smaller(limit, own)}

    def _listening(self, call: Call, dialect: Dialect) -> Mapping[str, Any]:
        request = self.request
        watched = request.stream and call.rung.stops is not None
        if not (watched or call.logprobs):
            return {}
        heard = asked(call) if watched else call
        return request.wire.listening(heard, dialect, request.kept, told=watched and request.usage)

    def give(self, raw: Any) -> None:
        """Hand in the response of the proxy's call."""
        call = self.call
        if call is None or self._answer.done():
            return
        try:
            reply = self.request.wire.reply(raw, call, self.dialect(call))
        except BackendError as error:
            self._fail(error)
        except Exception:  # of LiteLLM's many kinds of values one that we don't know: what is paid for is no 500
            log.exception("a response could not be read")
            model = call.rung.model
            self._fail(BackendReplyError(f"{model}: the response could not be read", model=model))
        else:
            self.give_reply(reply, raw)

    def give_reply(self, reply: Reply, raw: Any) -> None:
        """Hand in what the proxy's call came to, and what is to be shown of it."""
        if not self._answer.done():
            reply = replace(reply, seconds=time.monotonic() - self._asked)
            self._raws.append((reply, raw))
            self._answer.set_result(reply)

    def fail(self, error: Exception, *, final: bool = True) -> None:
        """Hand in that the proxy's call failed; `final`: the client was told so, and no other answer can follow."""
        call = self.call
        if call is None or self._answer.done():
            return
        model, seconds = call.rung.model, time.monotonic() - self._asked
        told = error if isinstance(error, BackendError) else fault(error, model=model, seconds=seconds)
        sent = self.tries.sent(otherwise=told.sent)
        if final:
            self.closed = "the client was told that the call failed"
            told = BackendStreamError(str(told), model=model, sent=sent, usage=told.usage, seconds=seconds)
        told.sent, told.seconds = sent, seconds
        self._fail(told)

    async def failed(self, error: Exception) -> None:
        """The same, awaiting that it is settled."""
        await self.heard()
        self.fail(error)
        with suppress(Exception):  # `over` has told it; the client gets the error that came first
            await self.outcome()

    def leave(self, why: str, shown: int | None = None) -> None:
        """The client is gone, or its request got lost: end the loop, and settle.

        `shown` are the bytes of the answer that were streamed; where no thought can be hidden in between, they bound
        the tokens. Otherwise the call is booked at its bound.
        """
        if self.task.done():
            return
        self.closed = self.closed or why
        call = self.call
        if call is None or self._answer.done():
            self.task.cancel()
            return
        usage = shown_at_most(call, self.dialect(call), shown)
        seconds = time.monotonic() - self._asked
        self._fail(BackendStreamError(why, model=call.rung.model, sent=self.tries.sent(), usage=usage, seconds=seconds))

    def watch(self, owner: object) -> None:
        """End the flight when `owner`, which every path of the proxy holds on to, goes away without an answer."""
        loop = asyncio.get_running_loop()
        weakref.finalize(owner, _lost, loop, weakref.ref(self)).atexit = False

    def lost(self) -> None:
        """Nobody holds on to the request any more: if it was never answered, it never will be."""
        if not self._answer.done():
            self.leave(GONE)

    async def outcome(self) -> Outcome:
        """How the loop ended. A cancellation of the one who waits (the client is gone) ends the loop, and settles."""
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            self.leave("the client went away")
            raise

    def shipped(self, outcome: Outcome) -> Any:
        """What LiteLLM gave in the attempt that ships; None where none does."""
        return self._raw_of(outcome.reply)

    def _raw_of(self, wanted: Reply | None) -> Any:
        return next((raw for reply, raw in self._raws if reply is wanted), None)

    async def _run(self) -> Outcome:
        request = self.request
        process = self.governor.process(request.step, granted=request.terms, policy_checks=request.checked)
        return await adrive(process, replace(self.governor.async_ports(), call=self._called).perform)

    async def _called(self, call: Call) -> Reply:
        if call.purpose == "judge":
            return await self._judged(call)
        if not self.first.done():
            return await self._doubted(call, await self._by_proxy(call))
        if self.closed:
            raise BackendStreamError(self.closed, model=call.rung.model, sent=False)
        return await self._doubted(call, await self._by_router(call))

    async def _doubted(self, call: Call, reply: Reply) -> Reply:
        """The reply, as stuck where it was not streamed, so that no rule could end it, and goes round in circles."""
        rung = call.rung
        if self.request.stream or not self.governed or rung.stops is None:
            return reply
        judged = await asyncio.to_thread(doubted, reply, rung.stops, rung.temperature)  # .1 s for 1000 words
        if judged is not reply:
            self._raws.append((judged, self._raw_of(reply)))
        return judged

    async def _by_proxy(self, call: Call) -> Reply:
        self._asked = time.monotonic()
        self._silence = asyncio.get_running_loop().call_later(max(PATIENCE, 4 * call.timeout), self._silent)
        self.first.set_result(call)
        try:
            return await self._answer
        finally:
            self._silence.cancel()

    def _silent(self) -> None:
        """The proxy's call counts as lost."""
        call = self.call
        if call is not None and not self._answer.done():
            self.closed = SILENCE
            self._fail(BackendStreamError(SILENCE, model=call.rung.model))

    async def _by_router(self, call: Call) -> Reply:
        request, model = self.request, call.rung.model
        try:
            fields = {**request.kept, **self.changes(call, guarded=True), "stream": request.stream or None}
        except PolicyError as refused:
            raise BackendRequestError(f"{model}: {refused}", model=model, sent=False) from refused
        whole = {key: value for key, value in fields.items() if value is not None}
        ask = Ask(request.wire, asked(call), self.dialect(call), whole, request.bucket, told=request.usage)
        reply, raw = await ask.answer(self.models)
        self._raws.append((reply, raw))
        return reply

    async def _judged(self, call: Call) -> Reply:
        reply, _ = await RouterBackend(self.models, self.governor.policy).ask(call, self.request.bucket)
        return reply

    def _fail(self, error: BackendError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        if not task.cancelled():
            task.exception()  # told by whoever waits; a flight that nobody waits for is told by `over`
        self.over(self)


def smaller(one: float, other: Any) -> float:
    """The smaller time limit; what is no number is no limit."""
    return min(one, float(other)) if isinstance(other, int | float) and other > 0 else one


def _seen(answer: asyncio.Future[Reply]) -> None:
    """An answer that comes after the loop has ended is nobody's error."""
    if not answer.cancelled():
        answer.exception()


def _lost(loop: asyncio.AbstractEventLoop, flight: weakref.ref[Flight]) -> None:
    """Runs in whichever thread frees the owner."""
    alive = flight()
    if alive is not None and not loop.is_closed():
        loop.call_soon_threadsafe(alive.lost)
