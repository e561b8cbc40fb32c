"""VllmBackend: models of vLLM servers, for rungs whose model is `vllm/NAME`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from governor.errors import BackendError, BackendTimeoutError, BackendUnavailableError
from governor.pieces import awhole, whole
from governor.plan.dialects import dialect_for
from governor.plan.effort import can_continue
from governor.protocols import Delta
from governor.records import Call, Reply, Rung
from governor_vllm.canaries import prove
from governor_vllm.link import Link, http
from governor_vllm.load import Gauge, pressed
from governor_vllm.marks import Splitter
from governor_vllm.options import PREFIX, ModelOptions
from governor_vllm.probe import Probe
from governor_vllm.reply import Transcript
from governor_vllm.request import Request, Target, answered, request_of
from governor_vllm.served import Served

_NO_MODELS: Mapping[str, Mapping[str, Any]] = {}


class VllmBackend:
    """Calls vLLM servers over HTTP. What a server honours is proved once, before its first call.

    `models` says per model (`vllm/NAME`) how it is reached (see ModelOptions). Requests are always streamed: usage is
    exact also of a call that was cut, and hanging up ends the generation. Faults are not tried again inside a call;
    the next plan follows. `served`: what is already known of a model's server, for those who proved it elsewhere.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] = _NO_MODELS,
        *,
        served: Mapping[str, Served] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = {name: ModelOptions.read(name, values) for name, values in models.items()}
        self._served = dict(served or {})
        self._engines: dict[str, _Engine] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._clock = clock

    def call(self, call: Call) -> Reply:
        return whole(self.stream(call), call.rung.model)

    async def acall(self, call: Call) -> Reply:
        return await awhole(self._astream(call), call.rung.model)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        run = _Run(call, self._engine(call.rung.model), self._clock)
        with run.told():
            request: Request | None = run.first()
            while request is not None:
                with run.engine.link.events(request.path, request.body, run.left) as events, closing(events):
                    for event in events:
                        if delta := run.transcript.feed(event):
                            yield delta
                        if run.over(request):
                            break
                request = run.following(request)
            yield run.reply()

    def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        return self._astream(call)

    async def _astream(self, call: Call) -> AsyncGenerator[Delta | Reply, None]:
        run = _Run(call, self._engine(call.rung.model), self._clock)
        with run.told():
            request: Request | None = await asyncio.to_thread(run.first)
            while request is not None:
                async with run.engine.link.aevents(request.path, request.body, run.left) as events, aclosing(events):
                    while True:
                        # Not wait_for: before Python 3.12 a cancellation that met a chunk was lost (cpython 86296).
                        async with asyncio.timeout(run.left):
                            event = await anext(events, None)
                        if event is None:
                            break
                        if delta := run.transcript.feed(event):
                            yield delta
                        if run.over(request):
                            break
                request = await asyncio.to_thread(run.following, request)
            yield run.reply()

    def continues(self, rung: Rung) -> bool:
        """By the token ids of the prompt and of what came, which the engine's cache holds; it has the usual marks."""
        known = self._engine(rung.model).known
        possible = known is None or (known.honours("resume") and known.usual)
        return possible and can_continue(rung, dialect_for(rung.model, self._option(rung.model).wire))

    def counts(self, rung: Rung) -> bool:
        """Whether the server tells the tokens with every piece; assumed until its canary was tried."""
        known = self._engine(rung.model).known
        return known is None or known.honours("counts")

    def stops(self, rung: Rung) -> bool:
        """Whether Governor's processor was seen to act in the server; else the client runs the rules."""
        known = self._engine(rung.model).known
        return known is not None and known.processor is not None

    def ready(self, rung: Rung) -> None:
        """Tries the canaries where they were not yet. Raises what would keep this rung's calls from being honoured."""
        http()
        self._engine(rung.model).target().check(rung)

    def pressure(self, rung: Rung) -> Callable[[], float]:
        """What asks how busy the rung's engine is: 0 idle to 1 full, as its application's priority feels it."""
        engine = self._engine(rung.model)
        return lambda: pressed(engine.gauge.read(), engine.options.engine.priority)

    def close(self) -> None:
        """Close the connections; later calls raise BackendUnavailableError."""
        with self._lock:
            self._closed = True
            while self._engines:
                self._engines.popitem()[1].link.close()

    def _option(self, model: str) -> ModelOptions:
        return self._options.get(model) or ModelOptions()

    def _engine(self, model: str) -> _Engine:
        with self._lock:
            if self._closed:
                raise BackendUnavailableError(f"{model}: the vLLM backend is closed", model=model, sent=False)
            if model not in self._engines:
                self._engines[model] = _Engine(model, self._option(model), self._served.get(model))
            return self._engines[model]


@dataclass(slots=True)
class _Engine:
    """One model's server: its link, and what it honours once that was proved. Proving holds up only those who ask."""

    model: str
    options: ModelOptions
    known: Served | None = None
    link: Link = field(init=False)
    gauge: Gauge = field(init=False)
    _proving: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.link = Link(self.options.api_base, model=self.model, key_env=self.options.api_key_env)
        self.gauge = Gauge(self.link, self.model.removeprefix(PREFIX))

    def target(self) -> Target:
        """The model with what its server honours. Raises BackendError where that can't be found out."""
        with self._proving:
            if self.known is None:
                self.known = _unsent(lambda: prove(self.link, self.model.removeprefix(PREFIX)))
            return Target(self.model, self.options, self.known)

    def probe(self) -> Probe:
        return Probe(self.link, self.target().served.model)


def _unsent(proof: Callable[[], Served]) -> Served:
    """Canaries are no part of the call that set them off: whatever they meet, nothing of it was sent."""
    try:
        return proof()
    except BackendError as fault:
        fault.sent = False
        raise


class _Run:
    """One call on its way: its clock, what came so far, and what is to be sent next."""

    def __init__(self, call: Call, engine: _Engine, clock: Callable[[], float]) -> None:
        self.call = call
        self.engine = engine
        self.transcript = Transcript(call, Splitter())
        self._clock = clock
        self._started = clock()
        self._sent = False

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    @property
    def left(self) -> float:
        """Seconds to the deadline. TimeoutError when there are none."""
        left = self.call.timeout - self.seconds
        if left <= 0:
            raise TimeoutError
        return left

    def first(self) -> Request:
        """The first request, made once what the server honours is known: the proof's time is not the call's."""
        target = self.engine.target()
        self._started = self._clock()
        request = request_of(self.call, target, self.engine.probe())
        self.transcript.splitter.inside, self.transcript.ends_at = request.inside, request.ends_at
        self._sent = True
        return request

    def over(self, request: Request) -> bool:
        """Whether this side hangs up now: the thought has used up its budget, or the call its time."""
        _ = self.left
        return self._spent(request) is not None

    def following(self, request: Request) -> Request | None:
        """The request for the answer, after a thought that was cut; None where the reply is as whole as it gets."""
        used = self._spent(request)
        if used is None:
            return None
        script = self.transcript
        thinking = script.thinking_so_far()
        read = script.usage.input_tokens
        more = answered(self.call, self.engine.target(), self.engine.probe(), thinking, used, read)
        if more is None:
            script.finish = "length"
        else:
            script.again()
        return more

    def reply(self) -> Reply:
        return self.transcript.reply(self.seconds)

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """Every fault as a BackendError that knows what was used."""
        try:
            yield
        except TimeoutError:
            text = f"{self.call.rung.model}: no whole answer within {self.call.timeout:g} s"
            raise self._known(BackendTimeoutError(text)) from None
        except BackendError as fault:
            raise self._known(fault) from None

    def _spent(self, request: Request) -> int | None:
        """Tokens of the thought, where this side must end it."""
        script, most = self.transcript, request.cut_at
        thinks = not script.finish and not any(script.text) and not script.tools
        used = script.usage.output_tokens - script.before.output_tokens
        return used if most is not None and thinks and used >= most else None

    def _known(self, fault: BackendError) -> BackendError:
        fault.model, fault.seconds = self.call.rung.model, self.seconds
        fault.sent = fault.sent and self._sent
        if fault.usage is None and self.transcript.known:
            fault.usage = self.transcript.usage
            fault.sent = True
        return fault
