"""Governor's own routes in the proxy: for its admin key only, and never in place of the proxy's."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from governor_litellm.explain import Question, explained
from governor_litellm.status import report

if TYPE_CHECKING:
    from governor_litellm.proxy import ProxyGovernor

STATUS, EXPLAIN = "/governor/status", "/governor/explain"


def add_routes(governor: ProxyGovernor) -> None:
    """Add them to the proxy of this process, in place of earlier ones; does nothing where there is no proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    app = getattr(server, "app", None)
    if app is None:
        return
    from fastapi import Depends, HTTPException, Request
    from litellm.proxy._types import LitellmUserRoles
    from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

    def admin(user: Any = Depends(user_api_key_auth)) -> Any:  # noqa: B008 - FastAPI's way
        if getattr(user, "user_role", None) != LitellmUserRoles.PROXY_ADMIN:
            raise HTTPException(403, "the proxy's admin key is needed")
        return user

    async def status(user: Any = Depends(admin)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        del user
        return await report(governor)

    async def explain(request: Request, user: Any = Depends(admin)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        return await explained(governor, await Question.of(request), user)

    admin.__annotations__["user"] = status.__annotations__["user"] = Any  # FastAPI reads annotations as objects
    explain.__annotations__ |= {"request": Request, "user": Any}
    _add(app, STATUS, "GET", status)
    _add(app, EXPLAIN, "POST", explain)


def _add(app: Any, path: str, method: str, route: Callable[..., Awaitable[Any]]) -> None:
    routes = app.router.routes
    routes[:] = [one for one in routes if getattr(one, "path", None) != path]
    app.add_api_route(path, route, methods=[method], include_in_schema=False)
    routes.insert(0, routes.pop())  # before any route that catches all
