"""`governor serve`: vLLM with what Governor needs of it. Prints the command, then becomes it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any

import typer

USAGE = 2

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Whatever is no option of ours is one of vLLM's."""


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model's name or folder, as `vllm serve` takes it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and stop.")] = False,
) -> None:
    """Serve a model with vLLM so that Governor can steer it.

    Prints the exact `vllm serve` command (Governor's logits processor, the parsers of the model's family, priority
    scheduling) and runs it. All other options go to vLLM, which wins where it states the same. Exit codes: vLLM's
    own; 2 without a vLLM.

    Example: governor serve Qwen/Qwen3-8B --port 8000
    """
    launching = import_module("governor_vllm.launch")
    program = launching.program() or ("vllm" if dry_run else None)
    if program is None:
        typer.echo("no vllm command here: pip install 'vllm>=0.32' (or --dry-run to see what would be run)", err=True)
        raise typer.Exit(USAGE)
    started: Any = launching.launch(model, context.args, program=program)
    for note in started.notes:
        typer.echo(note, err=True)
    typer.echo(str(started))
    if not dry_run:
        _become(started.command, {**os.environ, **started.environment})


def _become(command: tuple[str, ...], environment: dict[str, str]) -> None:
    """Replace this process, so that signals and exit codes are vLLM's own."""
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - the user's own command, argument by argument
    except OSError as fault:
        typer.echo(f"{command[0]}: can't be run: {fault.strerror}", err=True)
        raise typer.Exit(USAGE) from fault
