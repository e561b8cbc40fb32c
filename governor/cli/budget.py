"""`governor budget`: what was spent, what is left, whether the ledger is right, and what to do where it is not.

Exit codes: 0 done, 1 the audit found a difference, nothing was confirmed, or the store failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.budget_audit import audit
from governor.cli.budget_rebuild import rebuild
from governor.cli.budget_store import AsJson, Prefix, Rules, Store, Uri, confirmed, opened
from governor.cli.reading import refusals
from governor.errors import LedgerError, LedgerUnavailableError
from governor.records import Amount

if TYPE_CHECKING:
    from governor.ledger.standing import Standing
    from governor.ledger.sums import Figures
    from governor.protocols import Balance

Scope = Annotated[str, typer.Argument(help="The scope's whole key, as `show` names it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
New = Annotated[bool, typer.Option("--new", help="Begin a scope that the ledger does not know.")]

app = typer.Typer(
    help="Look at budgets, set them right, prove them.\n\nExample: governor budget show sqlite:///budget.db",
    no_args_is_help=True,
)


class Format(StrEnum):
    """How balances are written for other tools."""

    CSV = "csv"
    JSONL = "jsonl"
    PROMETHEUS = "prometheus"


@app.command()
def show(uri: Uri = None, policy: Rules = None, prefix: Prefix = "", as_json: AsJson = False) -> None:
    """Show what was spent, what is left, and until when.

    A line for each dimension that is limited, as far as the policy or open reservations tell. Scopes of single steps
    are left out unless --scope step: asks for them. Times are UTC.

    Example: governor budget show sqlite:///budget.db --policy policy.yaml
    """
    with opened(uri, policy) as store:
        found = store.standings(prefix)
    if as_json:
        typer.echo(_reading(store, found))
        return
    if not found:
        typer.echo(f"{store.name}: nothing was spent yet{f' on {prefix}' if prefix else ''}")
        return
    from governor.cli.budget_table import budget_table, console

    console().print(budget_table(found))


@app.command()
def watch(
    uri: Uri = None,
    policy: Rules = None,
    prefix: Prefix = "",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    times: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks (else at Ctrl-C).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the same again and again, until Ctrl-C.

    On a terminal one table; elsewhere a line for each figure that changed, or with --json an object for each look. The
    pace of scopes that never end is the one seen since the watch began.

    Example: governor budget watch --policy policy.yaml --interval 5
    """
    with opened(uri, policy) as store, suppress(KeyboardInterrupt):
        looks = _looks(store, prefix, interval, times)
        if as_json:
            for found in looks:
                typer.echo(_reading(store, found))
        elif sys.stdout.isatty():
            _live(looks)
        else:
            _lines(looks)


def _looks(store: Store, prefix: str, interval: float, times: int | None) -> Iterator[tuple[Standing, ...]]:
    """One reading after the other. A store that fails once the watch runs is told of, and asked again."""
    from governor.ledger.sums import figures

    seen: dict[str, tuple[float, Figures]] = {}
    for number in count(1):
        try:
            found = store.standings(prefix, seen)
        except LedgerUnavailableError as fault:
            if number == 1:
                raise
            typer.echo(f"governor: {fault}", err=True)
        else:
            for one in found:
                seen.setdefault(one.balance.scope, (one.now, figures(one.balance.spent)))
            yield found
        if number == times:
            return
        time.sleep(interval)


def _live(looks: Iterator[tuple[Standing, ...]]) -> None:
    from rich.live import Live

    from governor.cli.budget_table import budget_table

    with Live(auto_refresh=False) as live:
        for found in looks:
            live.update(budget_table(found), refresh=True)


def _lines(looks: Iterator[tuple[Standing, ...]]) -> None:
    from governor.cli.budget_table import line, shown

    told: dict[tuple[str, int], str] = {}
    for found in looks:
        for standing in found:
            at = datetime.fromtimestamp(standing.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for place in shown(standing):
                text, key = line(standing, place), (standing.balance.scope, place)
                if told.get(key) != text:
                    told[key] = text
                    typer.echo(f"{at} {text}")


@app.command("set")
def set_spent(
    scope: Scope,
    uri: Uri = None,
    policy: Rules = None,
    usd: Annotated[float | None, typer.Option(min=0, help="Money spent, in USD.")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens spent, in all.")] = None,
    input_tokens: Annotated[int | None, typer.Option(min=0, help="Of prompts.")] = None,
    thinking_tokens: Annotated[int | None, typer.Option(min=0, help="Of thought.")] = None,
    answer_tokens: Annotated[int | None, typer.Option(min=0, help="Of answers.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Seconds spent.")] = None,
    calls: Annotated[int | None, typer.Option(min=0, help="Calls made.")] = None,
    new: New = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say what counts as spent on a scope, as if booked now.

    For a balance that is carried over, or spend that happened elsewhere. Limits live in the policy; what is not named
    here stays, holds too, and the overshoot is cleared.

    Example: governor budget set app:desk@2026-11 sqlite:///budget.db --usd 12.5
    """
    if not all(math.isfinite(one) for one in (usd, seconds) if one is not None):
        raise typer.BadParameter("figures must be finite")
    given = {
        "micros": None if usd is None else round(usd * 1_000_000),
        "tokens": tokens,
        "input": input_tokens,
        "thinking": thinking_tokens,
        "answer": answer_tokens,
        "millis": None if seconds is None else round(seconds * 1000),
        "calls": calls,
    }
    from governor.ledger.admission import MOST

    stated = {name: value for name, value in given.items() if value is not None}
    if not stated:
        raise typer.BadParameter("say what counts as spent, such as --usd 3.50 (for nothing: governor budget reset)")
    if max(stated.values()) > MOST:
        raise typer.BadParameter("figures go up to 2**53 (of money in micro-USD)")
    _change(scope, uri, policy, stated, new=new, yes=yes, as_json=as_json)


@app.command()
def reset(scope: Scope, uri: Uri = None, policy: Rules = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let nothing count as spent on a scope.

    What open reservations hold stays, and the overshoot is cleared.

    Example: governor budget reset session:desk/9 sqlite:///budget.db
    """
    _change(scope, uri, policy, None, new=False, yes=yes, as_json=as_json)


def _change(
    scope: str,
    uri: str | None,
    policy: str | None,
    stated: dict[str, int] | None,
    *,
    new: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from governor.cli.budget_table import changes

    with opened(uri, policy) as store:
        before = _known(store, scope, new=new)
        wanted = _wanted(before, stated)
        if not yes and not confirmed(f"{scope}: {', '.join(changes(before.spent, wanted)) or 'no change'}. Do it?"):
            typer.echo("left as it was", err=True)
            raise typer.Exit(1)
        before = next((one for one in store.ledger.balances(scope) if one.scope == scope), before)  # asking took time
        after = store.ledger.reset(scope, _wanted(before, stated))
    if as_json:
        typer.echo(json.dumps({"scope": scope, "before": _sums(before), "after": _sums(after)}))
    else:
        typer.echo(f"{scope}: {', '.join(changes(before.spent, after.spent)) or 'no change'}")


def _wanted(before: Balance, stated: dict[str, int] | None) -> Amount:
    """What is to count: what is stated beside what stays; nothing for a reset."""
    return Amount() if stated is None else replace(before.spent, **stated)


def _sums(balance: Balance) -> dict[str, Any]:
    return {name: asdict(getattr(balance, name)) for name in ("spent", "reserved", "overshoot")}


def _known(store: Store, scope: str, *, new: bool) -> Balance:
    """The scope's balance; one that the ledger does not know only where it is to be begun."""
    from governor.protocols import Balance

    known = {balance.scope: balance for balance in store.ledger.balances()}
    if scope in known:
        return known[scope]
    with refusals():
        if new and "~" in scope:
            raise LedgerError(f"'{scope}' slides: its window is known once something was spent on it")
        if not new:
            close = difflib.get_close_matches(scope, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "governor budget show lists all; --new begins one"
            raise LedgerError(f"{store.name}: no scope '{scope}' ({hint})")
    return Balance(scope=scope)


app.command()(audit)
app.command()(rebuild)


@app.command()
def export(
    uri: Uri = None,
    policy: Rules = None,
    prefix: Prefix = "",
    layout: Annotated[Format, typer.Option("--format", help="A table, objects, or Prometheus's text.")] = Format.CSV,
) -> None:
    """Write balances for other tools.

    csv and jsonl hold exact integers (micro-USD, milliseconds, tokens); prometheus its text exposition, for the
    textfile collector of node_exporter.

    Example: governor budget export sqlite:///budget.db --format prometheus
    """
    from governor.ledger.exposition import as_csv, as_object, as_prometheus

    with opened(uri, policy) as store:
        found = store.standings(prefix)
    if layout is Format.JSONL:
        text = "".join(f"{json.dumps(as_object(one), ensure_ascii=False)}\n" for one in found)
    else:
        text = as_csv(found) if layout is Format.CSV else as_prometheus(found)
    typer.echo(text, nl=False)


def _reading(store: Store, found: tuple[Standing, ...]) -> str:
    from governor.ledger.exposition import as_object

    at = found[0].now if found else time.time()
    told = {"ledger": store.name, "at": round(at, 3), "scopes": [as_object(one) for one in found]}
    return json.dumps(told, ensure_ascii=False)
