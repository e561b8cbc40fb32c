"""`governor doctor URL`: what a model server honours of what a rung may ask of it.

Exit codes: 0 nothing is lost in silence (all is honoured, or refused with an error), 1 something is accepted and
ignored, 2 the server can't be asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from typing import Annotated, Any

import typer

IGNORES, UNREACHABLE = 1, 2


def doctor(
    url: Annotated[str, typer.Argument(help="The server's address, such as http://localhost:8000/v1.")],
    model: Annotated[str, typer.Option("--model", help="One of its models; default: the first.")] = "",
    key_env: Annotated[str | None, typer.Option("--api-key-env", help="The variable that holds its key.")] = None,
    as_data: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Try what a model server honours, and print what to change.

    Sends some twenty small requests whose answers show whether a setting acts: a thinking budget must cut, arguments
    must reach Governor's processor. Exit code 1 where something is accepted and ignored, 2 where the server can't be
    asked.

    Example: governor doctor http://localhost:8000/v1
    """
    from governor.errors import GovernorError

    try:
        served = import_module("governor_vllm.canaries").examine(url, model, key_env)
    except GovernorError as fault:
        told = str(fault)
        typer.echo(told if "://" in told else f"{url}: {told}", err=True)
        raise typer.Exit(UNREACHABLE) from fault
    findings = list(served.findings.values())
    typer.echo(_as_json(url, served)) if as_data else _show(url, served, findings)
    raise typer.Exit(IGNORES if any(one.verdict == "ignored" for one in findings) else 0)


def _as_json(url: str, served: Any) -> str:
    findings = [asdict(one) for one in served.findings.values()]
    told = {"url": url, "model": served.model, "version": served.version, "context_window": served.window}
    return json.dumps({**told, "findings": findings}, indent=2)


def _show(url: str, served: Any, findings: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    columns = "asked for", "verdict", Column("seen", overflow="fold"), Column("to change", overflow="fold")
    table = Table(*columns, box=None, pad_edge=False)
    for one in findings:
        table.add_row(
            *map(_plain, (one.canary, one.verdict, one.seen, one.change if one.verdict != "honoured" else ""))
        )
    typer.echo(f"{url}: {served.model}, version {served.version or 'unknown'}, window {served.window or 'unknown'}")
    Console().print(table)


def _plain(text: str) -> Any:
    """A cell as it is: brackets in it are no markup."""
    from rich.text import Text

    return Text(text)
