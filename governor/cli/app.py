"""The command tree. What a command needs beyond its own module is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from governor import __version__
from governor.cli import (
    bench,
    budget,
    certify,
    check,
    demo,
    doctor,
    explain,
    export,
    fit,
    init,
    models,
    proxy,
    replay,
    report,
    run,
    schema,
    serve,
)

if TYPE_CHECKING:
    from governor.policy import Check

app = typer.Typer(
    name="governor",
    help="Decides how much a language model may think: difficulty, rung, call, verify, backtrack - in hard budgets.\n\n"
    "Example: governor init && governor check policy.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_models = typer.Typer(
    help="Pull and list the files of local models.\n\nExample: governor models pull smollm2-135m", no_args_is_help=True
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"governor {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself; typer shows the help text given above instead of this one."""


def _checks() -> Sequence[Check]:
    from governor.checks import policy_checks

    return policy_checks()


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("check")(check.command(_checks))
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("replay")(replay.replay)
app.command("fit")(fit.fit)
app.command("certify")(certify.certify)
app.command("report")(report.report)
app.command("schema")(schema.schema)
app.command("init")(init.init)
app.command("proxy")(proxy.proxy)
app.command("serve", context_settings=serve.SETTINGS)(serve.serve)
app.command("doctor")(doctor.doctor)
_models.command("pull")(models.pull)
_models.command("list")(models.list_models)
app.add_typer(_models, name="models")
app.add_typer(budget.app, name="budget")
