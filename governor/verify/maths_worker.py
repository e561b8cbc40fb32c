"""Compares mathematical answers in a process of its own, because symbolic algebra may never end.

Reads one JSON line `{"reference", "answer"}` at a time from stdin and writes one line `{"equal"}` or
`{"error"}`. Ends when stdin does, even in the middle of a comparison: its parent has gone then.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

from math_verify import parse, verify  # pyright: ignore[reportMissingImports]  the extra 'maths'

_MEMORY_BYTES = 2 << 30


def equal(reference: str, given: str) -> bool:
    """Whether `given` is mathematically the same as `reference`; ValueError if the reference can't be read."""
    wanted = _read(reference)
    if not wanted:
        raise ValueError("the reference is no mathematical expression")
    found = _read(given)
    # The parent limits the time; the library's own alarm would only work in a main thread.
    return bool(found) and bool(verify(wanted, found, timeout_seconds=None))


def _read(text: str) -> list[Any]:
    """Parsed forms of one answer: as LaTeX, and where that says nothing as it stands."""
    found: list[Any] = parse(f"${text}$", parsing_timeout=None)
    return found or list(parse(text, parsing_timeout=None))


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this platform
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _MEMORY_BYTES if most == resource.RLIM_INFINITY else min(_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def main() -> None:
    """Serve until stdin ends."""
    _bound_memory()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = json.loads(lines.get())
        try:
            result: dict[str, Any] = {"equal": equal(job["reference"], job["answer"])}
        except Exception as cause:  # noqa: BLE001  any failure of the algebra is the asker's to hear of
            result = {"error": f"{type(cause).__name__}: {cause}"}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
