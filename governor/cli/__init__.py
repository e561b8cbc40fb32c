"""The `governor` command: one module a subcommand.

Exit codes: 0 done, 1 the work failed, 2 usage or bad input, 130 interrupted. Errors are one line on standard
error; results go to standard output.
"""

from __future__ import annotations

import sys

from governor.errors import GovernorError, PolicyError, TaskError


def main() -> None:
    """Entry point of the `governor` command."""
    from governor.cli.app import app

    try:
        app(standalone_mode=False)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place where an error becomes a line for a person
        sys.exit(report(error))


def report(error: BaseException) -> int:
    """Print an error as a person should see it; gives the exit code. Unknown errors are raised again."""
    import click
    import typer

    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        sys.stderr.write("interrupted\n")
        return 130
    if isinstance(error, click.exceptions.Exit | typer.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, PolicyError | TaskError):
        sys.stderr.write(f"{error}\n")
        return 2
    if isinstance(error, GovernorError):
        sys.stderr.write(f"governor: {error}\n")
        return 1
    if isinstance(error, BrokenPipeError):
        return 1
    raise error
