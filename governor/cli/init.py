"""`governor init`: a starter policy in the current folder, with the schema that lets editors help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from governor.cli.schema import write_schema
from governor.errors import PolicyError, Problem

POLICY, SCHEMA = "policy.yaml", "policy.schema.json"


def starter(base: str, app: str) -> str:
    """The text of the shipped policy `base` for the application `app`; PolicyError where there is none."""
    from governor.policy.finding import suggestion
    from governor.policy.shipped import shipped_names, shipped_path

    path = shipped_path(base)
    if path is None:
        message = f"no shipped policy is called '{base}'"
        raise PolicyError([Problem(message, hint=suggestion(base, shipped_names()))])
    return re.sub(r"^app: .*$", f"app: {app}", path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)


def app_name(folder: Path) -> str:
    """A folder's name as an application's: `My Agent!` becomes `My-Agent`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64]
    return name or "my-app"


def write_starter(folder: Path, *, base: str = "balanced", force: bool = False) -> list[Path]:
    """Write the policy and its schema into `folder`: the paths written.

    Raises PolicyError for an unknown base, FileExistsError naming the file that `force` would overwrite;
    nothing has been written then.
    """
    text = starter(base, app_name(folder))
    policy, schema = folder / POLICY, folder / SCHEMA
    if policy.exists() and not force:
        raise FileExistsError(policy)
    write_schema(schema)
    policy.write_text(text, encoding="utf-8")
    return [policy, schema]


def init(
    base: Annotated[str, typer.Option("--from", help="The shipped policy to start from.")] = "balanced",
    force: Annotated[bool, typer.Option("--force", help="Overwrite policy.yaml.")] = False,
) -> None:
    """Write a starter policy.yaml here.

    Commented, and with policy.schema.json beside it, which gives editors completion.

    Example: governor init --from support-desk
    """
    try:
        written = write_starter(Path(), base=base, force=force)
    except FileExistsError as cause:
        typer.echo(f"{cause}: exists already (overwrite it with --force)", err=True)
        raise typer.Exit(2) from cause
    except PolicyError as cause:
        typer.echo(str(cause), err=True)
        raise typer.Exit(2) from cause
    except OSError as cause:
        typer.echo(f"{cause.filename}: can't be written: {cause.strerror}", err=True)
        raise typer.Exit(2) from cause
    typer.echo(f"wrote {' and '.join(map(str, written))}; check it with: governor check {POLICY}")
