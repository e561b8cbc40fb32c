"""`governor export RECORDS... -o FILE`: verified replies as data to distil a smaller model from."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.errors import GovernorError, Problem

if TYPE_CHECKING:
    from governor.learn.schema import Row

SHOWN = 20
"""Bad rows told one by one; the rest are counted."""

SECONDS = 2.0
"""What takes longer shows how far it is."""


class Format(StrEnum):
    """How a trace is written."""

    CHAT = "chat"


def export(
    records: Annotated[list[Path], typer.Argument(help="Recorded outcomes or decision records; JSONL or Parquet.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data set; one JSON object a line.")],
    teacher: Annotated[
        list[str] | None, typer.Option(help="A rung to learn from; repeat it for more (else all).")
    ] = None,
    layout: Annotated[
        Format, typer.Option("--format", help="chat: messages, as TRL's SFTTrainer takes.")
    ] = Format.CHAT,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a bad row instead of skipping it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, no progress.")] = False,
) -> None:
    """Write the shortest verified reply per prompt and teacher rung.

    Only replies that are labelled correct or that a verifier accepted, whole and in answer to the prompt itself.
    The records must hold texts: records: {prompts: true, answers: true} in the policy.

    Example: governor export records.jsonl -o traces.jsonl --teacher deep
    """
    from governor.learn.export import chat_lines, shortest_correct, write_whole
    from governor.learn.rows import read_rows

    bad = BadRows()
    with _refusals(), _progress(quiet=as_json) as counted:
        rows = counted(read_rows(records, strict=strict, on_bad=bad.tell))
        found = shortest_correct(rows, teacher or ())
        lines = {Format.CHAT: chat_lines}[layout]
        written = write_whole(out, lines(found.traces), records)
    bad.close()
    teachers = Counter(trace.rung for trace in found.traces)
    if as_json:
        summary = {"out": str(out), "traces": written, "teachers": dict(sorted(teachers.items()))}
        typer.echo(json.dumps(summary | {"rows": found.rows, "bad_rows": bad.count, "skipped": dict(found.skipped)}))
        return
    typer.echo(f"{out}: {written} traces of {found.rows} rows ({_counts(teachers.items())})")
    if found.skipped:
        typer.echo(f"left out: {_counts(found.skipped.items())}")


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


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts))


@contextmanager
def _refusals() -> Generator[None, None, None]:
    """Nothing is half-written, so whatever is wrong is bad input: one line, exit code 2."""
    try:
        yield
    except GovernorError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from fault


@contextmanager
def _progress(*, quiet: bool) -> Generator[Callable[[Iterator[Row]], Iterator[Row]], None, None]:
    """A wrapper of rows that shows on a terminal how many were read, where that takes long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=None, visible=False)
        begun = time.monotonic()

        def counted(rows: Iterator[Row]) -> Iterator[Row]:
            for number, row in enumerate(rows, 1):
                if number % 1000 == 0:
                    progress.update(task, completed=number, visible=time.monotonic() - begun > SECONDS)
                yield row

        yield counted
