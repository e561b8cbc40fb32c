"""Replays as they are asked for: files and options in, a report out, seeds in parallel processes where wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from governor.errors import RecordError
from governor.learn.certify import overlap
from governor.learn.forecaster import Fitted, Forecaster, Learned, Untrained
from governor.learn.ladder import Ladder, checking_of, load_ladder
from governor.learn.policies import Granted
from governor.learn.replay import METHODS, Run, Trial, prepared, run
from governor.learn.report import Report, report
from governor.learn.rows import read_rows
from governor.learn.table import Table
from governor.learn.tabulate import tabulate
from governor.policy import Check

ONE_THREAD: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What keeps linear algebra of one process on one thread, as its environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be replayed, as a command line says it: names of files, options as they stand there."""

    ladder: Path
    records: tuple[Path, ...] = ()
    verifier: str | None = None
    fit: tuple[Path, ...] = ()
    calibration: Path | None = None
    rules: bool = False
    folds: int = 5
    group_by: str | None = None
    node_field: str | None = None
    policy: str | None = None
    dial: float | None = None
    shuffle: bool = False
    methods: tuple[str, ...] = METHODS

    def trial(self, checks: Sequence[Check] = ()) -> Trial:
        """Everything read and made ready; `checks` are held against the policy.

        Raises LadderError, RecordError, PolicyError or CalibrationError.
        """
        ladder = load_ladder(self.ladder)
        if self.verifier is not None:
            ladder = replace(ladder, checking=checking_of(self.verifier))
        granted = Granted.by(self.policy, checks) if self.policy else None
        trial = Trial(
            table=self._table(self.records or (ladder.records,), ladder),
            ladder=ladder,
            forecaster=self._forecaster(),
            elsewhere=self._table(self.fit, ladder) if self.fit else None,
            folds=self.folds,
            shuffle=self.shuffle,
            base=granted,
            dial=self.dial if granted is None or self.dial is not None else granted.policy.dial,
            methods=self.methods,
        )
        self._refuse_fitted(trial)
        return prepared(trial)

    def _refuse_fitted(self, trial: Trial) -> None:
        if isinstance(trial.forecaster, Fitted):
            shared = overlap(trial.table.groups, trial.forecaster.calibration.fitted_on)
            if shared:
                said = f"was fitted on {shared} of these {len(trial.table.qids)} questions: replay records it never saw"
                raise RecordError(f"{self.calibration} {said}")

    def _table(self, records: Sequence[Path], ladder: Ladder) -> Table:
        return tabulate(read_rows(records), ladder, node_field=self.node_field, group_by=self.group_by)

    def _forecaster(self) -> Forecaster:
        if self.rules:
            return Untrained()
        return Fitted.load(self.calibration) if self.calibration else Learned()


def replay(
    trial: Trial,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    timings: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Report:
    """Run a trial on every seed; nothing in the report depends on `jobs`. `advance` is told of questions done."""
    return report(trial.ladder, _runs(trial, seeds, jobs, advance), timings=timings)


def _runs(trial: Trial, seeds: Sequence[int], jobs: int, advance: Callable[[int], None]) -> Iterator[Run]:
    if min(jobs, len(seeds)) < 2:
        yield from (run(trial, seed, partial(advance, 1)) for seed in seeds)
        return
    with _single_threaded(), ProcessPoolExecutor(min(jobs, len(seeds)), get_context("spawn")) as pool:
        for done in pool.map(partial(run, trial), seeds):
            advance(done.fixed.cost.shape[1])
            yield done


@contextmanager
def _single_threaded() -> Generator[None, None, None]:
    """Processes started in here use one thread each for linear algebra: they share the processors already."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
