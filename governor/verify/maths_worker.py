"""Compares mathematical answers in a process of its own, because symbolic algebra may never end.

Reads one JSON line `{"reference", "answer"}` at a time from stdin and writes one line `{"equal"}` or
`{"error"}`. Its argument is the reading end of a pipe that the parent never writes to: when the parent goes, the
kernel ends this process by SIGIO, even amid arithmetic on huge numbers that lets no other thread run.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import sys
from importlib import import_module
from typing import Any

_MEMORY_BYTES = 2 << 30

# Untyped, and its extra need not be installed where types are checked.
_library: Any = import_module("math_verify")


def equal(reference: str, given: str) -> bool:
    """Whether `given` is mathematically the same as `reference`; ValueError if the reference can't be read."""
    wanted = _read(reference)
    if not wanted:
        raise ValueError("the reference is no mathematical expression")
    found = _read(given)
    # The parent limits the time, and ends what the library's own alarm could not.
    return bool(found) and bool(_library.verify(wanted, found, timeout_seconds=None))


def _read(text: str) -> list[Any]:
    """Parsed forms of one answer: as LaTeX, and where that says nothing as it stands."""
    found: list[Any] = _library.parse(f"${text}$", parsing_timeout=None)
    return found or list(_library.parse(text, parsing_timeout=None))


def _bound_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _MEMORY_BYTES if most == resource.RLIM_INFINITY else min(_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def _end_with_parent(life: int) -> None:
    """Have the closing of the parent's end of the pipe `life` end this process (default action of SIGIO, signal(7))."""
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    gone, _, _ = select.select([life], [], [], 0)
    if gone:
        sys.exit("the parent has gone")


def main() -> None:
    """Serve until stdin ends."""
    _bound_memory()
    _end_with_parent(int(sys.argv[1]))
    for line in sys.stdin:
        job = json.loads(line)
        try:
            result: dict[str, Any] = {"equal": equal(job["reference"], job["answer"])}
        except Exception as cause:  # noqa: BLE001  any failure of the algebra is the asker's to hear of
            result = {"error": f"{type(cause).__name__}: {cause}"}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
