"""`governor explain POLICY PROMPT`: forecast, index and reason for a step; no model is called."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from governor.facade import Explanation


def explain(
    policy: Annotated[str, typer.Argument(help="Policy file, or the name of a shipped policy.")],
    prompt: Annotated[str, typer.Argument(help="The step's prompt; '-' reads standard input.")],
    node: Annotated[str, typer.Option(help="Graph node the step belongs to.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what Governor would do with a step, and why.

    Difficulty, forecast and index of every rung, and the decision; no model is called.

    Example: governor explain balanced "Is 91 a prime?" --node solve
    """
    from governor.facade import Governor

    text = sys.stdin.read() if prompt == "-" else prompt
    with Governor.from_policy(policy) as governor:
        found = governor.explain(text, node=node)
    typer.echo(json.dumps(found.record, ensure_ascii=False)) if as_json else _show(found)


def _show(found: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    record = found.record
    console = Console()
    console.print(f"difficulty  {record['difficulty']:.2f}  ({'; '.join(found.reasons) or 'nothing stands out'})")
    console.print(f"matched     {found.terms.reason}")
    told = record["verifier"]
    rates = f"accepts {told['sensitivity']:.0%} of right, {told['false_accept']:.0%} of wrong answers"
    measured = f" (measured on {told['verdicts']} verdicts)" if told["verdicts"] else ""
    console.print(f"verifier    {told['name']}  {rates}{measured}")
    table = Table(box=None, pad_edge=False)
    for title in ("rung", "P(correct)", "P(accept)", "tokens", "cost", "seconds", "index"):
        table.add_column(title, justify="left" if title == "rung" else "right")
    for forecast in found.plan.forecasts:
        chosen = "-> " if forecast.rung == record["rung"] else "   "
        table.add_row(
            f"{chosen}{forecast.rung}",
            f"{forecast.p_success:.2f}",
            f"{forecast.p_accept:.2f}",
            f"{forecast.output_tokens:.0f}",
            f"${forecast.micros / 1e6:.6f}",
            f"{forecast.seconds:.1f}",
            f"{forecast.index:+.3f}",
        )
    console.print(table)
    console.print(f"decision    {record['rung'] or 'stop'}: {record['reason']}")
