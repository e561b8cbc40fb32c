"""`governor report RECORDS...`: what governed sessions came to beside others, or what shadow steps promise to save.

Exit codes: 0 done, 2 wrong usage, or records without an outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.reading import refusals
from governor.errors import RecordError

if TYPE_CHECKING:
    from rich.table import Table

    from governor.learn.arms import Figure, Promise, Rollout, Told

_MEANS = (
    ("micros", "USD per 1,000 steps", 1e3),
    ("output_tokens", "output tokens a step", 1),
    ("seconds", "seconds a step", 1),
)
_SHARES = (("accepted", "judged", "accepted, of those judged"), ("unanswered", "steps", "without an answer"))


class By(StrEnum):
    """What may have a report of its own."""

    APP = "app"
    NODE = "node"


def report(
    records: Annotated[list[Path], typer.Argument(help="Record files (JSON lines, .gz too).")],
    by: Annotated[By | None, typer.Option(help="Report each application or node by itself, too.")] = None,
    since: Annotated[str | None, typer.Option(help="Leave out records of before this moment (RFC 3339).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare the arms of a canary, or say what shadow mode promises.

    Under `mode: {canary: SHARE}` governed sessions are compared with the others: money, tokens, seconds and accepted
    answers, with 95 % intervals over sessions. Under `mode: shadow` it says what was forecast to be saved.

    Example: governor report records.jsonl --by node
    """
    from governor.cli.budget_audit import moment_of, outcomes_in
    from governor.learn.arms import rollouts

    begin = moment_of(since)
    with refusals():
        told = rollouts(outcomes_in(records, begin), by)
        if not any(group.arms for group in told.groups.values()):
            raise RecordError(f"{', '.join(map(str, records))}: no step to report on: {_left_out(told)}")
    if as_json:
        typer.echo(json.dumps(as_record(told), ensure_ascii=False))
    else:
        _print(told)


def as_record(told: Told) -> dict[str, Any]:
    """Everything that was found, as plain data; `null` where a figure can't be told."""
    return {"groups": {name: _group(one) for name, one in told.groups.items()}, "left_out": dict(told.left_out)}


def _group(rollout: Rollout) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: {"sessions": len(arm.sessions), "steps": int(arm.total("steps"))}
        | {key: _plain(arm.per(key)) for key, _, _ in _MEANS}
        | {key: _plain(arm.share(key, base)) for key, base, _ in _SHARES}
        for name, arm in rollout.arms.items()
    }
    compared = {key: _plain(rollout.saved(key)) for key, _, _ in _MEANS}
    gained = {key: _plain(rollout.gained(key, base)) for key, base, _ in _SHARES if _may(rollout, key)}
    return {
        "arms": told,
        "saved": compared,
        "gained": {"accepted": None} | gained,
        "promise": asdict(rollout.promise) if rollout.promise.steps else None,
    }


def _may(rollout: Rollout, key: str) -> bool:
    return key != "accepted" or rollout.comparable


def _plain(figure: Figure | None) -> dict[str, float | None] | None:
    return None if figure is None else asdict(figure)


def _print(told: Told) -> None:
    from governor.cli.budget_table import console

    out = console()
    for name, rollout in told.groups.items():
        if rollout.arms:
            out.print(name or "all steps", style="bold", markup=False, highlight=False)
            out.print(_table(rollout))
            for line in _remarks(rollout):
                out.print(line, markup=False, highlight=False, soft_wrap=True)
            out.print()
    if told.left_out:
        out.print(f"left out: {_left_out(told)}", markup=False, highlight=False, soft_wrap=True)


def _left_out(told: Told) -> str:
    return ", ".join(f"{count} {why}" for why, count in told.left_out.items()) or "there is none"


def _table(rollout: Rollout) -> Table:
    """A line for each figure, a column for each arm, and what governed ones saved or gained over control."""
    from rich.table import Column, Table

    both = {"governed", "control"} <= rollout.arms.keys()
    names = [*rollout.arms, *(["governed over control"] if both else [])]
    table = Table("", *(Column(name, justify="right", no_wrap=True) for name in names), box=None, pad_edge=False)
    table.add_row("sessions", *(f"{len(arm.sessions):,}" for arm in rollout.arms.values()))
    table.add_row("steps", *(f"{arm.total('steps'):,.0f}" for arm in rollout.arms.values()))
    for key, title, unit in _MEANS:
        means = (_told(arm.per(key), 1 / unit, ".4g") for arm in rollout.arms.values())
        table.add_row(title, *means, *([_told(rollout.saved(key), 100, ".1f", " % saved")] if both else []))
    for key, base, title in _SHARES:
        shares = (_told(arm.share(key, base), 100, ".1f", " %") for arm in rollout.arms.values())
        gained = rollout.gained(key, base) if _may(rollout, key) else None
        table.add_row(title, *shares, *([_told(gained, 100, "+.1f", " points")] if both else []))
    return table


def _told(figure: Figure | None, scale: float, form: str, unit: str = "") -> str:
    if figure is None:
        return "-"
    value = f"{figure.value * scale:{form}}{unit}"
    if figure.interval is None:
        return value
    low, high = (end * scale for end in figure.interval)
    return f"{value} ({low:{form}} to {high:{form}})"


def _remarks(rollout: Rollout) -> Iterator[str]:
    from governor.learn.arms import LEAST_SESSIONS

    if any(len(arm.sessions) < LEAST_SESSIONS for arm in rollout.arms.values()):
        yield f"No interval where there are fewer than {LEAST_SESSIONS} sessions."
    if {"governed", "control"} <= rollout.arms.keys() and not rollout.comparable:
        yield "Accepted shares are not compared: other verifiers judged the control arm (none that cost money)."
    if rollout.promise.steps:
        yield from _promised(rollout.promise)


def _promised(promise: Promise) -> Iterator[str]:
    yield f"Forecast for {promise.steps:,} shadow steps, not measured:"
    if promise.baseline:
        saved = 1.0 - promise.governed / promise.baseline
        yield f"  {saved:.1%} of the baseline's cost saved, where the baseline is paid after every rejected answer"
    if promise.measured:
        yield f"  the baseline was forecast at {promise.baseline / promise.measured:.2f} times what it really cost"
    if answered := promise.steps - promise.refused:
        first, baseline = promise.first_right / answered, promise.baseline_right / promise.steps
        yield f"  first answers right: {first:.1%} in {answered:,} steps; the baseline's: {baseline:.1%}"
    if promise.refused:
        yield f"  {promise.refused:,} steps refused, or ended without a call"
