"""`governor fit RECORDS... -o FILE`: forecasts learned from recorded outcomes, and what they are worth.

With `--stops`, thresholds of stop rules instead (`governor.cli.fit_stops`). Exit codes: 0 written, 1 the file could not
be written, or no threshold be certified, 2 wrong usage, or records that tell nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.bar import bar_console
from governor.cli.fit_stops import Asked, fit_stops
from governor.cli.reading import BadRows, progress, refusals

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from governor.estimate.calibration import Calibration
    from governor.learn.ladder import Ladder
    from governor.learn.schema import Row
    from governor.learn.table import Table

SUFFIX = ".npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was written, and what of the records it does not know."""

    calibration: Calibration
    out: Path
    size: int
    seconds: float
    bad_rows: int
    few: Mapping[str, int]


def fit(
    records: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="Recorded outcomes or decision records; JSONL or Parquet."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to write; .npz is added [default: calibration.npz, or stops.yaml].",
            show_default=False,
        ),
    ] = None,
    ladder: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A ladder file (else all rungs found).")
    ] = None,
    node_field: Annotated[str | None, typer.Option(help="The field that plays the graph node.")] = None,
    group_by: Annotated[str | None, typer.Option(help="FIELD or /REGEX/ on qid: what is held out together.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the folds.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a bad row instead of skipping it.")] = False,
    deciles: Annotated[bool, typer.Option("--deciles", help="Print every decile's forecast and outcome.")] = False,
    stops: Annotated[bool, typer.Option("--stops", help="Fit thresholds of stop rules instead.")] = False,
    rule: Annotated[
        list[str] | None, typer.Option(help="With --stops: budget, margin, group, repeat, or a score's field.")
    ] = None,
    risk: Annotated[float, typer.Option(help="With --stops: how often a right answer may be lost.")] = 0.05,
    delta: Annotated[float, typer.Option(help="With --stops: how often that may be wrong.")] = 0.05,
    rung: Annotated[str | None, typer.Option(help="With --stops: whose replies, where several are recorded.")] = None,
    window: Annotated[int, typer.Option(help="With --stops: tokens of the group rule's window.")] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Learn forecasts of every rung from records.

    Needs the extra 'learn'. Prints what forecasts of held-out questions were worth, and where they know nothing. With
    --stops it finds when a thought may be ended instead, and needs no extra.

    Example: governor fit records.jsonl -o calibration
    """
    if seed < 0:
        raise typer.BadParameter(f"--seed must be 0 or more, is {seed}")
    if stops:
        asked = Asked(tuple(records), ladder, tuple(rule or ()), risk, delta, rung, window, seed, strict)
        if unfit := [name for name, given in (("--node-field", node_field), ("--group-by", group_by)) if given]:
            raise typer.BadParameter(f"{unfit[0]} says nothing to --stops")
        fit_stops(asked, out or Path("stops.yaml"), as_json=as_json)
        return
    target = _target(out or Path("calibration.npz"))
    begun = time.monotonic()
    bad = BadRows()
    with refusals():
        known, few = _ladder(records, ladder, strict=strict, quiet=as_json)
        table = _table(records, known, ladder is not None, node_field, group_by, strict=strict, quiet=as_json, bad=bad)
        bad.close()
        found = _fitted(table, known, seed, quiet=as_json)
    from governor.estimate.calibration import load_calibration, save_calibration

    save_calibration(found, target)
    done = Fitted(
        calibration=load_calibration(target),
        out=target,
        size=target.stat().st_size,
        seconds=time.monotonic() - begun,
        bad_rows=bad.count,
        few=few,
    )
    if as_json:
        typer.echo(json.dumps(as_record(done), ensure_ascii=False, allow_nan=False))
    else:
        _show(done, deciles=deciles)


def as_record(done: Fitted) -> dict[str, Any]:
    """Everything that was found as plain data; what is unknown is null."""
    known = done.calibration
    return {
        "out": str(done.out),
        "bytes": done.size,
        "seconds": round(done.seconds, 1),
        "digest": known.digest,
        "bad_rows": done.bad_rows,
        "left_out": dict(done.few),
        "verifier": {
            node: {"sensitivity": seen, "false_accept": passed, "verdicts": count}
            for node, (seen, passed, count) in known.rates.items()
        },
        **known.report,
    }


def _target(out: Path) -> Path:
    target = out if out.suffix == SUFFIX else out.with_name(f"{out.name}{SUFFIX}")
    if not target.parent.is_dir():
        raise typer.BadParameter(f"-o: there is no folder {target.parent}")
    return target


def _ladder(records: list[Path], file: Path | None, *, strict: bool, quiet: bool) -> tuple[Ladder, Mapping[str, int]]:
    """The ladder asked for, or that of the rungs found in a first pass; and rungs with too few outcomes."""
    from governor.learn.discovery import discover
    from governor.learn.fit import FEWEST
    from governor.learn.ladder import load_ladder
    from governor.learn.rows import read_rows

    if file is not None:
        return replace(load_ladder(file), records=records[0]), {}
    with progress(quiet=quiet) as counted:
        rows = counted(read_rows(records, strict=strict, on_bad=lambda problem: None))  # the second pass tells of them
        found = discover(rows, records[0], FEWEST)
    return found.ladder, found.few


def _table(
    records: list[Path],
    ladder: Ladder,
    costed: bool,
    node_field: str | None,
    group_by: str | None,
    *,
    strict: bool,
    quiet: bool,
    bad: BadRows,
) -> Table:
    from governor.learn.rows import read_rows
    from governor.learn.tabulate import tabulate

    with progress(quiet=quiet) as counted:
        rows: Iterator[Row] = counted(read_rows(records, strict=strict, on_bad=bad.tell))
        return tabulate(rows, ladder, node_field=node_field, group_by=group_by, costed=costed)


def _fitted(table: Table, ladder: Ladder, seed: int, *, quiet: bool) -> Calibration:
    from governor.learn.fit import fit

    with _working(f"fitting {len(table.rungs)} rungs on {len(table.qids):,} questions", quiet=quiet):
        priced = bool(table.usable.any(axis=(0, 2)).all())  # what the dial means needs the cost of every rung
        return fit(table, ladder if priced else None, seed=seed)


@contextmanager
def _working(words: str, *, quiet: bool) -> Generator[None, None, None]:
    """A line with the time that has passed, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=bar_console(console), transient=True, disable=not console.is_terminal) as shown:
        shown.add_task(words, total=None)
        yield


def _show(done: Fitted, *, deciles: bool) -> None:
    from rich.console import Console

    known, report = done.calibration, done.calibration.report
    rungs = {rung: report["rungs"][rung] for rung in known.rungs}
    console = Console()
    console.print(_rungs(rungs))
    if deciles:
        console.print(_deciles(rungs))
    for line in (*_unknown(rungs), *_left_out(done), *_rates(known)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    summary = f"{done.out}: {report['questions']:,} questions, {done.size / 1e6:.2f} MB, {done.seconds:.1f} s"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)


def _rungs(rungs: Mapping[str, Any]) -> Shown:
    from rich.table import Table as Shown
    from rich.text import Text

    shown = Shown(title="Held-out forecasts (in brackets: ECE by chance alone, Brier of the base rate)", box=None)
    shown.add_column("rung", overflow="fold")
    for name in ("outcomes", "right", "ECE", "Brier", "tokens", "cut"):
        shown.add_column(name, justify="right", no_wrap=True)
    for rung, found in rungs.items():
        tokens, cut = found["median_tokens"], found["cut"]
        shown.add_row(
            Text(rung),
            f"{found['outcomes']:,}",
            f"{found['base_rate']:.2f}",
            f"{found['ece']:.3f} ({found['ece_by_chance']:.3f})",
            f"{found['brier']:.3f} ({found['brier_base_rate']:.3f})",
            "unknown" if tokens is None else f"{tokens:,.0f}",
            "" if cut is None else f"{cut:.0%}",
        )
    return shown


def _deciles(rungs: Mapping[str, Any]) -> Shown:
    from rich.table import Table as Shown
    from rich.text import Text

    shown = Shown(title="Reliability: forecast > share that was right, per decile", box=None)
    shown.add_column("rung", overflow="fold", max_width=24)
    shown.add_column("lowest forecasts first")
    for rung, found in rungs.items():
        pairs = (f"{forecast:.2f}>{seen:.2f}" for _, forecast, seen in found["deciles"])
        shown.add_row(Text(rung), "  ".join(pairs))
    return shown


def _unknown(rungs: Mapping[str, Any]) -> list[str]:
    blind = [rung for rung, found in rungs.items() if not found["known"]]
    long = [rung for rung, found in rungs.items() if found["median_tokens"] is None]
    return [
        *([f"texts tell nothing about {', '.join(blind)}: forecast is the base rate"] if blind else []),
        *([f"lengths of {', '.join(long)} are unknown: none recorded, or all cut"] if long else []),
    ]


def _left_out(done: Fitted) -> list[str]:
    if not done.few:
        return []
    return [f"left out for too few outcomes: {', '.join(f'{rung} ({count})' for rung, count in done.few.items())}"]


def _rates(known: Calibration) -> list[str]:
    return [
        f"verifier, {f'node {node}' if node else 'all nodes'}: accepts {seen:.0%} of right and {passed:.0%} of wrong "
        f"answers ({count:,} labelled verdicts)"
        for node, (seen, passed, count) in known.rates.items()
    ]
