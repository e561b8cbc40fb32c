"""`governor run POLICY --input tasks.jsonl --out outcomes.jsonl`: a person's own tasks, resumable."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from governor.facade import Governor
    from governor.policy import Policy
    from governor.records import Outcome
    from governor.tasks import Task

_FAILED = ("error", "refused")


def run(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped policy.")],
    tasks: Annotated[Path, typer.Option("--input", "-i", help="Tasks, one JSON object a line.")],
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
    answers already paid for are used, and nothing is booked twice.

    Example: governor run balanced --input tasks.jsonl --out outcomes.jsonl
    """
    import asyncio

    from governor.batch import OutcomeFile, run_batch
    from governor.checks import policy_checks
    from governor.policy import load_policy
    from governor.tasks import read_tasks
    from governor.telemetry.journal import Journal

    rules = load_policy(policy, checks=policy_checks())
    work = read_tasks(tasks, seed=seed)
    counts: Counter[str] = Counter()
    with OutcomeFile(out) as written, _governor(rules, out, ledger, records) as governor:
        earlier = sum(task.id in written.done for task in work)
        journal_path = Path(f"{out}.journal")
        journal = Journal.open(journal_path, policy_digest=rules.digest)
        try:
            with _progress(len(work), earlier, quiet=as_json) as show:

                def finished(task: Task, outcome: Outcome) -> None:
                    counts[outcome.status] += 1
                    show(task, outcome)

                asyncio.run(run_batch(governor, work, written, journal, concurrency=concurrency, finished=finished))
        except KeyboardInterrupt:
            typer.echo("interrupted: the same command goes on from here", err=True)
            raise typer.Exit(130) from None
        finally:
            journal.close()
        journal_path.unlink()  # every task has its outcome: nothing is left to resume
    summary = {"tasks": len(work), "done_earlier": earlier, **counts}
    typer.echo(json.dumps(summary) if as_json else ", ".join(f"{name} {count}" for name, count in summary.items()))
    if any(counts[status] for status in _FAILED):
        raise typer.Exit(1)


def _governor(rules: Policy, out: Path, ledger: str | None, records: Path | None) -> Governor:
    from governor.batch import run_ledger
    from governor.facade import Governor
    from governor.ledger import open_ledger
    from governor.telemetry.records import JsonlSink

    store = open_ledger(ledger or rules.ledger or run_ledger(out))
    if records is None:
        return Governor(rules, ledger=store)
    kept = rules.records
    sink = JsonlSink(records, prompts=kept.prompts, answers=kept.answers, policy_digest=rules.digest, app=rules.app)
    return Governor(rules, ledger=store, sinks=[sink])


@contextmanager
def _progress(total: int, earlier: int, *, quiet: bool) -> Generator[Callable[[Task, Outcome], None], None, None]:
    """A bar on standard error, and one line a task that did not end well; with `quiet` nothing at all."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = TextColumn("tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("tasks", total=total, completed=earlier)

        def show(task: Task, outcome: Outcome) -> None:
            progress.advance(bar)
            if outcome.status in _FAILED:
                console.print(escape(f"{task.id}: {outcome.status}: {outcome.error}"), soft_wrap=True, highlight=False)

        yield show
