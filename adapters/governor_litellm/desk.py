"""What stands behind the hooks: policies, ledgers, models, and the flights that are open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from governor.arm import arm_of
from governor.errors import BackendRequestError
from governor.facade import Governor, default_ledger, emergency_cap
from governor.ledger import open_awaited, open_ledger
from governor.policy import Policy
from governor.protocols import Sink
from governor.records import Outcome
from governor.telemetry.records import JsonlSink
from governor_litellm.admission import Arrival, Client
from governor_litellm.applications import ForeignApplicationError
from governor_litellm.flight import LOST, Flight, Request
from governor_litellm.ledgers import Ledgers
from governor_litellm.mark import MARK, mark_of, unmark
from governor_litellm.models import ProxyModels, RouterBackend
from governor_litellm.policies import PolicyFolder, Served, UnservedError
from governor_litellm.settings import Settings
from governor_litellm.told import begun, ended, problem, refused
from governor_litellm.tries import Tries
from governor_litellm.watch import ASKING, HookWatch
from governor_litellm.watching import all_told
from governor_litellm.wires import UnreadableError, Wire

log = logging.getLogger("governor.proxy")
CLOSING_SECONDS = 10.0
"""How long flights that are ended may take to settle."""


class Desk:
    """One proxy's state. Lives in one event loop; only the look at the policies is done elsewhere."""

    def __init__(self, settings: Settings, models: ProxyModels, watch: HookWatch) -> None:
        self.settings, self.models, self.watch = settings, models, watch
        self.ledgers = Ledgers(open_ledger, partial(open_awaited, unique=True))  # each request is a step of its own id
        self.flights: dict[str, Flight] = {}
        self.folder: PolicyFolder | None = None
        if settings.policies is not None:
            self.folder = PolicyFolder(settings.policies, self._governor, models.checks, settings.interval)
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """See to it that the policies are looked at; only the very first look is waited for."""
        folder = self.folder
        if folder is None or not folder.due:
            return
        first = not folder.looked
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(folder.look))
            self._looking.add_done_callback(_told)
        if first:
            await asyncio.wait([self._looking])

    async def admit(self, wire: Wire, data: dict[str, Any], user: Any) -> None:
        """Govern a request in place, or leave it alone. Raises the proxy's error where it is refused."""
        await self.look()
        unmark(data)
        arrival, client = Arrival.of(wire, data), Client.of(user)
        try:
            app = arrival.application(client, self.settings)
        except ForeignApplicationError as foreign:
            raise problem(f"governor: {foreign}", "permission_error", HTTPStatus.FORBIDDEN) from None
        mark = arrival.bucket[MARK] = dict[str, Any]()
        served = self.serving(app)
        if served is None:
            if arrival.by_alias:
                text = f"governor: there is no policy for the application {app!r}"
                raise problem(text, "invalid_request_error", HTTPStatus.BAD_REQUEST)
            return
        try:
            request = arrival.request(served, client, self.models, self.settings)
        except (UnreadableError, RecursionError) as error:
            self.leave(served)
            if served.policy.mode == "on" or limited(served.policy):  # left alone it would go past every budget
                raise unreadable(error) from None
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours must not become a 500: the policy says what it means
            self.leave(served)
            self.broken(served.policy, error)
            return
        if request is None or (request.unbounded and reserves_input(request)):
            self.leave(served)
            let_alone(served.policy, "" if request is None else request.unbounded)
            return
        await self._begin(arrival, served, request, mark)

    def serving(self, app: str) -> Served | None:
        """What governs an application, held until `leave`: its own policy, else the default's. None without either.

        Raises the proxy's error where it has none of its own that can be used, though it may be meant to have one.
        """
        folder = self.folder
        if folder is None:
            return None
        if not folder.looked:
            text = "governor: the policies can't be read"
            raise problem(text, "governor_unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            return folder.enter(app, self.settings.default)
        except UnservedError as unserved:
            text = f"governor: {unserved}"
            raise problem(text, "governor_unavailable", HTTPStatus.SERVICE_UNAVAILABLE) from None

    def flight(self, data: Any) -> Flight | None:
        """The open flight of a request."""
        mark = mark_of(data)
        return self.flights.get(str(mark.get("flight"))) if mark else None

    def tried(self, data: Any, kind: object) -> None:
        """LiteLLM asks a deployment, by a call of this kind."""
        flight = self.flight(data)
        if flight is not None:
            flight.tried(kind)
        elif (tries := self._further(data)) is not None:
            tries.begin(kind)

    def untried(self, data: Any, kind: object, error: Exception) -> None:
        """A deployment failed."""
        flight = self.flight(data)
        tries = self._further(data) if flight is None else flight.tries
        if tries is not None:
            tries.failed(error, kind)

    async def settled(self, flight: Flight) -> Outcome | None:
        """The outcome, with what is told of it noted in the request's mark; None where the loop broke down."""
        try:
            return await flight.outcome()
        except Exception as error:  # noqa: BLE001 - see `broken`
            self.broken(flight.governor.policy, error)
            return None

    def broken(self, policy: Policy, error: Exception) -> None:
        """Governor itself failed: under `fail: open` and in shadow the request goes on as it is, else it is refused."""
        log.error("governor failed (fail: %s)", policy.fail, exc_info=error)
        if policy.fail == "closed" and policy.mode != "shadow":
            text = "governor: an internal error; the policy says fail: closed"
            raise problem(text, "governor_unavailable", HTTPStatus.SERVICE_UNAVAILABLE) from error

    def leave(self, served: Served) -> None:
        if self.folder is not None:
            self.folder.leave(served)

    async def close(self) -> None:
        """End every flight, await that it is settled and LiteLLM told, and free governors and ledgers."""
        flights = list(self.flights.values())
        for flight in flights:
            flight.leave("the proxy stops")
        if flights:
            await asyncio.wait([flight.task for flight in flights], timeout=CLOSING_SECONDS)
        await all_told(CLOSING_SECONDS)
        if self.folder is not None:
            await asyncio.to_thread(self.folder.close)
        await self.ledgers.aclose()

    async def _begin(self, arrival: Arrival, served: Served, request: Request, mark: dict[str, Any]) -> None:
        tries = Tries(untold=self.watch.missed[ASKING] > 0)
        flight = Flight(served.governor, self.models, request, lambda done: self._over(done, served), tries)
        self.flights[flight.id] = flight
        mark["flight"] = flight.id
        flight.start()
        logging_obj = arrival.data.get("litellm_logging_obj")
        if logging_obj is not None:
            flight.watch(logging_obj)
        if not flight.governed:
            if arrival.by_alias:
                arrival.data["model"] = request.terms.rung(request.step.baseline or request.terms.ladder[-1].id).model
            mark["headers"] = begun(flight)
            return
        await self._governed(arrival, flight, mark)

    async def _governed(self, arrival: Arrival, flight: Flight, mark: dict[str, Any]) -> None:
        try:
            answer = await flight.admitted()
        except asyncio.CancelledError:
            flight.leave("the client went away")
            raise
        except RecursionError as error:
            raise unreadable(error) from None
        except Exception as error:  # noqa: BLE001 - see `broken`
            self.broken(flight.governor.policy, error)
            return
        if isinstance(answer, Outcome):
            mark["headers"] = ended(flight, answer)
            raise refused(answer, mark["headers"])
        try:
            changes = flight.changes(answer)
        except (UnreadableError, RecursionError) as error:
            flight.fail(BackendRequestError(str(error), model=answer.rung.model, sent=False))
            raise unreadable(error) from None
        except Exception as error:  # noqa: BLE001 - see `broken`
            flight.fail(BackendRequestError(str(error), model=answer.rung.model, sent=False))
            self.broken(flight.governor.policy, error)
            return
        changed(arrival.data, changes)
        mark["headers"] = begun(flight)

    def _further(self, data: Any) -> Tries | None:
        """The tries of a call that Governor itself makes."""
        mark = mark_of(data)
        return self.models.further.get(str(mark.get("call"))) if mark else None

    def _over(self, flight: Flight, served: Served) -> None:
        self.flights.pop(flight.id, None)
        self.leave(served)
        self.ledgers.pay()
        if flight.closed in LOST:
            self.watch.silent("async_post_call_success_hook", f"of a request for {served.policy.app}; it was settled")
        if flight.untold:
            self._untold(served.policy.app)
        if not flight.task.cancelled() and (error := flight.task.exception()) is not None:
            log.error("a step of %s ended in an error; it was settled", served.policy.app, exc_info=error)

    def _untold(self, app: str) -> None:
        """Nothing tells when a deployment is asked: from now on every call counts as sent, so that it is booked."""
        self.watch.silent(ASKING, f"of a request for {app} that was answered; calls that fail now all count as sent")
        for flight in self.flights.values():
            flight.tries.untold = True

    def _governor(self, policy: Policy) -> Governor:
        uri, cap = policy.ledger or default_ledger(policy), emergency_cap(policy)
        return Governor(
            policy,
            backend=RouterBackend(self.models, policy),
            ledger=self.ledgers.of(uri) if cap is None else self.ledgers.standing_in(uri, cap),
            owns_ledger=False,
            awaited=self.ledgers.awaited(uri),
            sinks=self._sinks(policy),
        )

    def _sinks(self, policy: Policy) -> tuple[Sink, ...]:
        folder = self.settings.records
        if folder is None:
            return ()
        folder.mkdir(parents=True, exist_ok=True)
        kept, path = policy.records, folder / f"{policy.app}.jsonl"
        return (
            JsonlSink(path, prompts=kept.prompts, answers=kept.answers, policy_digest=policy.digest, app=policy.app),
        )


def unreadable(error: UnreadableError | RecursionError) -> Exception:
    """The proxy's error for a request that can't be read."""
    text = "the request is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return problem(f"governor: {text}", "invalid_request_error", HTTPStatus.BAD_REQUEST)


def limited(policy: Policy) -> bool:
    """Whether a request that nobody books would go past a budget that outlives it."""
    return policy.mode != "shadow" and any(one.shared or one.session or one.run for one in policy.budgets)


def reserves_input(request: Request) -> bool:
    """Whether a budget of the request, or of a call, is in money or in tokens that are read: a bound is then needed."""
    held = (amount for one in request.limits for amount in (one.micros, one.tokens, one.input))
    return arm_of(request.step, request.terms) == "governed" and any(amount is not None for amount in held)


def let_alone(policy: Policy, unbounded: str = "") -> None:
    """Of a kind of request that is not governed: raises the proxy's error where that would go past a budget.

    `unbounded` is what of it makes a model read more than the request holds.
    """
    if unbounded:
        text = (
            f"governor: with {unbounded} the model reads more than the request holds, which no budget can bound: "
            "send the conversation and its files themselves, and tools that you run yourself"
        )
        raise problem(text, "invalid_request_error", HTTPStatus.BAD_REQUEST)
    if limited(policy):
        text = (
            "governor: this kind of request has no bound: ask for one choice (n), not in the background nor over a "
            "WebSocket, without an advisor, and in a format that is governed"
        )
        raise problem(text, "invalid_request_error", HTTPStatus.BAD_REQUEST)


def changed(data: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Change a request's fields in place; None takes one out."""
    for key, value in fields.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value


def _told(look: asyncio.Task[None]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.error("the policies could not be looked at", exc_info=error)
