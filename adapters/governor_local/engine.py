"""One model in memory, and a generation on it that can be stopped.

Requests go to the server by its callback, not over its HTTP port. By experiment (xllamacpp 2026.10): a closed
connection did not stop a running generation within 10 s, whereas a callback that returns True stops it at the
next token, and freeing a server waited up to 30 s for open connections. The port, which can't be left closed,
listens on 127.0.0.1 behind a random key.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from governor.errors import BackendUnavailableError, MissingExtraError, ModelFileError
from governor_local.gguf import read_header

Chunk: TypeAlias = dict[str, Any]
Item: TypeAlias = Chunk | Exception | None
"""What a generation delivers: chunks, and at last None (whole) or the reason why it ended early."""

DEFAULT_CONTEXT = 4096
_MOST_THREADS = 8
_BATCH = 512
"""Prompt tokens between two chances to stop; also what is computed at once anyway."""
_PROMPT_CACHE_MIB = 512
"""Memory for prompts that lost their slot (the server's own default is 8 GiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is run.

    `threads` None: as `available_threads` says. `slots` requests run at once,
    further ones wait. `context` is the tokens of prompt and output that one request may hold; None: 4096, or
    what the model was trained for if that is less. `chat_template` replaces the file's own (Jinja source).
    """

    threads: int | None = None
    slots: int = 4
    context: int | None = None
    chat_template: str = ""


def available_threads() -> int:
    """Threads used where none are stated: GOVERNOR_THREADS, or half the CPUs this process may use, up to 8.

    Half, because two CPUs are mostly one core's two threads, and because llama.cpp's threads wait for each other
    spinning. On two CPUs with a load of about 5 from other work, SmolLM2 made 88 to 143 tokens/s on one thread and 6
    to 79 on two; with nothing else to do the second thread gained a third on a 0.5B model and half on a 1.5B.
    """
    if stated := os.environ.get("GOVERNOR_THREADS", ""):
        if not stated.isdecimal() or int(stated) == 0:
            raise ModelFileError(f"GOVERNOR_THREADS is '{stated}': a whole number from 1 up is needed")
        return int(stated)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(1, usable // 2), _MOST_THREADS)


class Engine:
    """A loaded model. Loading blocks the whole interpreter (xllamacpp holds its lock), about a second per GB."""

    def __init__(self, path: Path, options: Options) -> None:
        started = time.monotonic()
        self._server: Any = _started(path, options)
        self.ready_seconds = time.monotonic() - started
        self._lock = threading.RLock()  # the collector may call `close` in the thread that holds it
        self._running: set[_Generation] = set()
        self._closed = False

    @contextmanager
    def generation(self, body: Chunk, deliver: Callable[[Item], None], deadline: float) -> Generator[None, None, None]:
        """Run one request in a thread of its own, which hands `deliver` each chunk and then the end.

        Leaving the block stops the generation at its next token, at once or (queued) when a slot falls free.
        `deadline` is in monotonic seconds; passing it ends the generation with TimeoutError.
        """
        run = _Generation(deliver, deadline)
        with self._lock:
            if self._closed:
                raise BackendUnavailableError("the local model was shut down", sent=False)
            self._running.add(run)
        # Not a daemon, which could be cut off inside the server: the interpreter waits for it at exit.
        run.thread = threading.Thread(target=self._run, args=(run, body), name="governor-local")
        try:
            run.thread.start()
            yield
        finally:
            run.stopped.set()
            if not run.begun.is_set():  # interrupted as it was to start
                with self._lock:
                    self._running.discard(run)

    def close(self) -> None:
        """Stop what runs, wait for it, and free the memory. Idempotent.

        In a generation's own thread, where the collector may call it too, that one is not waited for: it ends, and
        then frees the memory.
        """
        with self._lock:
            self._closed = True
            running = tuple(self._running)
        for run in running:
            run.stopped.set()
        for run in running:
            thread = run.thread if run.begun.is_set() else None  # what has not begun by now leaves the server alone
            if thread not in (None, threading.current_thread()):
                thread.join()
        self._server = None

    def _run(self, run: _Generation, body: Chunk) -> None:
        end: Exception | None = None
        run.begun.set()
        try:
            if not run.stopped.is_set():
                self._server.handle_chat_completions(body, run.take)
        except Exception as fault:  # noqa: BLE001 - it is delivered to whoever waits for this thread
            end = fault
        with self._lock:
            self._running.discard(run)
        run.finish(end)


class _Generation:
    """The two ends of a request that runs in another thread."""

    def __init__(self, deliver: Callable[[Item], None], deadline: float) -> None:
        self.thread: threading.Thread | None = None
        self.begun = threading.Event()
        self.stopped = threading.Event()
        self._deliver = deliver
        self._deadline = deadline
        self._asker = threading.current_thread()

    def take(self, chunk: Chunk) -> bool:
        """Called by the server for each chunk; True stops it."""
        if self.stopped.is_set() or self._late or self._abandoned:
            return True
        self._deliver(chunk)
        return False

    def finish(self, end: Exception | None) -> None:
        if end is None and self._late:
            end = TimeoutError()
        elif end is None and (self.stopped.is_set() or self._abandoned):
            end = BackendUnavailableError("the local model was shut down")
        self._deliver(end)

    @property
    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    @property
    def _abandoned(self) -> bool:
        """True when the interpreter is on its way out and a stream was left half-read."""
        return not (self._asker.is_alive() or threading.main_thread().is_alive())


def check_start(path: Path, options: Options) -> None:
    """Raise MissingExtraError or ModelFileError where a model can't be started like this; loads nothing."""
    if find_spec("xllamacpp") is None:
        raise MissingExtraError("a local model", "local")
    _context(path, options)
    if not options.threads:
        available_threads()


def _started(path: Path, options: Options) -> Any:
    """A server that no signal can come between: they interrupt the main thread alone, so that it only waits.

    Ctrl-C in mid load is told once the server is up, and has been freed again.
    """
    if threading.current_thread() is not threading.main_thread():
        return _start(path, options)
    with ThreadPoolExecutor(1) as own:
        return own.submit(_start, path, options).result()


def _start(path: Path, options: Options) -> Any:
    try:
        xllamacpp: Any = import_module("xllamacpp")
    except ImportError as absent:
        raise MissingExtraError("a local model", "local") from absent
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = options.slots
    parameters.n_ctx = _context(path, options) * options.slots
    parameters.n_batch = _BATCH
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    threads = options.threads or available_threads()
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = -1  # below every level it has: nothing on stderr
    parameters.api_keys = [secrets.token_hex(16)]
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.endpoint_metrics = True
    if options.chat_template:
        parameters.chat_template = options.chat_template
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as fault:
        reason = "damaged, of a kind this llama.cpp does not know, or too large for memory"
        raise ModelFileError(f"{path} can't be loaded: {reason}") from fault
    # The server says that it is ready before its loop runs, and a loop told to end before it runs never does: freeing
    # the server would then wait for ever. Metrics come out of the loop, so it runs once they are here.
    server.handle_metrics()
    return server


def _context(path: Path, options: Options) -> int:
    trained = read_header(path).context_length or DEFAULT_CONTEXT
    if options.context is None:
        return min(trained, DEFAULT_CONTEXT)
    if options.context > trained:
        raise ModelFileError(f"{path} holds {trained} tokens: a context_window of {options.context} is too much")
    return options.context
