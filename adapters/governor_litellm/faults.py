"""Every exception of LiteLLM, mapped once at the edge to Governor's error tree."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from http import HTTPStatus
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
    GovernorError,
)

KINDS: Mapping[str, type[BackendError]] = MappingProxyType(
    {
        "AuthenticationError": BackendAuthError,
        "PermissionDeniedError": BackendAuthError,
        "PaymentRequiredError": BackendAuthError,
        "RateLimitError": BackendRateLimitError,
        "RouterRateLimitError": BackendRateLimitError,
        "RouterRateLimitErrorBasic": BackendRateLimitError,
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
        "ToolLoopMaxRoundsExceeded": BackendReplyError,
        "APIResponseValidationError": BackendReplyError,
        "JSONSchemaValidationError": BackendReplyError,
    }
)
"""LiteLLM class name -> ours. Names, because the classes can only be had by a five-second import."""

LOCAL = frozenset({"UnsupportedParamsError", "LiteLLMUnknownProvider", "ModelNotMappedError"})
"""Raised by LiteLLM itself before anything is sent."""

VAGUE = frozenset({"InternalServerError", "APIConnectionError", "APIError", "OpenAIError"})
"""Also raised for a 200 whose body can't be read; only the causes tell."""

_WORDS: Mapping[type[BackendError], str] = MappingProxyType(
    {
        BackendAuthError: "the key was refused",
        BackendRequestError: "the request was refused",
        BackendRateLimitError: "too many requests",
        BackendUnavailableError: "the server failed",
        BackendReplyError: "the reply can't be read",
    }
)
_HINTS: Mapping[type[BackendError], str] = MappingProxyType(
    {BackendAuthError: " (the policy's api_key_env names the variable that holds the key)"}
)
_WRAPPING = re.compile(r"^(?:litellm\.)?(?:[\w.]*(?:Error|Timeout): )*(?:\w+Exception - )?(?:error - )?")
_TRAILING = re.compile(r"(?:, Received response - <| Original exception: ).*$")
_CUT = re.compile("complete message body|payload is not completed")
"""How httpx and aiohttp say that a body broke off."""
_SHORTEST_KEY = 6
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_KEYS = re.compile(r"\b(sk|gsk|pk|key|AIza)[-_A-Za-z0-9*]{12,}")


def fault(
    error: Exception, *, model: str, seconds: float, reached: bool = False, server: str | None = None
) -> BackendError:
    """The BackendError for `error`: one line, without key, saying whether anything was sent.

    `reached`: an earlier attempt of the same call may have reached the model. `server`: where it was sent.
    """
    missing = lacking(error)
    if missing is not None:
        text = f"{model}: LiteLLM lacks a module it needs for this model: {missing}"
        return BackendRequestError(text, model=model, sent=False, seconds=seconds)
    kind = kind_of(error)
    sent = reached or not unsent(error)
    return kind(f"{model}: {_told(error, kind, server)}", model=model, sent=sent, seconds=seconds)


def _told(error: Exception, kind: type[BackendError], server: str | None) -> str:
    """What happened and what may mend it, without the names of the classes that carried it here."""
    if refused(error):
        where = server or "the provider's server"
        return f"{where} can't be reached: {_unreached(error)} (is it running, and is api_base right?)"
    if keyless(error):
        return "there is no key: set the provider's variable, or name yours with api_key_env"
    lost = [cause for cause in causes(error) if isinstance(cause, httpx.TransportError)]
    status = getattr(error, "status_code", None)
    shown = f" ({status})" if isinstance(status, int) and kind is not BackendReplyError else ""
    words = _WORDS.get(kind)
    what = line(lost[0] if lost else error)
    return f"{words}{shown}: {what}{_HINTS.get(kind, '')}" if words else what


def _unreached(error: BaseException) -> str:
    """Why a connection was not made: what the system says, else the deepest cause that says anything."""
    told = list(causes(error))
    numbers = [cause.errno or 0 for cause in told if isinstance(cause, OSError)]
    if numbers and numbers[-1] > 0:
        return os.strerror(numbers[-1])
    return line([cause for cause in told if str(cause).strip()][-1])


def timed(error: GovernorError, seconds: float) -> GovernorError:
    """Our own error, with the time the call took."""
    if isinstance(error, BackendError):
        error.seconds = seconds
    return error


def kind_of(error: BaseException) -> type[BackendError]:
    """Ours for LiteLLM's class; what LiteLLM let through unmapped counts as an unreadable reply."""
    if keyless(error):
        return BackendAuthError
    name = name_of(error)
    kind = KINDS.get(name, BackendReplyError)
    status = next((c.response.status_code for c in causes(error) if isinstance(c, httpx.HTTPStatusError)), None)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return BackendAuthError
    if name in VAGUE:
        return _vague(error, status)
    unread = any(isinstance(cause, ValueError | TypeError | KeyError) for cause in causes(error))
    if kind is BackendRequestError and status is None and unread:
        return BackendReplyError
    return kind


def _vague(error: BaseException, status: int | None) -> type[BackendError]:
    if status is not None:
        return BackendUnavailableError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else BackendRequestError
    lost = [cause for cause in causes(error) if isinstance(cause, httpx.TransportError)]
    cut = any(_CUT.search(str(cause)) for cause in lost)
    return BackendUnavailableError if lost and not cut else BackendReplyError


def name_of(error: BaseException) -> str:
    """Name of the nearest known class of `error`, or the empty string."""
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in KINDS), "")


def unsent(error: BaseException, before: Collection[BaseException] = ()) -> bool:
    """Whether nothing was sent of a request that failed like this; `before` is what earlier ones failed with."""
    return (
        refused(error, before)
        or keyless(error, before)
        or lacking(error, before) is not None
        or name_of(error) in LOCAL
    )


def refused(error: BaseException, before: Collection[BaseException] = ()) -> bool:
    """Whether the connection was never made, so that nothing was sent."""
    never = (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.UnsupportedProtocol,
        httpx.InvalidURL,
        ConnectionRefusedError,
    )
    return any(isinstance(cause, never) for cause in causes(error, before))


def keyless(error: BaseException, before: Collection[BaseException] = ()) -> bool:
    """Whether the provider's client found no key, so that nothing was sent. By name: its package is imported late."""
    told = causes(error, before)
    return any(type(cause).__name__ == "OpenAIError" and "credentials" in str(cause) for cause in told)


def lacking(error: BaseException, before: Collection[BaseException] = ()) -> ImportError | None:
    """The import that failed, where LiteLLM lacks a module, so that nothing was sent."""
    return next((cause for cause in causes(error, before) if isinstance(cause, ImportError)), None)


def causes(error: BaseException, before: Collection[BaseException] = ()) -> Iterator[BaseException]:
    """`error` and everything it came from, as far as that was not `before` it, in another request."""
    seen = {id(earlier) for earlier in before}
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def line(error: BaseException) -> str:
    """The error's first line, shortened, with every known key and anything like one taken out."""
    text = str(error).strip() or type(error).__name__
    first = _TRAILING.sub("", text.splitlines()[0])
    first = _WRAPPING.sub("", first) or first
    for secret in sorted(_secrets(), key=len, reverse=True):
        first = first.replace(secret, "***")
    return _KEYS.sub("***", first)[:400]


def _secrets() -> set[str]:
    """Values of environment variables that are named like keys; short ones would blot out ordinary words."""
    return {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_KEY}
