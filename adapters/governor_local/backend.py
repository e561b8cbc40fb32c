"""LocalBackend: models in this process, for rungs whose model is `local/NAME`."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from governor.errors import BackendError, BackendRequestError, BackendTimeoutError, BackendUnavailableError
from governor.pieces import awhole, whole
from governor.protocols import Delta
from governor.records import Call, Reply, Rung
from governor_local.catalog import PREFIX
from governor_local.engine import Chunk, Engine, Item, Options, check_start
from governor_local.registry import find_model
from governor_local.wire import Transcript, request_of

_NO_MODELS: Mapping[str, Mapping[str, Any]] = {}


class LocalBackend:
    """Runs GGUF models with llama.cpp's server inside this process; each is loaded at its first call.

    `models` states per model (`local/NAME` or NAME) what differs from the other arguments: `threads`, `slots`,
    `context_window` (tokens of one request, prompt and output), `chat_template`; other keys are not this
    backend's. One sampled token is one token of `usage`: counts are exact, also of calls that were cut.

    The same call gives the same text as long as the model is greedy or seeded and the machine is the same.
    Calls raise BackendError, and for a model that can't be had ModelFileError or MissingExtraError.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] = _NO_MODELS,
        *,
        threads: int | None = None,
        slots: int = 4,
        context: int | None = None,
    ) -> None:
        base = Options(threads=threads, slots=slots, context=context)
        options = {name.removeprefix(PREFIX): _options(base, own) for name, own in models.items()}
        self._engines = _Engines(base, options)
        # Runs at close, when the backend is collected, and before the interpreter goes: whichever is first.
        self._shutdown = weakref.finalize(self, self._engines.close)

    def load(self, model: str) -> float:
        """Load `model` now instead of at its first call; seconds until it was ready (0.0 if it already was)."""
        return self._engines.load(model.removeprefix(PREFIX))

    def call(self, call: Call) -> Reply:
        return whole(self.stream(call), call.rung.model)

    async def acall(self, call: Call) -> Reply:
        return await awhole(self._astream(call), call.rung.model)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        run = _Run(call)
        engine = self._engines.get(run.name)
        received: SimpleQueue[Item] = SimpleQueue()
        with run.told(), engine.generation(request_of(call), received.put, run.deadline):
            while (chunk := _next(received, run.left)) is not None:
                if delta := run.transcript.feed(chunk):
                    yield delta
        yield run.transcript.reply(run.seconds)

    def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        return self._astream(call)

    def continues(self, rung: Rung) -> bool:
        """Always: the server goes on from a trailing assistant message, and reuses its cache of the prompt.

        To go on inside a thought, `Call.prefix` is `<think>` and the thought so far.
        """
        return True

    def counts(self, rung: Rung) -> bool:
        """Always: the server tells how many tokens it has made with every piece, and stops when it is hung up on."""
        return True

    def ready(self, rung: Rung) -> None:
        """Raises what loading the rung's model would, as far as that can be told without loading it."""
        self._engines.check(rung.model.removeprefix(PREFIX))

    def close(self) -> None:
        """Stop what runs and free the models' memory; later calls raise BackendUnavailableError."""
        self._shutdown()

    async def _astream(self, call: Call) -> AsyncGenerator[Delta | Reply, None]:
        run = _Run(call)
        engine = await asyncio.to_thread(self._engines.get, run.name)
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[Item] = asyncio.Queue()

        def deliver(item: Item) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(received.put_nowait, item)

        with run.told(), engine.generation(request_of(call), deliver, run.deadline):
            while True:
                # Not wait_for: before Python 3.12 a cancellation that met an item was lost (cpython issue 86296).
                async with asyncio.timeout(run.left):
                    item = await received.get()
                if (chunk := _chunk(item)) is None:
                    break
                if delta := run.transcript.feed(chunk):
                    yield delta
        yield run.transcript.reply(run.seconds)


class _Run:
    """One call on its way: its clock, what came so far, and how its failures are told."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.name = call.rung.model.removeprefix(PREFIX)
        self.transcript = Transcript(call)
        self.started = time.monotonic()
        self.deadline = self.started + call.timeout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """Every fault of a generation as a BackendError that knows what was used."""
        try:
            yield
        except TimeoutError as fault:
            raise self._error(BackendTimeoutError, f"no whole answer within {self.call.timeout:g} s") from fault
        except BackendError as fault:
            fault.model, fault.seconds = self.call.rung.model, self.seconds
            raise
        except (ValueError, RuntimeError) as fault:  # what C++ exceptions become
            # Before the first chunk it was the request that the server could not make sense of.
            kind = BackendUnavailableError if self.transcript.begun else BackendRequestError
            raise self._error(kind, str(fault), sent=self.transcript.begun) from fault

    def _error(self, kind: type[BackendError], message: str, *, sent: bool = True) -> BackendError:
        model, usage = self.call.rung.model, self.transcript.usage
        return kind(f"{model}: {message}", model=model, sent=sent, usage=usage, seconds=self.seconds)


class _Engines:
    """The loaded models by name. Loading one holds up only the calls that need it."""

    def __init__(self, base: Options, options: Mapping[str, Options]) -> None:
        self._base = base
        self._options = options
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._loaded: dict[str, Engine] = {}
        self._closed = False

    def get(self, name: str) -> Engine:
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            if self._closed:
                raise BackendUnavailableError(f"{PREFIX}{name}: the local backend is closed", sent=False)
            if name not in self._loaded:
                self._loaded[name] = Engine(find_model(name), self._options.get(name, self._base))
            return self._loaded[name]

    def check(self, name: str) -> None:
        check_start(find_model(name), self._options.get(name, self._base))

    def load(self, name: str) -> float:
        present = name in self._loaded
        return 0.0 if present else self.get(name).ready_seconds

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loading = tuple(self._loading.items())
        with ExitStack() as all_of_them:  # also where one of them fails
            for name, lock in loading:
                all_of_them.callback(self._close, name, lock)

    def _close(self, name: str, loading: threading.Lock) -> None:
        with loading:  # one that is just being loaded is waited for, and closed too
            engine = self._loaded.pop(name, None)
        if engine is not None:
            engine.close()


def _next(received: SimpleQueue[Item], seconds: float) -> Chunk | None:
    """The next chunk, None at the end. Raises what ended the generation, TimeoutError after `seconds`."""
    try:
        return _chunk(received.get(timeout=seconds))
    except Empty as late:
        raise TimeoutError from late


def _chunk(item: Item) -> Chunk | None:
    if isinstance(item, Exception):
        raise item
    return item


def _options(base: Options, own: Mapping[str, Any]) -> Options:
    stated = {
        "context": own.get("context_window"),
        **{key: own.get(key) for key in ("threads", "slots", "chat_template")},
    }
    return replace(base, **{key: value for key, value in stated.items() if value is not None})
