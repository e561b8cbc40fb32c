"""`governor export RECORDS... -o FILE`: verified replies as data to distil a smaller model from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from governor.cli.reading import BadRows, progress, refusals


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
    with refusals(), progress(quiet=as_json) as counted:
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


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts))
