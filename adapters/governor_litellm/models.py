"""The models that a LiteLLM router serves: what stands behind a name, and how it is asked."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from governor.checks import nameless_checks, rungs_of
from governor.errors import BackendError, BackendRequestError, BackendTimeoutError, PolicyError
from governor.plan.dialects import Dialect, dialect_for
from governor.plan.effort import problems
from governor.policy import Check, Finding
from governor.protocols import Delta
from governor.records import Call, Reply, Rung
from governor_litellm.faults import fault
from governor_litellm.mark import MARK
from governor_litellm.sampling import lacking
from governor_litellm.timeouts import steady
from governor_litellm.tries import Tries
from governor_litellm.watching import Watching
from governor_litellm.wires import Fields, Wire
from governor_litellm.wires.chat import ChatWire

if TYPE_CHECKING:
    from governor.policy import Policy

CHAT = ChatWire()
NO_FALLBACKS: Fields = {"disable_fallbacks": True, "max_fallbacks": 0}
"""What LiteLLM's router reads, and sends to no model: none may answer a call but that of its rung.

The second is for streams that break off: before 1.106 the first does not count for them.
"""

FURTHER: Fields = {**NO_FALLBACKS, "caching": False}
"""What every call says that Governor makes: one out of LiteLLM's cache would be an answer that it has."""


@lru_cache(maxsize=1024)
def _known(model: str, wire: str | None) -> Dialect:
    return replace(dialect_for(model, wire), lacks=lacking(model))


class ProxyModels:
    """The router's models by the names that clients and policies use.

    `router` gives the router that serves now, None while there is none.
    """

    def __init__(self, router: Callable[[], Any]) -> None:
        self.router = router
        self.further: dict[str, Tries] = {}
        """The calls under way that Governor itself makes, by the names that LiteLLM carries along."""

    def has(self, name: str) -> bool:
        """Whether a call of this name would find a deployment; True while nothing is known of the router."""
        router = self.router()
        return router is None or self._behind(name) is not None or bool(router.pattern_router.route(name))

    def dialect(self, policy: Policy, name: str) -> Dialect:
        """The row of the effort table for a name: as the policy states it, else by the model that serves it."""
        stated = policy.models.get(name)
        return _known(self._behind(name) or name, stated.wire if stated else None)

    def checks(self) -> tuple[Check, ...]:
        """What a policy of this proxy must fulfil."""
        return (*nameless_checks(), self._fits)

    def _behind(self, name: str) -> str | None:
        listed: list[Mapping[str, Any]] = getattr(self.router(), "model_list", None) or []
        return next((one["litellm_params"]["model"] for one in listed if one["model_name"] == name), None)

    def _fits(self, policy: Policy) -> Iterator[Finding]:
        for path, spec in rungs_of(policy):
            if not self.has(spec.model):
                text = f"the proxy's model_list has no model '{spec.model}'"
                yield Finding((*path, "model"), text, "use a model_name of the proxy's configuration")
                continue
            for issue in problems(spec.rung(policy.models), self.dialect(policy, spec.model)):
                hint = issue.hint or f"models.{spec.model}.wire states what its server speaks"
                yield Finding((*path, issue.field), issue.message, hint, issue.severity)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that Governor sends itself: on which wire, with which fields, on whose account."""

    wire: Wire
    call: Call
    dialect: Dialect
    fields: Mapping[str, Any] = field(repr=False)
    bucket: Mapping[str, Any]
    told: bool = False
    """Whether the client wants the usage of a stream, where that is asked for."""

    async def answer(self, models: ProxyModels) -> tuple[Reply, Any]:
        """The reply, and what LiteLLM gave: a response, or the list of a stream's chunks. Raises BackendError."""
        started, name, tries = time.monotonic(), uuid.uuid4().hex, Tries(untold=True)
        models.further[name] = tries
        try:
            async with asyncio.timeout(self.call.timeout):
                bucket = {**self.bucket, MARK: {"call": name}}
                raw = await self.wire.send(models.router(), {**self.fields, **FURTHER}, bucket)
                reply, raw = await self._read(raw)
        except Exception as error:  # noqa: BLE001 - whatever a provider's client raises is mapped here
            told = self._told(error, time.monotonic() - started)
            told.sent = tries.sent(otherwise=told.sent)
            raise told from None
        finally:
            del models.further[name]
        return replace(reply, seconds=time.monotonic() - started), raw

    def _told(self, error: Exception, seconds: float) -> BackendError:
        model = self.call.rung.model
        match error:
            case BackendError():
                return error
            case TimeoutError():
                text = f"{model}: no whole answer within {self.call.timeout:g} s"
                return BackendTimeoutError(text, model=model, seconds=seconds)
            case _:
                return fault(error, model=model, seconds=seconds)

    async def _read(self, raw: Any) -> tuple[Reply, Any]:
        if not self.fields.get("stream"):
            return self.wire.reply(raw, self.call, self.dialect), raw
        watching = Watching(self.wire, self.call, self.dialect, raw)
        chunks: list[Any] = []
        async for chunk in raw:
            chunks.append(watching.take(chunk))
            if watching.rule:
                break
        await watching.close()
        reply = watching.reply()
        watching.log(reply)
        return reply, [*chunks, *watching.ending(reply.usage, told=self.told)]


class RouterBackend:
    """Governor's backend in a proxy: chat calls through its router. Asynchronous only."""

    def __init__(self, models: ProxyModels, policy: Policy) -> None:
        self._models, self._policy = models, policy

    async def acall(self, call: Call) -> Reply:
        return (await self.ask(call, {}))[0]

    async def ask(self, call: Call, bucket: Mapping[str, Any]) -> tuple[Reply, Any]:
        """A call on nobody's behalf but the step's: a judge's. `bucket` says on whose account."""
        ask = Ask(CHAT, call, self._models.dialect(self._policy, call.rung.model), self.fields(call), bucket)
        return await ask.answer(self._models)

    def fields(self, call: Call) -> Mapping[str, Any]:
        """What a chat request of this call holds. Raises BackendRequestError for what can't be expressed."""
        dialect = self._models.dialect(self._policy, call.rung.model)
        try:
            own = CHAT.fields(call.rung, dialect, {})
        except PolicyError as refused:
            model = call.rung.model
            raise BackendRequestError(f"{model}: {refused}", model=model, sent=False) from refused
        messages = {"messages": [dict(message) for message in call.messages]}
        told = CHAT.following(messages, (), call.rung.instruction)
        asked = {**messages, **told, **own, "timeout": steady(call.timeout, call.rung.timeout, guarded=True)}
        if call.response_schema is not None:
            schema = {"name": "answer", "schema": dict(call.response_schema)}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {key: value for key, value in asked.items() if value is not None}

    def call(self, call: Call) -> Reply:
        model = call.rung.model
        raise BackendRequestError(f"{model}: a proxy's router is asynchronous: use arun()", model=model, sent=False)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        yield self.call(call)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        yield await self.acall(call)

    def continues(self, rung: Rung) -> bool:
        """A client's conversation can't be ended by half an answer on every wire."""
        return False

    def close(self) -> None:
        """Nothing to do: the router is the proxy's."""
