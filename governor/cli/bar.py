"""Where a progress bar is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def bar_console(console: Console) -> Console:
    """The console for a bar: where it is no terminal, one that shows nothing.

    A bar that is only disabled ends with an empty line under rich 13, which LiteLLM's proxy holds to.
    """
    from rich.console import Console

    return console if console.is_terminal else Console(file=console.file, quiet=True)
