"""Errors of providers' clients as Governor's: they share the attribute `status_code`, and words in their names."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
)
from governor.records import Call

_STATUS: Mapping[int, type[BackendError]] = {
    400: BackendRequestError,
    401: BackendAuthError,
    403: BackendAuthError,
    404: BackendRequestError,
    408: BackendTimeoutError,
    422: BackendRequestError,
    429: BackendRateLimitError,
}
_NAMES: Mapping[str, type[BackendError]] = {
    "Timeout": BackendTimeoutError,
    "Connect": BackendUnavailableError,
    "Unavailable": BackendUnavailableError,
}


@contextmanager
def faults_of(call: Call, began: float) -> Generator[None, None, None]:
    """While a provider's client is at work: its errors are Governor's, others stay as they are."""
    try:
        yield
    except BackendError:
        raise
    except Exception as cause:
        kind = _kind(cause)
        if kind is None:
            raise
        text = f"{type(cause).__name__}: {cause}"
        raise kind(text, model=call.rung.model, seconds=time.monotonic() - began) from cause


def _kind(cause: Exception) -> type[BackendError] | None:
    status = getattr(cause, "status_code", None)
    if isinstance(status, int):
        return _STATUS.get(status, BackendUnavailableError if status >= 500 else BackendRequestError)
    name = type(cause).__name__
    return next((kind for word, kind in _NAMES.items() if word in name), None)
