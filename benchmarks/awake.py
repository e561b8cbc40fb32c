"""Processors that don't sleep while something is measured.

A virtual processor with nothing to do is halted, and its host gives the core to others: whoever asks it for something
the next millisecond pays for waking it and for caches that are no longer its own. A process that spins at the very
lowest priority keeps it running and gives way at once to anything else of its session (sched(7): SCHED_IDLE, and the
autogroup feature, by which another session would have to share), as the kernel's `idle=poll` does for a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print(flush=True)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def awake() -> Generator[tuple[int, ...], None, None]:
    """Keep every processor that this process may use from sleeping; gives the ids of the processes that do.

    Linux only: elsewhere RuntimeError.
    """
    if not hasattr(os, "SCHED_IDLE"):
        raise RuntimeError("processors can be kept awake on Linux only (SCHED_IDLE)")
    spinning: list[int] = []
    with ExitStack() as stack:
        for processor in os.sched_getaffinity(0):
            command = [sys.executable, "-c", _SPIN, str(processor)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("a process that keeps a processor awake could not begin: see above")
            spinning.append(process.pid)
        yield tuple(spinning)
