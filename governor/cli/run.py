"""`governor run POLICY --input tasks.jsonl --out outcomes.jsonl`: a person's own tasks, resumable."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.bar import bar_console
from governor.errors import GovernorError

if TYPE_CHECKING:
    from governor.batch import OutcomeFile
    from governor.facade import Governor
    from governor.policy import Policy
    from governor.protocols import Sink
    from governor.records import Outcome
    from governor.tasks import Task
    from governor.telemetry.journal import Journal

_FAILED = ("error", "refused")


def run(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped policy.")],
    tasks: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="Tasks, one JSON object a line: id, prompt or messages; if wanted node, session, tools, schema, "
            "verify, state.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Outcomes, one JSON object a line; resumed if it exists.")],
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Tasks in flight at once.")] = 4,
    records: Annotated[Path | None, typer.Option(help="Also write a record line per attempt and outcome.")] = None,
    ledger: Annotated[
        str | None, typer.Option(help="Budget store, e.g. sqlite:///b.db (else the policy's, else OUT.ledger.db).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed sent with each call.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, no progress.")] = False,
) -> None:
    """Run tasks under a policy and write their outcomes.

    Stopped in any way, even by kill -9, the same command goes on where it was: finished tasks are kept,
    answers already paid for are used, and nothing is booked twice. Exit code 1 where a task ended without an
    answer, as error or refused.

    Example: governor run balanced --input tasks.jsonl --out outcomes.jsonl
    """
    import asyncio

    from governor.batch import run_batch

    with ExitStack() as open_files:
        with _refusals():
            rules, work = read(policy, tasks, seed)
            job = open_files.enter_context(_job(rules, out, ledger, records))
        earlier = sum(task.id in job.written.done for task in work)
        show = open_files.enter_context(_progress(len(work), earlier, quiet=as_json))
        counts: Counter[str] = Counter()

        def finished(task: Task, outcome: Outcome) -> None:
            counts[outcome.status] += 1
            show(task, outcome)

        batch = run_batch(job.governor, work, job.written, job.journal, concurrency=concurrency, finished=finished)
        try:
            asyncio.run(batch)
        except KeyboardInterrupt:
            typer.echo("the same command goes on from here", err=True)
            raise
        job.journal_path.unlink()  # every task has its outcome: nothing is left to resume
    summary = {"tasks": len(work), "done_earlier": earlier, **counts}
    typer.echo(json.dumps(summary) if as_json else ", ".join(f"{name} {count}" for name, count in summary.items()))
    if any(counts[status] for status in _FAILED):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a run holds open."""

    governor: Governor
    written: OutcomeFile
    journal: Journal
    journal_path: Path


@contextmanager
def _refusals() -> Generator[None, None, None]:
    """Until the first task begins, whatever is wrong is bad input: one line, exit code 2."""
    try:
        yield
    except GovernorError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from fault


def read(policy: str, path: Path, seed: int | None) -> tuple[Policy, Sequence[Task]]:
    """Policy and tasks, all of which can be run here as far as that can be told without calling a model."""
    from governor.batch import check_tasks
    from governor.checks import policy_checks, readiness
    from governor.policy import load_policy
    from governor.tasks import read_tasks

    rules = load_policy(policy, checks=policy_checks())
    work = read_tasks(path, seed=seed)
    load_policy(policy, checks=[readiness])
    check_tasks(rules, work, path)
    return rules, work


@contextmanager
def _job(rules: Policy, out: Path, ledger: str | None, records: Path | None) -> Generator[_Job, None, None]:
    """Open everything a run writes. Where one thing can't be had, none of the files that were made for it stay."""
    from governor.batch import OutcomeFile, run_ledger
    from governor.facade import Governor
    from governor.learning import deciding_digest
    from governor.ledger import open_ledger
    from governor.telemetry.journal import Journal

    beside = Path(f"{out}.journal"), Path(f"{out}.ledger.db")
    new = [path for path in (out, *beside, *([records] if records else ())) if not path.exists()]
    with ExitStack() as stack:
        written = stack.enter_context(OutcomeFile(out))
        try:
            journal = stack.enter_context(closing(Journal.open(beside[0], policy_digest=deciding_digest(rules))))
            sinks = [_sink(rules, records)] if records else []
            store = open_ledger(ledger or rules.ledger or run_ledger(out))
        except BaseException:
            for path in new:  # only now that the outcomes are ours alone: no other run can have made them
                path.unlink(missing_ok=True)
            raise
        governor = stack.enter_context(Governor(rules, ledger=store, sinks=sinks))
        yield _Job(governor, written, journal, beside[0])


def _sink(rules: Policy, path: Path) -> Sink:
    from governor.telemetry.records import JsonlSink

    kept = rules.records
    return JsonlSink(path, prompts=kept.prompts, answers=kept.answers, policy_digest=rules.digest, app=rules.app)


@contextmanager
def _progress(total: int, earlier: int, *, quiet: bool) -> Generator[Callable[[Task, Outcome], None], None, None]:
    """One line on standard error for each task that did not end well, and on a terminal a bar; `quiet`: nothing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = TextColumn("tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=bar_console(console), disable=not console.is_terminal) as progress:
        bar = progress.add_task("tasks", total=total, completed=earlier)

        def show(task: Task, outcome: Outcome) -> None:
            progress.advance(bar)
            if outcome.status in _FAILED:
                console.print(escape(f"{task.id}: {outcome.status}: {outcome.error}"), soft_wrap=True, highlight=False)

        yield show
