"""LiteLLMBackend: one model request with a total deadline, sync or async, whole or streamed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from tenacity import AsyncRetrying, Retrying

from governor.errors import BackendTimeoutError, GovernorError, MissingExtraError
from governor.plan.effort import can_continue
from governor.protocols import Delta
from governor.records import Call, Reply, Rung
from governor_litellm.faults import fault, kind_of, refused, timed
from governor_litellm.reply import Assembly, Evidence, reply_of
from governor_litellm.request import ModelOptions, Target, arguments
from governor_litellm.retries import RetryPolicy
from governor_litellm.timeouts import steady

_NO_MODELS: Mapping[str, Mapping[str, Any]] = {}


@cache
def sdk() -> Any:
    """The litellm module, imported on first use (seconds), offline and quiet. MissingExtraError if it is absent."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    try:
        import litellm
    except ImportError as absent:
        raise MissingExtraError("the LiteLLM backend", "litellm") from absent
    litellm.suppress_debug_info = True  # it prints advertisements to stdout on errors
    return litellm


class Attempt:
    """One call on its way: its deadline, its arguments, and how its failures are told."""

    def __init__(self, call: Call, target: Target, retries: RetryPolicy) -> None:
        self.call, self.target, self.clock = call, target, retries.clock
        self.started = retries.clock()
        self.deadline = self.started + call.timeout
        self.reached = self.begun = False
        self.key = target.key()
        self.base = arguments(call, target)

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    @property
    def left(self) -> float:
        """Seconds to the deadline. Raises BackendTimeoutError when there are none."""
        left = self.deadline - self.clock()
        if left <= 0:
            raise self.late()
        return left

    def failed(self, error: BaseException) -> None:
        """Take note of a fault that is tried again: it may have cost something."""
        self.reached = self.reached or not refused(error)

    def check(self) -> None:
        """Raises BackendTimeoutError once the deadline has passed."""
        _ = self.left

    def late(self) -> BackendTimeoutError:
        text = f"{self.call.rung.model}: no whole answer within {round(self.deadline - self.started, 3):g} s"
        return BackendTimeoutError(text, model=self.call.rung.model, seconds=self.seconds)

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """The one edge where foreign errors become ours; the cause is dropped because it may hold the key."""
        try:
            yield
        except TimeoutError:
            raise self.late() from None
        except GovernorError as error:
            raise timed(error, self.seconds) from None
        except Exception as error:  # noqa: BLE001 - whatever a provider's client raises is mapped here
            if kind_of(error) is BackendTimeoutError and not refused(error):
                raise self.late() from None  # the client was given what was left of the call's time
            raise fault(
                error,
                model=self.call.rung.model,
                seconds=self.seconds,
                reached=self.reached,
                server=self.target.options.api_base,
            ) from None

    def keywords(self, *, stream: bool, guarded: bool) -> dict[str, Any]:
        """Arguments of the next request, whose time limit is what is left; `guarded`: its caller ends it there too."""
        more: dict[str, Any] = {"timeout": self._limit(guarded=guarded), "caching": False}
        if self.key is not None:
            more["api_key"] = self.key
        if stream:
            more |= {"stream": True, "stream_options": self._stream_options}
        return {**self.base, **more}

    def _limit(self, *, guarded: bool) -> float:
        """Seconds for the next request: the first has all of the call's, whatever little has passed since it began.

        What rounding takes away is no time to send a request again that ran into its limit.
        """
        left = self.left
        limit = steady(left if self.begun else self.call.timeout, self.call.rung.timeout, guarded=guarded)
        self.begun = True
        self.deadline = min(self.deadline, self.clock() + limit)
        return limit

    @property
    def _stream_options(self) -> dict[str, bool]:
        """docs.vllm.ai, OpenAI-compatible server: `continuous_usage_stats` puts the usage so far into every chunk."""
        each = {"continuous_usage_stats": True} if self.target.dialect.counts else {}
        return {"include_usage": True} | each

    def reply(self, response: Any) -> Reply:
        return replace(reply_of(response, self.call, self.target.dialect), seconds=self.seconds)

    def assembly(self) -> Assembly:
        return Assembly(self.call, self.target.dialect)


class LiteLLMBackend:
    """Calls models through LiteLLM's SDK.

    `models` says per model name how it is reached (see ModelOptions); a model that is not listed is called by LiteLLM's
    own rules. `Call.timeout` is the total time in seconds, retries included. LiteLLM's and the provider clients' own
    retries are off. `Reply.text` holds only new text, never the call's prefix.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] = _NO_MODELS,
        *,
        retries: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._options = {name: ModelOptions.read(name, values) for name, values in models.items()}
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self._asleep = asleep

    def call(self, call: Call) -> Reply:
        attempt = self._begin(call)
        with attempt.told():
            return attempt.reply(self._send(attempt, stream=False))

    async def acall(self, call: Call) -> Reply:
        attempt = self._begin(call)
        with attempt.told():
            async with asyncio.timeout(attempt.left):
                return attempt.reply(await self._asend(attempt, stream=False))

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        attempt = self._begin(call)
        assembly = attempt.assembly()
        with attempt.told():
            chunks = self._send(attempt, stream=True)
            for chunk in chunks:
                yield from assembly.add(chunk, chunks)
                attempt.check()
            yield replace(assembly.whole(Evidence.of(chunks)), seconds=attempt.seconds)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        attempt = self._begin(call)
        assembly = attempt.assembly()
        with attempt.told():
            # Not wait_for: before Python 3.12 a cancellation that met a chunk was lost (cpython issue 86296).
            async with asyncio.timeout(attempt.left):
                chunks = await self._asend(attempt, stream=True)
            source = aiter(chunks)
            while True:
                async with asyncio.timeout(attempt.left):
                    chunk = await anext(source, None)
                if chunk is None:
                    break
                for delta in assembly.add(chunk, chunks):
                    yield delta
            yield replace(assembly.whole(Evidence.of(chunks)), seconds=attempt.seconds)

    def continues(self, rung: Rung) -> bool:
        return can_continue(rung, self._target(rung.model).dialect)

    def counts(self, rung: Rung) -> bool:
        """Whether the server tells the usage with every piece: vLLM does."""
        return self._target(rung.model).dialect.counts

    def ready(self, rung: Rung) -> None:
        """MissingExtraError without LiteLLM, BackendAuthError where the key's variable is not set."""
        if find_spec("litellm") is None:
            raise MissingExtraError("the LiteLLM backend", "litellm")
        self._target(rung.model).key()

    def close(self) -> None:
        """Nothing to do: LiteLLM keeps its connections for the process and closes them at its end."""

    def _target(self, model: str) -> Target:
        return Target.of(model, self._options.get(model, ModelOptions()))

    def _begin(self, call: Call) -> Attempt:
        sdk()  # the seconds of its import are not the call's
        return Attempt(call, self._target(call.rung.model), self._retries)

    def _send(self, attempt: Attempt, *, stream: bool) -> Any:
        told = self._retries.arguments(lambda: attempt.deadline, attempt.failed)
        retrying = Retrying(sleep=self._sleep, **told)
        return retrying(lambda: sdk().completion(**attempt.keywords(stream=stream, guarded=False)))

    async def _asend(self, attempt: Attempt, *, stream: bool) -> Any:
        told = self._retries.arguments(lambda: attempt.deadline, attempt.failed)
        retrying = AsyncRetrying(sleep=self._asleep, **told)

        async def once() -> Any:
            return await sdk().acompletion(**attempt.keywords(stream=stream, guarded=True))

        return await retrying(once)
