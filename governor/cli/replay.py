"""`governor replay [RECORDS]... --ladder LADDER.json`: what the governor would have made of recorded outcomes.

Exit codes: 0 done, 1 the records can't be replayed, 2 wrong usage, a wrong ladder or policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.bar import bar_console
from governor.errors import RecordError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from governor.learn.report import Report
    from governor.learn.suite import Request


WIDTH = 110
"""Columns of the widest table: a terminal or a pipe that has fewer wraps lines, never cells."""


def replay(
    ladder: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Ladder file: rungs, costs, verifier.")],
    records: Annotated[
        list[Path] | None, typer.Argument(exists=True, dir_okay=False, help="Recorded outcomes (else the ladder's).")
    ] = None,
    verifier: Annotated[
        str | None, typer.Option(help="none, perfect, SENS,FALSE, score:FIELD or agreement (else the ladder's).")
    ] = None,
    fit: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Fit on these records, test on all others.")
    ] = None,
    cv: Annotated[int, typer.Option(min=2, help="Folds: each is tested by a fit on the others.")] = 5,
    calibration: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Forecast by this, fitted elsewhere.")
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Forecast by the fixed rules; fit nothing.")] = False,
    group_by: Annotated[str | None, typer.Option(help="Field, or /REGEX/ on qid: never on both sides.")] = None,
    node_field: Annotated[str | None, typer.Option(help="The field that plays the graph node.")] = None,
    policy: Annotated[str | None, typer.Option(help="Harm, backtracks and dial of this policy.")] = None,
    dial: Annotated[float | None, typer.Option(min=0, max=1, help="One more dial, reported in detail.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fold seeds 0 to N - 1; figures are medians.")] = 1,
    shuffle_labels: Annotated[bool, typer.Option("--shuffle-labels", help="Deal labels to other questions.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=2, help="Processes; nothing but the time depends on it.")] = 1,
    timings: Annotated[bool, typer.Option("--timings", help="Fill in us_per_decision, which varies.")] = False,
    html: Annotated[Path | None, typer.Option(help="Draw the frontier into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay recorded outcomes through the governor's own loop.

    Accuracy and cost at 41 dials, beside fixed rungs, the usual routers, exact plans, and what hindsight allows; every
    question is decided by forecasts that never saw it.

    Example: governor replay --ladder ladders/mine.json --cv 5 --html frontier.html
    """
    from governor.learn.suite import Request

    if sum((bool(fit), calibration is not None, rules)) > 1:
        raise typer.BadParameter("--fit, --calibration and --rules exclude each other")
    asked = Request(
        ladder=ladder,
        records=tuple(records or ()),
        verifier=verifier,
        fit=tuple(fit or ()),
        calibration=calibration,
        rules=rules,
        folds=cv,
        group_by=group_by,
        node_field=node_field,
        policy=policy,
        dial=dial,
        shuffle=shuffle_labels,
    )
    found = replayed(asked, seeds, jobs, timings=timings, quiet=as_json)
    if html is not None:
        _draw(found, html)
    if as_json:
        from governor.learn.written import as_record

        typer.echo(json.dumps(as_record(found), ensure_ascii=False))
    else:
        from rich.console import Console

        show(found, Console(width=max(Console().width, WIDTH)))


def replayed(asked: Request, seeds: int, jobs: int, *, timings: bool, quiet: bool) -> Report:
    """The report, with a bar on the terminal meanwhile."""
    from governor.checks import policy_checks
    from governor.learn import suite

    trial = asked.trial(policy_checks())
    with progress(seeds * len(trial.table.qids), quiet=quiet) as advance:
        return suite.replay(trial, range(seeds), jobs=jobs, timings=timings, advance=advance)


@contextmanager
def progress(total: int, *, quiet: bool) -> Generator[Callable[[int], None], None, None]:
    """A bar on a terminal's standard error; `quiet`: nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = TextColumn("questions"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=bar_console(console), transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("questions", total=total)
        yield lambda done: bar.advance(task, done)


def show(found: Report, console: Console) -> None:
    """What was replayed, the fixed rungs, and every method, a row each."""
    from governor.learn.written import caption, in_detail

    console.print(f"{found.ladder.name}: {caption(found)}", soft_wrap=True, highlight=False, markup=False)
    console.print(_rungs(found))
    console.print(_methods(found))
    if found.detail is not None:
        console.print(in_detail(found.detail), soft_wrap=True, highlight=False, markup=False)


def _rungs(found: Report) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    right = [Column(title, justify="right") for title in (f"cost ({found.ladder.unit})", "correct")]
    table = Table(Column("fixed rung", overflow="fold"), *right, box=None, pad_edge=False)
    best = found.rungs.rungs[found.rungs.best]
    for name, cost, accuracy in zip(found.rungs.rungs, found.rungs.cost, found.rungs.accuracy, strict=True):
        table.add_row(escape(f"{name} (best)" if name == best else name), f"{cost:.4g}", f"{accuracy:.3f}")
    return table


def _methods(found: Report) -> Table:
    from rich.table import Column, Table

    from governor.learn.written import rows

    told = rows(found)
    titles = list(dict.fromkeys(title for row in told.values() for title in row))
    table = Table(
        "method", *(Column(title, justify="right", no_wrap=True) for title in titles), box=None, pad_edge=False
    )
    for name, row in told.items():
        table.add_row(name, *(row[title] for title in titles))
    return table


def _draw(found: Report, path: Path) -> None:
    from governor.learn.chart import page
    from governor.learn.written import chart

    try:
        path.write_text(page(chart(found)), encoding="utf-8")
    except OSError as fault:
        raise RecordError(f"{path}: can't be written: {fault.strerror or fault}") from fault
