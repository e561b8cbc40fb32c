"""`governor bench LADDERS...`: a suite of ladders replayed, and one table of what came of it; or `--live`, real calls.

Exit codes as of `governor replay`; `--live`: 1 where steps failed (the table is written all the same), 2 bad input.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.bar import bar_console
from governor.errors import RecordError

if TYPE_CHECKING:
    from governor.learn.report import Report


def bench(
    ladders: Annotated[list[Path] | None, typer.Argument(exists=True, dir_okay=False, help="Ladder files.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fold seeds of each; figures are medians.")] = 1,
    rules: Annotated[bool, typer.Option("--rules", help="Forecast by the fixed rules; fit nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=2, help="Processes; nothing but the time depends on it.")] = 1,
    live: Annotated[str | None, typer.Option(help="A policy: call its models on --tasks instead.")] = None,
    tasks: Annotated[Path | None, typer.Option(help="Tasks as of 'governor run', with an 'expect' each.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay a suite of ladders, or run live tasks, into one table.

    Each line sets the governor beside random mixing of fixed rungs and a TF-IDF router on the same folds. --live POLICY
    --tasks FILE calls the policy's models: every task at every fixed rung and governed, with paired intervals.

    Example: governor bench ladders/*.json --seeds 5 -o table.md
    """
    if bool(ladders) == bool(live) or bool(live) != bool(tasks):
        raise typer.BadParameter("give either ladder files, or --live POLICY together with --tasks FILE")
    if live and tasks:
        _live(live, tasks, out, as_json=as_json)
        return
    from governor.cli.replay import replayed
    from governor.learn.suite import Request
    from governor.learn.summary import markdown, summary, usual_measures

    rows: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    for ladder in ladders or ():
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


def _live(policy: str, path: Path, out: Path | None, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from governor.backends import Backends, model_options
    from governor.cli.run import read
    from governor.contest import compared, contest, markdown

    rules, work = read(policy, path, None)
    console = Console(stderr=True, quiet=as_json)
    with (
        closing(Backends(model_options(rules))) as backend,
        Progress(console=bar_console(console), disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("calls", total=len(work) * (len(rules.rungs) + 1))
        found = contest(rules, work, backend, lambda: progress.advance(bar))
    if out is not None:
        _write(markdown(found), out)
    if as_json:
        best = found.arms[found.best]
        typer.echo(json.dumps({"tasks": len(work), "best_fixed": best, "arms": compared(found)}))
    elif out is None:
        typer.echo(markdown(found), nl=False)
    if any(found.failed):
        raise typer.Exit(1)


def _write(table: str, out: Path) -> None:
    try:
        out.write_text(table, encoding="utf-8")
    except OSError as fault:
        raise RecordError(f"{out}: can't be written: {fault.strerror or fault}") from fault
