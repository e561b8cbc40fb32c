"""LiteLLMBackend: one model request with a total deadline, sync or async, whole or streamed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from tenacity import AsyncRetrying, Retrying

from governor.errors import BackendError, BackendTimeoutError, MissingExtraError
from governor.plan.effort import can_continue
from governor.protocols import Delta
from governor.records import Call, Reply, Rung
from governor_litellm.faults import fault
from governor_litellm.reply import Assembly, reply_of
from governor_litellm.request import ModelOptions, Target, arguments
from governor_litellm.retries import RetryPolicy

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

    def late(self) -> BackendTimeoutError:
        text = f"{self.call.rung.model}: no whole answer within {self.call.timeout:g} s"
        return BackendTimeoutError(text, model=self.call.rung.model, seconds=self.seconds)

    def fault(self, error: Exception) -> BackendError:
        return fault(error, model=self.call.rung.model, seconds=self.seconds, secret=self.key)

    def keywords(self, *, stream: bool) -> dict[str, Any]:
        """Arguments of the next request, whose time limit is what is left."""
        more: dict[str, Any] = {"timeout": self.left, "caching": False}
        if self.key is not None:
            more["api_key"] = self.key
        if stream:
            more |= {"stream": True, "stream_options": {"include_usage": True}}
        return {**self.base, **more}

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
        try:
            return attempt.reply(self._send(attempt, stream=False))
        except Exception as error:
            raise attempt.fault(error) from None

    async def acall(self, call: Call) -> Reply:
        attempt = self._begin(call)
        try:
            async with asyncio.timeout(attempt.left):
                return attempt.reply(await self._asend(attempt, stream=False))
        except TimeoutError:
            raise attempt.late() from None
        except Exception as error:
            raise attempt.fault(error) from None

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        attempt = self._begin(call)
        assembly = attempt.assembly()
        try:
            for chunk in self._send(attempt, stream=True):
                yield from assembly.add(chunk)
                _ = attempt.left
            yield replace(assembly.whole(), seconds=attempt.seconds)
        except Exception as error:
            raise attempt.fault(error) from None

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        attempt = self._begin(call)
        assembly = attempt.assembly()
        try:
            chunks = await asyncio.wait_for(self._asend(attempt, stream=True), attempt.left)
            async for chunk in chunks:
                for delta in assembly.add(chunk):
                    yield delta
                _ = attempt.left
            yield replace(assembly.whole(), seconds=attempt.seconds)
        except TimeoutError:
            raise attempt.late() from None
        except Exception as error:
            raise attempt.fault(error) from None

    def continues(self, rung: Rung) -> bool:
        return can_continue(rung, self._target(rung.model).dialect)

    def close(self) -> None:
        """Nothing to do: LiteLLM keeps its connections for the process and closes them at its end."""

    def _target(self, model: str) -> Target:
        return Target.of(model, self._options.get(model, ModelOptions()))

    def _begin(self, call: Call) -> Attempt:
        return Attempt(call, self._target(call.rung.model), self._retries)

    def _send(self, attempt: Attempt, *, stream: bool) -> Any:
        retrying = Retrying(sleep=self._sleep, **self._retries.arguments(attempt.deadline))
        return retrying(lambda: sdk().completion(**attempt.keywords(stream=stream)))

    async def _asend(self, attempt: Attempt, *, stream: bool) -> Any:
        retrying = AsyncRetrying(sleep=self._asleep, **self._retries.arguments(attempt.deadline))

        async def once() -> Any:
            return await sdk().acompletion(**attempt.keywords(stream=stream))

        return await retrying(once)
