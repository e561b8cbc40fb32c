"""`governor budget audit`: the records added up, beside what the ledger says."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.budget_store import AsJson, Prefix, Store, opened
from governor.cli.reading import refusals, tell
from governor.errors import RecordError

if TYPE_CHECKING:
    from governor.telemetry.audit import Audit


def audit(
    records: Annotated[list[Path], typer.Argument(help="Record files (JSON lines, .gz too), all of a scope's life.")],
    uri: Annotated[str | None, typer.Option("--ledger", help="Budget store, such as sqlite:///budget.db.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Take the store from this policy.")] = None,
    prefix: Prefix = "",
    since: Annotated[str | None, typer.Option(help="Leave out records of before this moment (RFC 3339).")] = None,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="Trust the ledger on steps that were cut off: they leave no outcome.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add up the records and prove that the ledger agrees.

    To the micro-USD, the millisecond and the token of each kind. Exit code 1 where anything differs or a record could
    not be matched. Run it while nothing is being spent.

    Example: governor budget audit records.jsonl --ledger sqlite:///budget.db
    """
    from governor.telemetry.audit import audited

    begin = moment_of(since)
    with refusals():
        lines = outcomes_in(records, begin)
    with opened(uri, policy) as store:
        balances, reservations = store.ledger.balances(), store.ledger.reservations()
    found = audited(lines, balances, reservations, time.time(), cancelled=cancelled, prefix=prefix)
    if as_json:
        typer.echo(_audit_json(store, found))
    else:
        _print_audit(found)
    raise typer.Exit(0 if found.agrees else 1)


def moment_of(text: str | None) -> float:
    """`--since` in seconds since the epoch; minus infinity where it is not given."""
    if text is None:
        return float("-inf")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--since: '{text}' is no moment (write 2026-11-21 or 2026-11-21T14:00:00Z)") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def outcomes_in(paths: list[Path], since: float) -> list[Any]:
    """Every record from `since` on; what can't be read is told. RecordError where there is no outcome at all."""
    from governor.telemetry.records import RecordWarning, read_records

    with warnings.catch_warnings(record=True, action="always", category=RecordWarning) as skipped:
        found = [record for path in paths for record in read_records(path) if _written(record) >= since]
    tell([str(warning.message) for warning in skipped], "{} more lines were skipped")
    if not any(record.get("kind") == "outcome" for record in found):
        raise RecordError(f"{', '.join(map(str, paths))}: no outcome to add up (governor run --records writes them)")
    return found


def _written(record: Any) -> float:
    try:
        return datetime.fromisoformat(record["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return float("inf")  # the audit says what is wrong with it


def _print_audit(found: Audit) -> None:
    from governor.cli.budget_table import audit_table, console

    table, more = audit_table(found)
    console().print(table)
    if more:
        typer.echo(f"{more} more scopes agree")
    for words, mismatches in (("not matched", found.unmatched), ("without an outcome", found.unrecorded)):
        tell([f"{words}: {one.key}: {one.reason}" for one in mismatches], f"{words}: {{}} more", err=False)
    typer.echo(_verdict(found))


def _verdict(found: Audit) -> str:
    read = f"outcomes {found.outcomes}, attempts {found.attempts}, scopes {found.compared}"
    if found.unbooked:
        read += f", booked nowhere {found.unbooked}"
    if found.parts:
        read += f", parts of others {found.parts}"
    apart = sum(not row.agrees for row in found.rows)
    wrong = [
        f"{words} {number}"
        for number, words in (
            (apart, "scopes that differ"),
            (len(found.unmatched), "records not matched"),
            (0 if found.cancelled else len(found.unrecorded), "reservations without an outcome"),
        )
        if number
    ]
    if not wrong and not found.agrees:
        wrong = ["the ledger has forgotten every scope"]
    return f"{'does not agree: ' + ', '.join(wrong) if wrong else 'agrees'} ({read})"


def _audit_json(store: Store, found: Audit) -> str:
    rows = [asdict(row) | {"agrees": row.agrees} for row in found.rows]
    return json.dumps({"ledger": store.name, "agrees": found.agrees} | asdict(found) | {"rows": rows})
