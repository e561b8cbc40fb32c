"""When a failed request is sent again: transport faults only, and never past the call's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import RetryCallState, retry_if_exception, wait_exponential, wait_random

from governor.errors import BackendRateLimitError, BackendTimeoutError, BackendUnavailableError
from governor_litellm.faults import kind_of

TRANSIENT = (BackendRateLimitError, BackendTimeoutError, BackendUnavailableError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential waits with jitter, in seconds; a server's Retry-After goes before them.

    A retry happens only if it can start inside the call's timeout; the timeout counts from the first attempt.
    """

    first: float = 0.5
    longest: float = 8.0
    jitter: float = 0.5
    clock: Callable[[], float] = time.monotonic

    def arguments(self, deadline: Callable[[], float], failed: Callable[[BaseException], None]) -> dict[str, Any]:
        """What tenacity's Retrying and AsyncRetrying are both made with.

        `deadline` says when on `clock`, asked before each wait; `failed` is told of each fault that another attempt
        follows.
        """
        backoff = wait_exponential(multiplier=self.first, max=self.longest) + wait_random(0, self.jitter)

        def wait(state: RetryCallState) -> float:
            asked = retry_after(error_of(state))
            return backoff(state) if asked is None else asked

        def stop(state: RetryCallState) -> bool:
            return self.clock() + state.upcoming_sleep >= deadline()

        def tell(state: RetryCallState) -> None:
            error = error_of(state)
            if error is not None:
                failed(error)

        transport = retry_if_exception(transient)
        return {"wait": wait, "stop": stop, "retry": transport, "before_sleep": tell, "reraise": True}


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed when sent again."""
    return isinstance(error, Exception) and issubclass(kind_of(error), TRANSIENT)


def error_of(state: RetryCallState) -> BaseException | None:
    """What the last attempt failed with."""
    return state.outcome.exception() if state.outcome is not None else None


def retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asked to wait (RFC 9110, 10.2.3: a number or a date), None if it did not."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    value = headers.get("retry-after") or headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return _until(value)


def _until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None
