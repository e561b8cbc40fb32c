"""What POST /governor/explain answers: what would become of a request, and why. Nothing is called or booked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from governor.errors import LedgerError
from governor.protocols import Ledger
from governor.records import Limit, Rung
from governor_litellm.admission import Arrival, Client
from governor_litellm.desk import let_alone
from governor_litellm.told import problem
from governor_litellm.wires import WIRES, UnreadableError, Wire

if TYPE_CHECKING:
    from governor_litellm.flight import Request as Governed
    from governor_litellm.proxy import ProxyGovernor

FORMATS: Mapping[str, Wire] = {
    name: WIRES[kind]
    for name, kind in (("chat", "acompletion"), ("responses", "aresponses"), ("messages", "anthropic_messages"))
}


@dataclass(frozen=True, slots=True)
class Question:
    """A client's request, word for word, and what is asked of it: `?app=NAME&tenant=ID&format=chat`."""

    app: str
    tenant: str
    format: str
    body: dict[str, Any]
    headers: Mapping[str, str]

    @classmethod
    async def of(cls, request: Any) -> Question:
        """Of a request to the route. Raises the proxy's error for one whose body is no JSON object."""
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise _wrong("the body must be the JSON object that a client would send")
        asked = request.query_params
        said = {name: value for name, value in request.headers.items() if name.startswith("x-governor-")}
        return cls(asked.get("app", ""), asked.get("tenant", ""), asked.get("format", "chat"), body, said)


async def explained(governor: ProxyGovernor, question: Question, user: Any) -> dict[str, Any]:
    """Application, rungs inside the client's limits, forecasts, decision, and where its budgets stand."""
    desk = governor.desk
    await desk.look()
    wire = FORMATS.get(question.format)
    if wire is None:
        raise _wrong(f"format must be one of {', '.join(FORMATS)}")
    app = question.app or desk.settings.default
    served = desk.serving(app)
    if served is None:
        raise _wrong(f"there is no policy for the application {app[:64]!r}")
    try:
        request = _asked(question, wire).request(served, _client(question, user), governor.models, desk.settings)
        if request is None:
            let_alone(served.policy)
            return {"app": served.policy.app, "governed": False}
        found = await asyncio.to_thread(served.governor.explain, request.step, granted=request.terms)
        budgets = await asyncio.to_thread(_budgets, served.governor.ledger, request)
    except UnreadableError as error:
        raise _wrong(str(error)) from None
    finally:
        desk.leave(served)
    told = {"governed": True, "mode": request.terms.mode, "ladder": [_rung(rung) for rung in request.terms.ladder]}
    return {**found.record, **told, "budgets": budgets}


def _asked(question: Question, wire: Wire) -> Arrival:
    sent = {"headers": dict(question.headers), "body": dict(question.body)}
    metadata = question.body.get("metadata")
    bucket = {"requester_metadata": metadata if isinstance(metadata, Mapping) else {}}
    return Arrival.of(wire, {**question.body, "proxy_server_request": sent, wire.bucket: bucket})


def _client(question: Question, user: Any) -> Client:
    asking = Client.of(user)
    return Client(asking.key, asking.team, question.tenant or asking.tenant)


def _rung(rung: Rung) -> dict[str, Any]:
    kept = ("id", "model", "effort", "thinking_tokens", "answer_tokens", "timeout")
    return {name: value for name in kept if (value := getattr(rung, name)) is not None}


def _budgets(ledger: Ledger, request: Governed) -> list[dict[str, Any]]:
    terms = request.terms
    limits = [*terms.limits, *(limit for _, own in terms.models for limit in own)]
    return [_standing(ledger, limit) for limit in limits]


def _standing(ledger: Ledger, limit: Limit) -> dict[str, Any]:
    """In the ledger's units: tokens, micro-USD, milliseconds, calls."""
    told = asdict(limit)
    scope, _ = told.pop("scope"), told.pop("window")
    limited = {name: value for name, value in told.items() if value is not None}
    try:
        balance = ledger.balance(scope)
    except LedgerError as fault:
        return {"scope": scope, "limit": limited, "error": type(fault).__name__}
    spent = {name: getattr(balance.spent, name) for name in limited}
    reserved = {name: getattr(balance.reserved, name) for name in limited}
    return {"scope": scope, "limit": limited, "spent": spent, "reserved": reserved}


def _wrong(text: str) -> Exception:
    return problem(f"governor: {text}", "invalid_request_error", HTTPStatus.BAD_REQUEST)
