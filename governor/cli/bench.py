"""`governor bench LADDERS...`: a suite of ladders replayed, and one table of what came of it.

Exit codes as of `governor replay`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.errors import RecordError

if TYPE_CHECKING:
    from governor.learn.report import Report


def bench(
    ladders: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Ladder files.")],
    seeds: Annotated[int, typer.Option(min=1, help="Fold seeds of each; figures are medians.")] = 1,
    rules: Annotated[bool, typer.Option("--rules", help="Forecast by the fixed rules; fit nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=2, help="Processes; nothing but the time depends on it.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay a suite of ladders and write one table.

    Each line sets the governor beside random mixing of fixed rungs and a TF-IDF router on the same folds.

    Example: governor bench ladders/*.json --seeds 5 -o table.md
    """
    from governor.cli.replay import replayed
    from governor.learn.suite import Request
    from governor.learn.summary import markdown, summary, usual_measures

    rows: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    for ladder in ladders:
        asked = Request(ladder=ladder, rules=rules, methods=("tfidf", "governor"))
        found: Report = replayed(asked, seeds, jobs, timings=False, quiet=as_json)
        rows.append((summary(found.ladder.name, found), usual_measures(found)))
    table = markdown(rows)
    if out is not None:
        _write(table, out)
    if as_json:
        typer.echo(json.dumps({"ladders": [found for found, _ in rows]}, ensure_ascii=False))
    elif out is None:
        typer.echo(table, nl=False)


def _write(table: str, out: Path) -> None:
    try:
        out.write_text(table, encoding="utf-8")
    except OSError as fault:
        raise RecordError(f"{out}: can't be written: {fault.strerror or fault}") from fault
