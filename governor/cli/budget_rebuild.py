"""`governor budget rebuild`: new books from the records, for a ledger that lost its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.budget_audit import moment_of, outcomes_in
from governor.cli.budget_store import AsJson, Store, confirmed, opened
from governor.cli.reading import refusals, tell
from governor.errors import LedgerError

if TYPE_CHECKING:
    from governor.protocols import Rebuildable


def rebuild(
    records: Annotated[
        list[Path], typer.Argument(help="Record files (JSON lines, .gz too), of the ledger's whole life.")
    ],
    uri: Annotated[str | None, typer.Option("--ledger", help="Budget store, such as redis://host/0.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Take the store from this policy.")] = None,
    since: Annotated[str | None, typer.Option(help="Leave out records of before this moment (RFC 3339).")] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Go on although the spend of some steps is not placed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a ledger that lost its books new ones, from the records.

    What the records say was spent counts, on every scope; what was held is dropped. Steps that were under way leave no
    outcome: they are listed, and their spend has to be set by hand afterwards (governor budget set).

    Example: governor budget rebuild records.jsonl --ledger redis://host/0?tenant=acme
    """
    from governor.telemetry.restore import restored

    begin = moment_of(since)
    with refusals():
        lines = outcomes_in(records, begin)
    found = restored(lines, time.time())
    with opened(uri, policy) as store:
        ledger = _rebuildable(store)
        tell([f"not placed: {key}: {why}" for key, why in found.unplaced], "not placed: {} more")
        if found.unplaced and not incomplete:
            typer.echo("left as it was: with --incomplete it is rebuilt without them", err=True)
            raise typer.Exit(1)
        scopes = len(found.balances)
        if not yes and not confirmed(f"{store.name}: begin new books with {scopes} scopes. Do it?"):
            typer.echo("left as it was", err=True)
            raise typer.Exit(1)
        ledger.rebuild(found.balances)
    if as_json:
        told = {"ledger": store.name, "scopes": scopes, "outcomes": found.outcomes, "unplaced": dict(found.unplaced)}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{store.name}: rebuilt {scopes} scopes from {found.outcomes} outcomes")


def _rebuildable(store: Store) -> Rebuildable:
    from governor.protocols import Rebuildable

    if not isinstance(store.ledger, Rebuildable):
        with refusals():
            why = "no store that marks its books as lost, as redis:// does"
            raise LedgerError(f"{store.name}: {why} (single scopes: governor budget set)")
    return store.ledger
