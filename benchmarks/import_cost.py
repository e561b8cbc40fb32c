"""What `import governor` and `governor --help` cost above a bare interpreter: median of fresh processes.

    python -m benchmarks.import_cost [--rounds 21] [--json]

Exit status 1 if the import takes over 0.2 s or 60 MB more than what the bare interpreter takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

SECONDS, MEGABYTES = 0.2, 60.0
_SIZE = "; print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
_RUNS: Mapping[str, tuple[str, ...]] = {
    "bare interpreter": ("-c", "pass" + _SIZE),
    "import governor": ("-c", "import governor" + _SIZE),
    "from governor import Governor": ("-c", "from governor import Governor" + _SIZE),
    "governor --help": ("-m", "governor", "--help"),
}


def run(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of one fresh process, and its resident megabytes at the end (0 where it does not tell)."""
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=paths)
    seconds = time.perf_counter() - started
    return seconds, int(done.stdout) / 1024 if done.stdout.strip().isdigit() else 0.0


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Medians by name, all runs taken in turns; the first round, which reads files from disk, is not counted."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in _RUNS}
    for _ in range(rounds + 1):
        for name, arguments in _RUNS.items():
            seen[name].append(run(arguments))
    return {
        name: {"seconds": statistics.median(s for s, _ in runs[1:]), "mb": statistics.median(m for _, m in runs[1:])}
        for name, runs in seen.items()
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="fresh processes of each kind (default 21)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.rounds)
    bare, imported = found["bare interpreter"], found["import governor"]
    passed = imported["seconds"] - bare["seconds"] <= SECONDS and imported["mb"] <= MEGABYTES
    if options.json:
        print(json.dumps({**found, "passed": passed}))
        return 0 if passed else 1
    print(f"{'':32}{'ms':>8}{'above bare':>12}{'MB':>8}")
    for name, row in found.items():
        above = (row["seconds"] - bare["seconds"]) * 1000
        size = f"{row['mb']:8.1f}" if row["mb"] else f"{'-':>8}"
        print(f"{name:32}{row['seconds'] * 1000:8.0f}{above:12.0f}{size}")
    print("pass" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
