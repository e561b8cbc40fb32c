"""The `governor` command: one module a subcommand.

Exit codes: 0 done, 1 the work failed, 2 usage or bad input, 130 interrupted. Errors are one line on standard
error; results go to standard output.
"""

from __future__ import annotations

import sys
from typing import Any

from governor.errors import GovernorError, LadderError, MissingExtraError, PolicyError, TaskError

INTERRUPTED = 130


def main() -> None:
    """Entry point of the `governor` command."""
    from governor.cli.app import app

    try:
        code = app(standalone_mode=False)  # what `typer.Exit` carries comes back as a result, not as an exception
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place where an error becomes a line for a person
        code = told(error)
    else:
        if code == INTERRUPTED:  # typer made an exit of the KeyboardInterrupt
            sys.stderr.write("interrupted\n")
    sys.exit(code)


def told(error: BaseException) -> int:
    """Print an error as a person should see it; gives the exit code. Unknown errors are raised again."""
    import typer

    if isinstance(error, KeyboardInterrupt | typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    if isinstance(error, _usage_error()):
        sys.stderr.write(f"{_usage(error)}\n")
        return 2
    if isinstance(error, PolicyError | TaskError | LadderError):
        sys.stderr.write(f"{error}\n")
        return 2
    if isinstance(error, GovernorError):
        sys.stderr.write(f"governor: {error}\n")
        return 2 if isinstance(error, MissingExtraError) else 1
    if isinstance(error, BrokenPipeError):
        return 1
    raise error


def _usage_error() -> Any:
    """The base of usage errors: newer typers carry a click of their own, older ones use the package."""
    import typer

    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _usage(error: Any) -> str:
    """A wrong command line in one line, or the whole help where nothing at all was given."""
    text: str = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None or "\n" in text:
        return text
    return f"{context.command_path}: {text} (see {context.command_path} --help)"
