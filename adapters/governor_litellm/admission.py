"""From a client's request to a flight: whose it is, under which policy, with which rungs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from governor.facade import Governor
from governor.protocols import Terms
from governor.records import Step
from governor.verify.foresight import doubts, foresees
from governor_litellm import evasions
from governor_litellm.applications import ALIAS, Wishes, application, own_applications
from governor_litellm.caps import fitting
from governor_litellm.flight import Request
from governor_litellm.mark import BUCKETS
from governor_litellm.models import ProxyModels
from governor_litellm.policies import Served
from governor_litellm.sampling import able, demands
from governor_litellm.settings import Settings
from governor_litellm.told import wants_details
from governor_litellm.wires import Asking, Fields, UnreadableError, Wire

BOOKED_BY = ("user_api_key", "tags", "team", "spend_logs_metadata", "litellm_session_id", "session_id")
"""What the names of fields begin with by which LiteLLM books a call; every call of a flight has them."""

DROPPED = frozenset({"model", "stream", "stream_options", "litellm_metadata", "tags", "litellm_call_id"})
"""Fields of a client's body that the proxy itself takes out or that each call states anew."""

LOOKS = frozenset({"again", "agree", "compare", "verify"})
"""Ways to make more of an answer in hand: of one that may have been shown there is nothing to be made."""

LONGEST_WORD = 128

OWNER = "user_api_key_auth"
"""What it writes there, and takes out of what a client sends: whose request it is."""

FROM_HEADERS = frozenset({"timeout", "stream_timeout", "headers", "provider_specific_header"})
"""What the proxy makes of a client's headers; it keeps their values out of the body that it notes."""

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends a request, as the proxy knows it."""

    key: Mapping[str, Any]
    team: Mapping[str, Any]
    tenant: str

    @classmethod
    def of(cls, user: Any) -> Client:
        """Of LiteLLM's UserAPIKeyAuth. Spend is booked on the team, else the key (its hash)."""
        tenant = getattr(user, "team_id", None) or _hashed(str(getattr(user, "api_key", None) or ""))
        return cls(getattr(user, "metadata", None) or {}, getattr(user, "team_metadata", None) or {}, str(tenant))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that came in, with what it says of itself."""

    wire: Wire
    data: dict[str, Any]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, wire: Wire, data: dict[str, Any]) -> Arrival:
        headers = _sent(data).get("headers") or {}
        return cls(wire, data, {str(name).lower(): str(value) for name, value in headers.items()})

    @property
    def bucket(self) -> dict[str, Any]:
        """The mapping beside the request in which the proxy keeps what it knows; it is made where it is missing.

        Which of the two it takes hangs on the request's path, as the client wrote it; the other is the client's own.
        """
        for name in BUCKETS:
            held = self.data.get(name)
            if isinstance(held, dict) and OWNER in held:
                return held
        bucket = self.data.get(self.wire.bucket)
        if not isinstance(bucket, dict):
            bucket = self.data[self.wire.bucket] = {}
        return bucket

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the client wrote under `metadata`."""
        held = self.bucket.get("requester_metadata")
        return held if isinstance(held, Mapping) else {}

    @property
    def wishes(self) -> Wishes:
        tags = self.bucket.get("tags")
        listed: Sequence[Any] = tags if isinstance(tags, Sequence) and not isinstance(tags, str) else ()
        return Wishes(self.headers, self.metadata, listed, str(self.data.get("model") or ""))

    def application(self, client: Client, settings: Settings) -> str:
        """ForeignApplicationError where the client asks for one that its key may not use."""
        own = own_applications(client.key, client.team)
        return application(self.wishes, own, settings.default, settings.unknown)

    def request(self, served: Served, client: Client, models: ProxyModels, settings: Settings) -> Request | None:
        """What is governed of it; None where the request is none that can be."""
        changes = evasions.closed(self.data, self.wire)
        data = evasions.applied(self.data, changes)
        asking = None if self._foreign else self.wire.asking(evasions.weighed(data, self.wire))
        if asking is None:
            return None
        governor, stream = served.governor, self._stream
        step = self._step(asking, client, served)
        terms = self._fitting(governor.terms(step, **({"streamed": True} if stream else {})), asking, models, served)
        mode = (served.policy.stream or settings.stream) if stream else "buffer"
        doubted = _doubts(governor, step, terms) if mode == "speculate" else None
        if doubted is not None:
            terms = replace(terms, modes=tuple(way for way in terms.modes if way not in LOOKS))
        kept = self._kept(data, changes)
        return Request(
            wire=self.wire,
            step=step,
            terms=terms,
            kept=kept,
            changes=changes,
            unbounded=asking.unbounded or evasions.unweighed(data),
            bucket={key: value for key, value in self.bucket.items() if key.startswith(BOOKED_BY)},
            stream=stream,
            usage=self._usage,
            checked=mode != "pass",
            detailed=wants_details(self.headers, self.metadata),
            thinks=evasions.thinks(kept, self.wire),
            doubts=doubted,
        )

    @property
    def by_alias(self) -> bool:
        """Whether the model's name is only a word for an application."""
        return str(self.data.get("model") or "").startswith(ALIAS)

    @property
    def _stream(self) -> bool:
        """Whether a stream is asked for. LiteLLM's formats differ on what else than a boolean says so."""
        said = self.data.get("stream")
        if said is not None and not isinstance(said, bool):
            raise UnreadableError("stream must be true or false")
        return said is True

    @property
    def _usage(self) -> bool:
        """Whether the proxy asks for the usage of a stream; what the client did not ask for it takes out again."""
        options = self.data.get("stream_options")
        return isinstance(options, Mapping) and options.get("include_usage") is True

    def _step(self, asking: Asking, client: Client, served: Served) -> Step:
        return Step(
            id=uuid.uuid4().hex,
            messages=asking.messages,
            node=word(self.headers.get("x-governor-node") or self.metadata.get("governor_node")) or "default",
            session=self._session(client),
            run=_own(client, word(self.headers.get("x-governor-run"))),
            tenant=client.tenant,
            tools=asking.tools,
            tool_choice=asking.tool_choice,
            response_schema=asking.schema,
            baseline=_baseline(served.policy.rungs.values(), str(self.data.get("model") or "")),
        )

    def _fitting(self, terms: Terms, asking: Asking, models: ProxyModels, served: Served) -> Terms:
        spoken = {rung.model: models.dialect(served.policy, rung.model) for rung in terms.ladder}
        taking = able(terms.ladder, spoken, demands(self.data, asking.tool_choice))
        ladder = fitting(taking, asking.caps, tuple(spoken[rung.model] for rung in taking), self.wire.least)
        return terms if ladder == terms.ladder else replace(terms, ladder=ladder)

    def _session(self, client: Client) -> str:
        """A client's own word, kept apart from those of other tenants."""
        words = (
            self.headers.get("x-governor-session"),
            self.data.get("litellm_session_id"),
            self.metadata.get("session_id"),
            self.data.get("user"),
        )
        return _own(client, next((one for one in map(word, words) if one), ""))

    def _kept(self, data: Mapping[str, Any], changes: Fields) -> Mapping[str, Any]:
        """The client's own fields as they are now: what other hooks changed before counts."""
        own = (set(_sent(self.data).get("body") or ()) | changes.keys() | FROM_HEADERS) - DROPPED
        own -= {name for name in BUCKETS if self.data.get(name) is self.bucket}
        return {key: data[key] for key in sorted(own) if data.get(key) is not None}

    @property
    def _foreign(self) -> bool:
        """Whether the format is none of ours, though LiteLLM calls it so: Cursor's, that of two endpoints mixed."""
        return str(_sent(self.data).get("url") or "").partition("?")[0].endswith("/cursor/chat/completions")


def word(said: Any) -> str:
    """A client's own word for something, fit for scopes, records and logs; empty where it said none."""
    text = said if isinstance(said, str) else ""
    return (text if text.isprintable() else "".join(filter(str.isprintable, text)))[:LONGEST_WORD]


def _own(client: Client, said: str) -> str:
    """A client's word for a session or a run, kept apart from the same word of other tenants."""
    return f"{client.tenant}/{said}" if said and client.tenant else said


def _hashed(key: str) -> str:
    """A key that LiteLLM knows by its hash as it is, any other one (of an own `custom_auth`) as a hash."""
    known = not key or key.startswith("hashed-jwt-") or _HASH.fullmatch(key) is not None
    return key if known else sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _doubts(governor: Governor, step: Step, terms: Terms) -> Callable[[str], str] | None:
    """What the step's verifier says of an answer that has begun; None where it can't say anything."""
    verifier = governor.verifier(step, terms)
    if verifier is None or not foresees(verifier):
        return None
    return lambda text: doubts(verifier, step, text)


def _sent(data: Mapping[str, Any]) -> Mapping[str, Any]:
    held = data.get("proxy_server_request")
    return held if isinstance(held, Mapping) else {}


def _baseline(rungs: Any, model: str) -> str | None:
    """The rung that the client's own model comes nearest to: the last that has it."""
    return next((rung.id for rung in reversed(list(rungs)) if rung.model == model), None)
