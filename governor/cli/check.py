"""`governor check`: is this policy right, and if not, where and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from governor.policy import Check, Inspection, Policy
    from governor.records import Rung

BAD_POLICY = 2
"""Exit code where a policy can't be used."""

Report: TypeAlias = "dict[str, Inspection]"
"""What was found, by the policy's name as it was given."""


def check_policies(sources: Iterable[str], checks: Sequence[Check] = ()) -> Report:
    """Inspect every policy; a source is a file or the name of a shipped policy."""
    from governor.policy import inspect_policy

    return {source: inspect_policy(source, checks) for source in sources}


def exit_code(report: Report) -> int:
    """0 where every policy can be used, else 2."""
    return 0 if all(found.policy is not None for found in report.values()) else BAD_POLICY


def show(report: Report, console: Console) -> None:
    """Print mistakes and doubts one a line, and the ladder of every policy that can be used."""
    for source, found in report.items():
        for problem in found.problems:
            _line(console, str(problem))
        for warning in found.warnings:
            _line(console, f"{warning} [warning]")
        if found.policy is None:
            _line(console, f"{source}: {_count(len(found.problems), 'mistake')}")
        else:
            _line(console, f"{source}: ok, {_summary(found.policy)}")
            console.print(ladder_table(found.policy))


def as_json(report: Report) -> str:
    """One JSON object: `ok`, and per policy its problems, warnings, digest and ladder."""
    policies = [_entry(source, found) for source, found in report.items()]
    return json.dumps({"ok": exit_code(report) == 0, "policies": policies})


def ladder_table(policy: Policy) -> Table:
    """The rungs of a policy, cheapest first, with what limits and costs each."""
    from rich.table import Column, Table

    table = Table("rung", Column("model", overflow="fold"), "effort", box=None, pad_edge=False)
    for title in ("think", "answer", "samples", "seconds", "USD/M in/out"):
        table.add_column(title, justify="right", no_wrap=True)
    for rung in policy.rungs.values():
        table.add_row(*_cells(rung))
    return table


def command(checks: Callable[[], Sequence[Check]] = tuple) -> Callable[..., None]:
    """The command for the typer app. `checks` gives the cross-checks of other parts once they are needed."""

    def check(
        policy: Annotated[list[str], typer.Argument(help="Policy files, or names of shipped policies.")],
        as_data: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    ) -> None:
        """Check policies: each mistake, where it is, how to mend it.

        Exit code 2 where there is a mistake. Warnings (rungs that end as the same request, thinking budgets that
        are not hard) leave it at 0.

        Example: governor check policy.yaml
        """
        from rich.console import Console

        report = check_policies(policy, checks())
        if as_data:
            typer.echo(as_json(report))
        else:
            show(report, Console())
        raise typer.Exit(exit_code(report))

    return check


def _cells(rung: Rung) -> tuple[str, ...]:
    numbers = (rung.thinking_tokens, rung.answer_tokens, rung.samples)
    price = f"{rung.price.input:g}/{rung.price.output:g}"
    return (rung.id, rung.model, rung.effort or "-", *map(str, numbers), f"{rung.timeout:g}", price)


def _summary(policy: Policy) -> str:
    mode = policy.mode if isinstance(policy.mode, str) else f"canary {policy.mode.canary:g}"
    rules = _count(len(policy.steps), "rule")
    return f"app {policy.app}, mode {mode}, {_aim(policy)}, {rules}, digest {policy.digest[:12]}"


def _aim(policy: Policy) -> str:
    if policy.keep is not None:
        return f"keep {policy.keep:g}"
    from governor.policy.match import DEFAULT_DIAL

    return f"dial {DEFAULT_DIAL:g} (default)" if policy.dial is None else f"dial {policy.dial:g}"


def _entry(source: str, found: Inspection) -> dict[str, Any]:
    policy = found.policy
    return {
        "policy": source,
        "ok": policy is not None,
        "problems": [asdict(problem) for problem in found.problems],
        "warnings": [asdict(warning) for warning in found.warnings],
        "digest": policy.digest if policy else None,
        "ladder": [asdict(rung) for rung in policy.rungs.values()] if policy else [],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _line(console: Console, text: str) -> None:
    """A line as it is: no markup, no colours in paths, no folding, so that editors can read it."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, emoji=False)
