"""Every exception of LiteLLM, mapped once at the edge to Governor's error tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import httpx

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
)

KINDS: Mapping[str, type[BackendError]] = MappingProxyType(
    {
        "AuthenticationError": BackendAuthError,
        "PermissionDeniedError": BackendAuthError,
        "PaymentRequiredError": BackendAuthError,
        "RateLimitError": BackendRateLimitError,
        "Timeout": BackendTimeoutError,
        "BadRequestError": BackendRequestError,
        "InvalidRequestError": BackendRequestError,
        "UnprocessableEntityError": BackendRequestError,
        "NotFoundError": BackendRequestError,
        "UnsupportedParamsError": BackendRequestError,
        "ContextWindowExceededError": BackendRequestError,
        "ContentPolicyViolationError": BackendRequestError,
        "RejectedRequestError": BackendRequestError,
        "ImageFetchError": BackendRequestError,
        "VectorStoreSearchError": BackendRequestError,
        "LiteLLMUnknownProvider": BackendRequestError,
        "ModelNotMappedError": BackendRequestError,
        "BudgetExceededError": BackendRequestError,
        "GuardrailRaisedException": BackendRequestError,
        "GuardrailInterventionNormalStringError": BackendRequestError,
        "BlockedPiiEntityError": BackendRequestError,
        "ModifyResponseException": BackendRequestError,
        "SensitiveDataRouteException": BackendRequestError,
        "ServiceUnavailableError": BackendUnavailableError,
        "BadGatewayError": BackendUnavailableError,
        "InternalServerError": BackendUnavailableError,
        "APIConnectionError": BackendUnavailableError,
        "APIError": BackendUnavailableError,
        "OpenAIError": BackendUnavailableError,
        "MockException": BackendUnavailableError,
        "MidStreamFallbackError": BackendReplyError,
        "APIResponseValidationError": BackendReplyError,
        "JSONSchemaValidationError": BackendReplyError,
    }
)
"""LiteLLM class name -> ours. Names, because the classes can only be had by a five-second import."""

LOCAL = frozenset({"UnsupportedParamsError", "LiteLLMUnknownProvider", "ModelNotMappedError"})
"""Raised by LiteLLM itself before anything is sent."""

_KEYS = re.compile(r"\b(sk|gsk|pk|key|AIza)[-_A-Za-z0-9*]{12,}")


def fault(error: Exception, *, model: str, seconds: float, secret: str | None = None) -> BackendError:
    """The BackendError for `error`: one line, without key, saying whether the request was sent."""
    if isinstance(error, BackendError):
        error.seconds = seconds
        return error
    unread = any(isinstance(cause, ValueError | httpx.RemoteProtocolError) for cause in causes(error))
    kind = kind_of(error)
    if kind is BackendUnavailableError and unread and not refused(error):
        kind = BackendReplyError
    sent = not (refused(error) or name_of(error) in LOCAL)
    return kind(f"{model}: {line(error, secret)}", model=model, sent=sent, seconds=seconds)


def kind_of(error: BaseException) -> type[BackendError]:
    """Ours for LiteLLM's class; what LiteLLM let through unmapped counts as an unreadable reply."""
    return KINDS.get(name_of(error), BackendReplyError)


def name_of(error: BaseException) -> str:
    """Name of the nearest known class of `error`, or the empty string."""
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in KINDS), "")


def refused(error: BaseException) -> bool:
    """Whether the connection was never made, so that nothing was sent."""
    never = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)
    return any(isinstance(cause, never) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and everything it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def line(error: BaseException, secret: str | None) -> str:
    """The error's first line, shortened, with anything like a key taken out."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0][:400]
    if secret:
        first = first.replace(secret, "***")
    return _KEYS.sub("***", first)
