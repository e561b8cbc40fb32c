"""What child processes of tests need."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """A `preexec_fn`: the child hears Ctrl-C even where the test run itself was started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
