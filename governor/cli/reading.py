"""Reading files of rows for a command: bad rows are told, progress is shown, what is wrong is one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from governor.cli.bar import bar_console
from governor.errors import GovernorError, Problem

if TYPE_CHECKING:
    from governor.learn.schema import Row

SHOWN = 20
"""Lines told one by one; the rest are counted."""

SECONDS = 2.0
"""What takes longer shows how far it is."""


def tell(lines: Sequence[str], more: str, *, err: bool = True) -> None:
    """The first lines one by one, and how many there are beside them, which `more` puts into words ({})."""
    for line in lines[:SHOWN]:
        typer.echo(line, err=err)
    if len(lines) > SHOWN:
        typer.echo(more.format(len(lines) - SHOWN), err=err)


class BadRows:
    """Tells of bad rows on standard error, the first ones one by one."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, problem: Problem) -> None:
        self.count += 1
        if self.count <= SHOWN:
            typer.echo(f"{problem} [skipped]", err=True)

    def close(self) -> None:
        if self.count > SHOWN:
            typer.echo(f"{self.count - SHOWN} more bad rows were skipped", err=True)


@contextmanager
def refusals() -> Generator[None, None, None]:
    """Nothing is half-written, so whatever is wrong is bad input: one line, exit code 2."""
    try:
        yield
    except GovernorError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from fault


@contextmanager
def progress(*, quiet: bool) -> Generator[Callable[[Iterator[Row]], Iterator[Row]], None, None]:
    """A wrapper of rows that shows on a terminal how many were read, where that takes long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*columns, console=bar_console(console), transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("rows", total=None, visible=False)
        begun = time.monotonic()

        def counted(rows: Iterator[Row]) -> Iterator[Row]:
            for number, row in enumerate(rows, 1):
                if number % 1000 == 0:
                    shown.update(task, completed=number, visible=time.monotonic() - begun > SECONDS)
                yield row

        yield counted
