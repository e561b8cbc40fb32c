"""Run as a process by the tests of whole lines: `line_worker.py PATH NAME COUNT [FILE_SIZE_LIMIT]`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from governor.errors import RecordError
from governor.telemetry.lines import LineFile


def main(path: str, name: str, count: int, limit: int = 0) -> None:
    """Append lines of many lengths until done, or until the limit; print how many are whole and the error."""
    file = LineFile(Path(path))
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    written = 0
    error = ""
    try:
        for number in range(count):
            file.append(f"{name} {number} {'x' * (number * 37 % 9000)} end".encode())
            written += 1
    except RecordError as cause:
        error = str(cause)
    sys.stdout.write(f"{written}|{error}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
