"""`governor models pull|list`: the files of local models.

Exit codes: 0 done, 1 the model can't be had (network, disk, digest), 2 wrong usage (no such model, extra missing).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from governor.cli.bar import bar_console
from governor.errors import GovernorError, MissingExtraError, ModelFileError

FAILED, USAGE = 1, 2
_LEGEND = """\
digest: known = shipped with Governor and checked; recorded = stated by the hub when the file was pulled, checked and
kept beside it; unknown = nothing to check against (a hub model before its first pull, or a file of your own)"""


def registry() -> Any:
    """The registry of local models.

    By name and at call time: the core imports no adapter, and this command is the only one that needs this one.
    """
    return import_module("governor_local.registry")


def pull_model(name: str, folder: Path | None = None) -> Path:
    """Pull a model with a progress bar on standard error; see `governor_local.registry.pull`."""
    with _bar(name) as progress:
        path: Path = registry().pull(name, folder, progress)
        return path


def listing() -> list[dict[str, Any]]:
    """One dict per model: name, path, bytes, state, digest, licence, pullable (see `ModelFile`)."""
    keys = ("name", "path", "bytes", "state", "digest", "licence", "pullable")
    rows = [{key: getattr(model, key) for key in keys} for model in registry().list_models()]
    return [row | {"path": str(row["path"]) if row["path"] else None} for row in rows]


def pull(
    name: Annotated[str, typer.Argument(help="A name that `governor models list` shows.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to put it instead of the cache.")] = None,
) -> None:
    """Download a local model and print its path.

    Its digest is checked. Exit codes: 1 it can't be had (network, disk, digest), 2 no such model or extra missing.

    Example: governor models pull smollm2-135m
    """
    try:
        typer.echo(pull_model(name, folder))
    except MissingExtraError as fault:
        raise _told(fault, USAGE) from fault
    except ModelFileError as fault:
        raise _told(fault, FAILED if name in registry().pullable_names() else USAGE) from fault


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Show local models: those here, those to be had.

    Example: governor models list --json
    """
    rows = listing()
    typer.echo(json.dumps(rows, indent=2)) if as_json else _print_table(rows)


def _told(fault: GovernorError, code: int) -> typer.Exit:
    typer.echo(str(fault), err=True)
    return typer.Exit(code)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    where = Column("where", overflow="fold")
    table = Table("model", "MB", "state", "digest", "licence", where, box=None, pad_edge=False)
    for row in rows:
        size = f"{row['bytes'] / 1e6:,.0f}" if row["bytes"] else ""
        table.add_row(row["name"], size, row["state"], row["digest"], row["licence"] or "not stated", _where(row))
    Console().print(table)
    typer.echo(_LEGEND)


def _where(row: dict[str, Any]) -> str:
    return row["path"] or (f"governor models pull {row['name']}" if row["pullable"] else "")


@contextmanager
def _bar(name: str) -> Generator[Callable[[int, int | None], None], None, None]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=bar_console(console), transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"pulling {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
