"""What GET /governor/status answers: what serves, what is wrong, what is open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from governor.errors import LedgerError
from governor.protocols import Ledger
from governor_litellm.desk import Desk
from governor_litellm.watch import HOOKS, installed

if TYPE_CHECKING:
    from governor_litellm.proxy import ProxyGovernor


async def report(governor: ProxyGovernor) -> dict[str, Any]:
    """Holds no prompt, no key and no address of a store."""
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
        "owed": desk.ledgers.owed,
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
