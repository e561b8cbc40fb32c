"""Every recorded ladder, replayed: the governor against random mixing and a TF-IDF router, and the README's table.

    python -m benchmarks.ladders --out runs/ladders            (two processes; resumable: a row that is there is kept)
    python -m benchmarks.ladders --out runs/ladders --beside   (what stands beside the table: shuffled labels and more)
    python -m benchmarks.ladders --out runs/ladders --report   (print the tables of the rows that are there)

Records and ladders are read from ../shared/data (or GOVERNOR_DATA). Figures are medians of fold seeds 0 to 4, intervals
paired bootstraps over questions of each question's mean over those seeds; the rows beside the README's, shuffled labels
among them, are of seed 0 alone. Rows are written whole, one file each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from governor.learn.replay import CONTROL, GOVERNOR
from governor.learn.suite import ONE_THREAD, Request, replay
from governor.learn.summary import markdown, summary

DATA = Path(os.environ.get("GOVERNOR_DATA", Path(__file__).parents[2] / "shared" / "data"))
FAMILIES = r"/^rg-easy-(.*)-\d+-/"
SEEDS = 5
BEGIN, END = "<!-- ladders: written by benchmarks/ladders.py -->", "<!-- /ladders -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One replay, and the measures of it that a table shows. `cost` orders the work: the longest first."""

    name: str
    ladder: str
    measures: tuple[str, ...]
    cost: float
    fit: str = ""
    group_by: str | None = None
    node_field: str | None = None
    shuffle: bool = False
    seeds: int | None = None  # instead of those asked for

    @property
    def file(self) -> str:
        """The row's file name."""
        return f"{''.join(letter if letter.isalnum() else '-' for letter in self.name)}.json"

    def request(self) -> Request:
        """What is replayed."""
        return Request(
            ladder=DATA / "ladders" / f"{self.ladder}.json",
            fit=(DATA / self.fit,) if self.fit else (),
            group_by=self.group_by,
            node_field=self.node_field,
            shuffle=self.shuffle,
            methods=("tfidf", GOVERNOR, CONTROL),
        )


CLAIMS = (
    Row(name="reasoninggym", ladder="reasoninggym", measures=("c98", "area"), cost=6),
    Row(name="reasoninggym, unseen families", ladder="reasoninggym", measures=("area",), cost=6, group_by=FAMILIES),
    Row(name="mmlupro", ladder="mmlupro", measures=("c98", "area"), cost=9),
    Row(name="livecodebench_o4", ladder="livecodebench_o4", measures=("area",), cost=2),
    Row(name="livecodebench_o3", ladder="livecodebench_o3", measures=("area",), cost=2),
    Row(name="livecodebench_o4_tests", ladder="livecodebench_o4_tests", measures=("area",), cost=3),
    Row(name="thinking_budgets", ladder="thinking_budgets", measures=("area",), cost=3),
    Row(name="routellm_mmlu", ladder="routellm_mmlu", measures=("apgr", "cpt50", "cpt80"), cost=12),
    Row(
        name="llama, fitted on mmlupro, tested on crux",
        ladder="llama_crux",
        measures=("area", "lead"),
        cost=3,
        fit="mmlupro_dev.jsonl.gz",
    ),
    Row(
        name="llama, fitted on crux, tested on mmlupro",
        ladder="llama_mmlupro",
        measures=("area", "lead"),
        cost=3,
        fit="zeroeval_crux_dev.jsonl.gz",
    ),
)
"""The rows of issue and README."""

BESIDE = (
    Row(
        name="reasoninggym, node = domain",
        ladder="reasoninggym",
        measures=("c98", "area"),
        cost=6,
        node_field="domain",
        seeds=1,
    ),
    Row(name="llama_mmlupro", ladder="llama_mmlupro", measures=("area", "lead"), cost=5, seeds=1),
    Row(name="llama_crux", ladder="llama_crux", measures=("area", "lead"), cost=1, seeds=1),
)
"""What else is told in benchmarks/README.md."""

SHUFFLED = tuple(
    replace(row, name=f"{row.name}, labels shuffled", measures=("area", "lead", "over_mixing"), shuffle=True, seeds=1)
    for row in (*CLAIMS, *BESIDE)
    if not (row.fit or row.group_by or row.node_field)
)
"""Every ladder with nothing to be learned: no harm may be done."""


def measured(row: Row, seeds: int) -> dict[str, Any]:
    """One row, replayed."""
    started = time.monotonic()
    found = summary(row.name, replay(row.request().trial(), range(row.seeds or seeds)))
    return {**found, "minutes": round((time.monotonic() - started) / 60, 2)}


def run(rows: Sequence[Row], out: Path, seeds: int, jobs: int) -> None:
    """Measure the rows that are not there yet, the longest first, and write each as it is done."""
    out.mkdir(parents=True, exist_ok=True)
    missing = sorted(
        (row for row in rows if not _known(row, out, seeds)), key=lambda row: -row.cost * (row.seeds or seeds)
    )
    os.environ.update(ONE_THREAD)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = {pool.submit(measured, row, seeds): row for row in missing}
        for done in as_completed(waiting):
            row, found = waiting[done], done.result()
            part = out / f"{row.file}.part"
            part.write_text(json.dumps(found, indent=1))
            part.replace(out / row.file)
            print(f"{row.name}: {found['minutes']:.1f} minutes", file=sys.stderr)


def _known(row: Row, out: Path, seeds: int) -> bool:
    path = out / row.file
    return path.exists() and json.loads(path.read_text())["seeds"] == (row.seeds or seeds)


def table(rows: Iterable[Row], out: Path) -> str:
    """The rows that are there, as one Markdown table."""
    there = [(json.loads((out / row.file).read_text()), row.measures) for row in rows if (out / row.file).exists()]
    return markdown(there)


def calibration(rows: Iterable[Row], out: Path) -> str:
    """How good the first forecasts were, and what the dial chosen beforehand kept."""
    lines = ["| ladder | ECE | by chance | Brier | base rate's | kept | at cost |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if not (out / row.file).exists():
            continue
        found: Mapping[str, Any] = json.loads((out / row.file).read_text())
        one = found["methods"][GOVERNOR]
        figures = [one[name] for name in ("ece", "ece_by_chance", "brier", "brier_base_rate")]
        shown = [f"{figure:.3f}" for figure in [*figures, *one["deployed98"]]]
        lines.append(f"| {found['name']} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def into_readme(path: Path, text: str) -> None:
    """Put the table between the two marks of a file, which must be there."""
    before, begin, rest = path.read_text().partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path} has no place for the table: {BEGIN} ... {END}")
    del old
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ladders"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="rows whose name holds this")
    parser.add_argument("--beside", action="store_true", help="measure the rows beside the table, of fold seed 0 alone")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    wanted = (*BESIDE, *SHUFFLED) if options.beside else CLAIMS
    every = [row for row in wanted if (options.only or "") in row.name]
    if not options.report:
        if not DATA.is_dir():
            raise SystemExit(f"{DATA} is not here: say where the recorded outcomes are (GOVERNOR_DATA)")
        run(every, options.out, options.seeds, options.jobs)
        if not options.only and not options.beside:
            into_readme(options.readme, table(CLAIMS, options.out))
    for rows in (CLAIMS, BESIDE, SHUFFLED):
        print(table(rows, options.out))
    print(calibration((*CLAIMS, *BESIDE), options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
