"""What a certificate rests on: recorded items under every dial, by parts that never saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.certify import Bools, Replayed
from governor.learn.forecaster import Forecaster
from governor.learn.ladder import Ladder, load_ladder
from governor.learn.outcomes import Outcomes
from governor.learn.played import Cast, Played, Setting, play
from governor.learn.policies import Granted
from governor.learn.recorded import World
from governor.learn.routing import DIALS
from governor.learn.rows import read_rows
from governor.learn.sides import complete
from governor.learn.table import Table, draw
from governor.learn.tabulate import tabulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is certified on: the ladder's name, its items under every dial, groups the calibration was fitted on."""

    name: str
    replayed: Replayed
    fitted_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """Replayed (governor.learn.certify): each sample of a question is an item, all of its group one unit."""

    dials: Floats
    accepted: Bools
    correct: Bools
    best_correct: Bools
    nodes: tuple[str, ...]
    groups: tuple[str, ...]


def evidence(
    records: Sequence[Path], ladder: Path, *, forecaster: Forecaster, policy: Granted | None, seed: int
) -> Evidence:
    """Drive the records through the governor's own loop at every dial, each item once.

    `forecaster` must have been fitted elsewhere: it is told what the rungs cost on these records, and no label. The
    best rung is the most accurate on them. Raises LadderError or RecordError where records and ladder do not fit.
    """
    rungs = load_ladder(ladder)
    table = complete(draw(tabulate(read_rows(records), rungs), seed), rungs)
    parts = forecaster.fit(table, rungs, seed=seed)
    settings = [Setting(dial=dial) for dial in DIALS.tolist()]
    questions = list(range(len(table.qids)))
    world = World.of(table, rungs, table, seed)
    show = play(world, Cast(parts=parts, base=policy), questions, settings)
    return Evidence(name=rungs.name, replayed=_items(world, rungs, show.governor), fitted_on=parts.fitted_on)


def _items(world: World, ladder: Ladder, played: Played) -> Items:
    table = world.table
    there = np.argwhere(np.isfinite(played.correct[0]))
    question, sample = there.T
    return Items(
        dials=DIALS,
        accepted=played.accepted[:, question, sample] > 0.5,
        correct=played.correct[:, question, sample] > 0.5,
        best_correct=_best(table, ladder, world)[question, sample],
        nodes=tuple(table.nodes[at] for at in question.tolist()),
        groups=tuple(table.groups[at] for at in question.tolist()),
    )


def _best(table: Table, ladder: Ladder, world: World) -> Bools:
    """(Q, S): whether the best fixed rung is right on the item, by the sample that the item's first call would get."""
    best = Outcomes.of(table, ladder).best(np.arange(len(table.qids)))
    right = np.zeros((len(table.qids), len(table.samples)), dtype=np.bool_)
    for question in range(len(table.qids)):
        for sample in world.items(question):
            drawn = world.drawn(question, best, sample)
            right[question, sample] = bool(table.correct[question, best, drawn] > 0.5)
    return right
