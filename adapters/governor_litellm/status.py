"""GET /governor/status: what serves, what is wrong, what is open. For the proxy's admin key only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from governor.errors import LedgerError
from governor.protocols import Ledger
from governor_litellm.desk import Desk
from governor_litellm.watch import HOOKS, installed

if TYPE_CHECKING:
    from governor_litellm.proxy import ProxyGovernor

PATH = "/governor/status"


def add_status(governor: ProxyGovernor) -> None:
    """Add the route to the proxy of this process, in place of an earlier one; does nothing where there is no proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    app = getattr(server, "app", None)
    if app is None:
        return
    from fastapi import Depends, HTTPException
    from litellm.proxy._types import LitellmUserRoles
    from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

    async def status(user: Any = Depends(user_api_key_auth)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        if getattr(user, "user_role", None) != LitellmUserRoles.PROXY_ADMIN:
            raise HTTPException(403, "the proxy's admin key is needed")
        return await report(governor)

    status.__annotations__["user"] = Any  # FastAPI reads annotations as objects
    routes = app.router.routes
    routes[:] = [route for route in routes if getattr(route, "path", None) != PATH]
    app.add_api_route(PATH, status, methods=["GET"], include_in_schema=False)
    routes.insert(0, routes.pop())  # before any route that catches all


async def report(governor: ProxyGovernor) -> dict[str, Any]:
    """What the route answers. Holds no prompt, no key and no address of a store."""
    desk = governor.desk
    await desk.look()
    folder, watch = desk.folder, governor.watch
    errors: Mapping[str, str] = folder.errors if folder is not None else {}
    return {
        "litellm": installed(),
        "policies": _policies(desk),
        "errors": dict(errors),
        "hooks": {name: watch.seen[name] for name in HOOKS},
        "missed_hooks": dict(watch.missed),
        "flights": len(desk.flights),
        "ledgers": await _ledgers(desk),
    }


def _policies(desk: Desk) -> dict[str, Any]:
    served = desk.folder.served if desk.folder is not None else {}
    return {
        app: {"file": one.path.name, "digest": one.policy.digest, "flights": one.using} for app, one in served.items()
    }


async def _ledgers(desk: Desk) -> dict[str, Any]:
    """Whether each store answers, by its scheme; a store's address may hold a password."""
    found: dict[str, Any] = {}
    for number, (uri, ledger) in enumerate(desk.ledgers.opened.items(), 1):
        found[f"{number}:{uri.partition(':')[0]}"] = await asyncio.to_thread(_reachable, ledger)
    return found


def _reachable(ledger: Ledger) -> str:
    try:
        ledger.balance("governor:status")
    except LedgerError as fault:
        return type(fault).__name__
    return "ok"
