"""The `governor` command: one module a subcommand.

Exit codes: 0 done, 1 the work failed, 2 usage or bad input, 130 interrupted. Errors are one line on standard
error; results go to standard output.
"""

from __future__ import annotations

import sys
from typing import Any

from governor.errors import GovernorError, PolicyError, TaskError


def main() -> None:
    """Entry point of the `governor` command."""
    from governor.cli.app import app

    try:
        code = app(standalone_mode=False)  # a number where a command ended by typer.Exit
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place where an error becomes a line for a person
        sys.exit(report(error))
    sys.exit(code)


def report(error: BaseException) -> int:
    """Print an error as a person should see it; gives the exit code. Unknown errors are raised again."""
    import typer

    if isinstance(error, KeyboardInterrupt | typer.Abort):
        sys.stderr.write("interrupted\n")
        return 130
    if isinstance(error, _usage_error()):
        told: Any = error
        told.show()
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


def _usage_error() -> Any:
    """The base of usage errors: newer typers carry a click of their own, older ones use the package."""
    import typer

    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
