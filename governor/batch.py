"""Many tasks through one governor: bounded concurrency, whole lines out, resumable after any end.

Beside `outcomes.jsonl` stand `outcomes.jsonl.journal` (what the models answered so far, so that a resumed task
goes on instead of paying again; removed when all is done) and, unless the policy names a store,
`outcomes.jsonl.ledger.db`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from governor.drivers import adrive
from governor.errors import MissingExtraError, Problem, TaskError, VerifierError
from governor.facade import Governor
from governor.records import Outcome
from governor.tasks import Task, outcome_line
from governor.telemetry.journal import Journal
from governor.telemetry.lines import LineFile

if TYPE_CHECKING:
    from governor.policy import Policy


def run_ledger(out: Path) -> str:
    """The store of a run whose policy names none: one file beside the outcomes."""
    return f"sqlite:///{out.absolute()}.ledger.db"


def check_tasks(policy: Policy, tasks: Sequence[Task], path: Path) -> None:
    """Raise TaskError for the first task whose verifier can't be had here (an extra, a sandbox, a module of one's own).

    Calls no model; `path` is where the tasks were read.
    """
    with Governor(policy) as governor:
        for task in tasks:
            try:
                governor.verifier(task.step, governor.terms(task.step))
            except (MissingExtraError, VerifierError) as absent:
                raise TaskError(Problem(str(absent), str(path), field=f"task '{task.id}'")) from None


class OutcomeFile:
    """The output of a run: one whole line an outcome, one process at a time. Raises RecordError, TaskError."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path, exclusive=True)
        try:
            self.done = frozenset(_id(path, number, line) for number, line in enumerate(self._file.lines(), 1))
        except BaseException:
            self._file.close()
            raise

    def append(self, outcome: Outcome) -> None:
        """Add an outcome; on the disk when this returns."""
        line = json.dumps(outcome_line(outcome), ensure_ascii=False)
        # Half a surrogate pair, which a cut reply may end with, becomes the JSON escape that it came from.
        self._file.append(line.encode(errors="backslashreplace"), durable=True)

    def __enter__(self) -> OutcomeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _id(path: Path, number: int, line: bytes) -> str:
    try:
        outcome = json.loads(line)
        found, _ = str(outcome["id"]), outcome["status"]
    except (ValueError, KeyError, TypeError):
        hint = "remove that line, or name another --out"
        raise TaskError(Problem("not an outcome line", str(path), number, 0, "", hint)) from None
    return found


async def run_batch(
    governor: Governor,
    tasks: Sequence[Task],
    out: OutcomeFile,
    journal: Journal,
    *,
    concurrency: int,
    finished: Callable[[Task, Outcome], None],
) -> None:
    """Run every task that has no outcome yet; `finished` is told of each. The first failure ends them all."""
    gate = asyncio.Semaphore(concurrency)

    async def one(task: Task) -> None:
        async with gate:
            perform = journal.performer(task.id, governor.async_ports().perform)
            outcome = await adrive(governor.process(task.step), perform)
            out.append(outcome)
            journal.finish(task.id)
            finished(task, outcome)

    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                if task.id not in out.done:
                    group.create_task(one(task))
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
