"""`governor schema`: the JSON Schema of policy files, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def write_schema(path: Path) -> None:
    """Write the schema to `path`; OSError where that can't be done."""
    from governor.policy.json_schema import schema_text

    path.write_text(schema_text(), encoding="utf-8")


def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of policy files.

    Example: governor schema --out policy.schema.json
    """
    from governor.policy.json_schema import schema_text

    if out is None:
        typer.echo(schema_text(), nl=False)
        return
    try:
        write_schema(out)
    except OSError as cause:
        typer.echo(f"{out}: can't be written: {cause.strerror}", err=True)
        raise typer.Exit(2) from cause
    typer.echo(f"wrote {out}")
