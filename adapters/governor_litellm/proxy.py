"""The hook of a LiteLLM proxy: `litellm_settings: {callbacks: ["governor_litellm.proxy.governor"]}`.

settings.py     how it is set up
policies.py     a folder of policies, reloaded as it changes
ledgers.py      the ledgers that they name
applications.py which application a request is of
admission.py    request -> flight
sampling.py     what a client says of sampling, and which models take it
flight.py       the one loop, with its first call made by the proxy
tries.py        which requests of a call may have reached a model
streams.py      streams that pass, are held until they are accepted, or are shown from a window (window.py)
wires/          chat, responses, messages
guards.py       guardrails: what they masked is what every call says, and they see what ships
told.py         headers, refusals, what the client pays for
meter.py        metrics of the proxy itself
watch.py        whether LiteLLM really calls the hooks
routes.py       the admin's own routes: status.py, explain.py
garbage.py      what keeps the process alive under Python 3.11
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from governor.records import Outcome
from governor_litellm.backend import sdk
from governor_litellm.desk import Desk
from governor_litellm.flight import Flight
from governor_litellm.garbage import keep_contexts
from governor_litellm.guards import SCREENING, ScreenedError, screened
from governor_litellm.mark import mark_of
from governor_litellm.meter import observe
from governor_litellm.models import ProxyModels
from governor_litellm.routes import add_routes
from governor_litellm.settings import Settings
from governor_litellm.streams import streamed
from governor_litellm.told import details, ended, paid, refused
from governor_litellm.watch import HookWatch, check_hooks
from governor_litellm.wires import UNGOVERNED, WIRES

sdk()  # sets up how LiteLLM is imported
from litellm.integrations.custom_logger import CustomLogger  # noqa: E402 - see the line above

log = logging.getLogger("governor.proxy")
GOVERNED_ROUTES = ("/chat/completions", "/responses", "/messages")


class ProxyGovernor(CustomLogger):  # type: ignore[misc]  # mypy is told to skip litellm: too large to follow
    """The callback. Every hook stands on this class itself: LiteLLM skips inherited ones without a word.

    `settings` default to the environment's (see settings.py). Raises UnsupportedProxyError for a LiteLLM that does not
    have the hooks, PolicyError for settings that can't be.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        check_hooks(type(self), CustomLogger)
        keep_contexts()
        self.watch = HookWatch()
        self.models = ProxyModels(serving_router)
        self.settings = settings or Settings.read(os.environ)
        self.desk = Desk(self.settings, self.models, self.watch)
        observe(self.desk)
        add_routes(self)

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: str) -> Any:
        self.watch.fired("async_pre_call_hook")
        wire = WIRES.get(call_type) or UNGOVERNED.get(call_type)
        if wire is not None and isinstance(data, dict):
            await self.desk.admit(wire, data, user_api_key_dict)
        return data

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        self.watch.fired("async_pre_call_deployment_hook")
        self.desk.tried(kwargs, call_type)
        return None

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        self.watch.fired("async_post_call_failure_deployment_hook")
        self.desk.untried(request_data, call_type, exception)

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        if SCREENING in (mark_of(data) or ()):
            raise ScreenedError(response)
        self.watch.fired("async_post_call_success_hook")
        flight = self._flight(data)
        if flight is None:
            return None
        await flight.heard()
        flight.went(data)
        flight.give(response)
        if not flight.governed:
            return None
        outcome = await self.desk.settled(flight)
        if outcome is None:
            return None
        raw = self._shipped(data, flight, outcome)
        if raw is not response:
            raw = await screened(data, mark_of(data) or {}, user_api_key_dict, raw)
        return _told(flight, outcome, raw)

    async def async_post_call_failure_hook(
        self,
        request_data: Any,
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        self.watch.fired("async_post_call_failure_hook")
        flight = self.desk.flight(request_data)
        if flight is not None:
            await flight.failed(original_exception)

    async def async_post_call_response_headers_hook(
        self,
        data: Any,
        user_api_key_dict: Any,
        response: Any,
        request_headers: Mapping[str, str] | None = None,
        litellm_call_info: Mapping[str, Any] | None = None,
    ) -> dict[str, str] | None:
        self.watch.fired("async_post_call_response_headers_hook")
        mark = mark_of(data)
        return dict(mark.get("headers") or {}) if mark else None

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: Any
    ) -> AsyncGenerator[Any, None]:
        self.watch.fired("async_post_call_streaming_iterator_hook")
        flight, account = self._flight(request_data), request_data.get("litellm_logging_obj")
        if flight is not None:
            flight.went(request_data)
        source = response if flight is None else streamed(self.desk, flight, response, account)
        try:
            async for chunk in source:
                yield chunk
        finally:
            if flight is not None:
                await source.aclose()

    def _flight(self, data: Any) -> Flight | None:
        """The request's flight. Says so where a request went past the pre-call hook."""
        if mark_of(data) is None and self.desk.folder is not None and _governed_route(data):
            self.watch.silent("async_pre_call_hook", "a request was answered that Governor never saw")
        return self.desk.flight(data)

    def _shipped(self, data: Any, flight: Flight, outcome: Outcome) -> Any:
        """The response of the attempt that ships. Raises the proxy's error where none does."""
        mark = mark_of(data) or {}
        mark["headers"] = ended(flight, outcome)
        raw = flight.shipped(outcome)
        if raw is None or outcome.reply is None:
            raise refused(outcome, mark["headers"])
        return raw


def _told(flight: Flight, outcome: Outcome, raw: Any) -> Any:
    """A response as the client gets it: with what it asked for, and the usage of all attempts."""
    wire, reply = flight.request.wire, outcome.reply
    if flight.veils:
        raw = wire.veiled(raw, flight.request.kept)
    if reply is None or paid(outcome) != reply.usage:
        raw = wire.charged(raw, paid(outcome))
    if flight.request.detailed:
        raw = wire.detailed(raw, details(flight, outcome))
    return raw


def serving_router() -> Any:
    """The router of the proxy in this process; None before it has one."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    return getattr(server, "llm_router", None)


def _governed_route(data: Any) -> bool:
    sent = data.get("proxy_server_request") if isinstance(data, Mapping) else None
    url = str(sent.get("url") or "") if isinstance(sent, Mapping) else ""
    return url.partition("?")[0].endswith(GOVERNED_ROUTES)


governor: ProxyGovernor


def __getattr__(name: str) -> Any:
    """`governor` is made when the proxy asks for it: its settings are the environment's at that moment."""
    if name != "governor":
        raise AttributeError(name)
    made = globals()["governor"] = ProxyGovernor()
    return made
