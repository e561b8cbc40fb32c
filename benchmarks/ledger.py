"""Whether budgets hold, and what that costs: caps, throughput, streams and a soak of the ledger, on real stores.

    python -m benchmarks.ledger [--only caps|throughput|streams|soak] [--short] [--json]

Starts a Redis server of its own, and a PostgreSQL server where one is installed. Prints Markdown; exit status 1 where a
claim fails. `--short` takes a minute: smaller loads, and claims about this machine are printed but don't count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.ledger_report import Report

# Each part is imported when it is run: processes that are measured import this module anew, and what the other parts
# bring along would be walked by their garbage collection all the time.


def _caps(short: bool) -> Report:
    from benchmarks.ledger_caps import measure

    return measure(rounds=1 if short else 3)


def _throughput(short: bool) -> Report:
    from benchmarks.ledger_throughput import measure

    return measure(seconds=1.0 if short else 10.0)


def _streams(short: bool) -> Report:
    from benchmarks.ledger_streams import measure

    return measure(short=short)


def _soak(short: bool) -> Report:
    from benchmarks.ledger_soak import Hour, measure

    hour = {"memory": Hour(3600, 10), "SQLite": Hour(3600, 10), "Redis": Hour(3600, 5), "PostgreSQL": Hour(3600, 1)}
    return measure({name: Hour(1200, 2) for name in ("memory", "SQLite", "Redis")} if short else hour)


PARTS: dict[str, Callable[[bool], Report]] = {
    "caps": _caps,
    "throughput": _throughput,
    "streams": _streams,
    "soak": _soak,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--short", action="store_true", help="smaller loads; about a minute in all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(PARTS)
    report = Report()
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        report += PARTS[name](arguments.short)
    passed = not report.failed(machine=not arguments.short)
    print(json.dumps(asdict(report) | {"passed": passed}) if arguments.json else _told(report))
    return 0 if passed else 1


def _told(report: Report) -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} processors, load when done (1, 5, 15 minutes): {load}\n\n{report.markdown}"


if __name__ == "__main__":
    sys.exit(main())
