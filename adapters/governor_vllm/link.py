"""HTTP to one vLLM server: JSON, server-sent events, and every failure as one BackendError."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
import weakref
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
    MissingExtraError,
)
from governor_vllm.lines import Lines

if TYPE_CHECKING:
    import httpx


class ServerFaultError(BackendUnavailableError):
    """HTTP 500 or 501: the server failed at this very request, as vLLM does at some settings that it does not know."""


class StrangeReplyError(BackendReplyError):
    """JSON of another shape than vLLM's."""


QUICK = 10.0
"""Seconds for questions that generate nothing."""

_CONNECT = 5.0
_SHOWN = 300
_KINDS: Mapping[int, type[BackendError]] = {
    HTTPStatus.UNAUTHORIZED: BackendAuthError,
    HTTPStatus.FORBIDDEN: BackendAuthError,
    HTTPStatus.REQUEST_TIMEOUT: BackendTimeoutError,
    HTTPStatus.TOO_MANY_REQUESTS: BackendRateLimitError,
    HTTPStatus.INTERNAL_SERVER_ERROR: ServerFaultError,
    HTTPStatus.NOT_IMPLEMENTED: ServerFaultError,
}


def http() -> Any:
    """The httpx module; MissingExtraError where it is not installed."""
    try:
        import httpx
    except ImportError as absent:
        raise MissingExtraError("the vLLM backend", "vllm") from absent
    return httpx


class Link:
    """One server: `root` is its address, with or without the trailing `/v1`. Safe for many threads."""

    def __init__(self, address: str, *, model: str = "", key_env: str | None = None) -> None:
        self.root = address.rstrip("/").removesuffix("/v1")
        self._model = model
        self._key_env = key_env

    def get(self, path: str, seconds: float = QUICK) -> str:
        """The body of a GET as text. Raises BackendError."""
        with self._told():
            response = self._client.get(self.root + path, headers=self.headers(), timeout=_limits(seconds))
            return str(self._good(response).text)

    def post(self, path: str, body: Mapping[str, Any], seconds: float = QUICK) -> Any:
        """The JSON that answers a POST. Raises BackendError."""
        with self._told():
            response = self._client.post(
                self.root + path, json=dict(body), headers=self.headers(), timeout=_limits(seconds)
            )
            return self._good(response).json()

    @contextmanager
    def events(self, path: str, body: Mapping[str, Any], seconds: float) -> Generator[Generator[Any, None, None]]:
        """The events of a stream as JSON; leaving the block hangs up, on which vLLM ends the generation.

        `seconds` are for all of it: signs of life (comments) that a server sends in place of events win no time.
        """
        with self._told(), self._client.stream("POST", self.root + path, **self._streaming(body, seconds)) as response:
            if response.is_error:
                response.read()
            self._good(response)
            yield self._events(response.iter_bytes(), time.monotonic() + seconds)

    @asynccontextmanager
    async def aevents(
        self, path: str, body: Mapping[str, Any], seconds: float
    ) -> AsyncGenerator[AsyncGenerator[Any, None]]:
        """The same, awaited. Its client lives as long as the stream: an event loop's sockets belong to that loop."""
        with self._told():
            async with (
                http().AsyncClient(verify=_trust(), trust_env=False) as client,
                client.stream("POST", self.root + path, **self._streaming(body, seconds)) as response,
            ):
                if response.is_error:
                    await response.aread()
                self._good(response)
                lines, pieces = Lines(), response.aiter_bytes()
                yield (
                    event
                    async for piece in pieces
                    for line in lines.feed(piece)
                    if (event := self._event(line)) is not None
                )

    def headers(self) -> dict[str, str]:
        """Raises BackendAuthError where the variable that should hold the key is not set."""
        if self._key_env is None:
            return {}
        key = os.environ.get(self._key_env)
        if not key:
            text = f"{self._model}: the environment variable {self._key_env} (api_key_env) is not set"
            raise BackendAuthError(text, model=self._model, sent=False)
        return {"Authorization": f"Bearer {key}"}

    def shaped(self) -> AbstractContextManager[None]:
        """The block's strange answers as one error that names the model."""
        return shaped(self._model)

    def close(self) -> None:
        if "_client" in vars(self):
            self._client.close()

    @cached_property
    def _client(self) -> httpx.Client:
        client: httpx.Client = http().Client(verify=_trust(), trust_env=False)
        weakref.finalize(self, client.close)
        return client

    def _streaming(self, body: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        return {"json": dict(body), "headers": self.headers(), "timeout": _limits(seconds)}

    def _good(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            raise self._refusal(response.status_code, _message(response))
        return response

    def _events(self, pieces: Iterable[bytes], ends: float) -> Generator[Any, None, None]:
        lines = Lines()
        for piece in pieces:
            yield from (event for line in lines.feed(piece) if (event := self._event(line)) is not None)
            if time.monotonic() > ends:
                raise http().ReadTimeout("only signs of life came")

    def _event(self, line: str) -> Any:
        """The JSON of one line of a stream; None for a line that holds none."""
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data in ("", "[DONE]"):
            return None
        event = json.loads(data)
        with self.shaped():
            fault = event.get("error")
        if fault is not None:  # vLLM tells in the stream what went wrong after the 200
            raise self._refusal(_status(fault), _said(fault))
        return event

    def _refusal(self, status: int, message: str) -> BackendError:
        server_fault = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _KINDS.get(status, BackendUnavailableError if server_fault else BackendRequestError)
        return kind(f"{self._subject}HTTP {status}: {message}", model=self._model)

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        """The one edge where httpx's errors become ours."""
        httpx = http()
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as fault:
            text = f"{self._subject}{self.root} can't be reached: {fault} (is it running, and is the address right?)"
            raise BackendUnavailableError(text, model=self._model, sent=False) from None
        except httpx.TimeoutException as fault:
            text = f"{self._subject}no answer from {self.root} in time"
            raise BackendTimeoutError(text, model=self._model) from fault
        except httpx.HTTPError as fault:
            text = f"{self._subject}the answer broke off ({fault})"
            raise BackendReplyError(text, model=self._model) from fault
        except ValueError as fault:
            raise BackendReplyError(f"{self._subject}the answer is no JSON ({fault})", model=self._model) from fault

    @property
    def _subject(self) -> str:
        return f"{self._model}: " if self._model else ""


@contextmanager
def shaped(model: str) -> Generator[None, None, None]:
    """Whatever one meets who reads the JSON of an answer, as one error."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as strange:
        text = f"the answer has another shape than vLLM's ({strange!r})"
        raise StrangeReplyError(f"{model}: {text}" if model else text, model=model) from strange


def _limits(seconds: float) -> Any:
    return http().Timeout(seconds, connect=min(seconds, _CONNECT))


@cache
def _trust() -> ssl.SSLContext:
    """Made once: reading the system's certificates takes longer than a request."""
    return ssl.create_default_context()


def _message(response: httpx.Response) -> str:
    """What the server says of its refusal, on one line."""
    try:
        body = response.json()
        return _said(body.get("error", body))
    except (ValueError, AttributeError):
        return _said(response.text)


def _said(fault: Any) -> str:
    """What an error tells, which may be an object or a text."""
    said = fault.get("message", fault) if isinstance(fault, Mapping) else fault
    return " ".join(str(said).split())[:_SHOWN]


def _status(fault: Any) -> int:
    """The HTTP status of an error within a stream; 500 where it tells none, or a word instead."""
    code = str(fault.get("code")) if isinstance(fault, Mapping) else ""
    return int(code) if re.fullmatch("[45][0-9]{2}", code) else HTTPStatus.INTERNAL_SERVER_ERROR
