"""Recorded outcomes replayed: the governor and what it must beat, on the same folds, draws and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.baselines import Vocabulary, complexity_scores, knn_forecast, length_forecast, tfidf_forecast
from governor.learn.forecaster import Forecaster
from governor.learn.frontier import Deployed, Fixed, Measures, deployed, deployed_as, fixed, measure
from governor.learn.hindsight import oracle, perfect
from governor.learn.intervals import Spread
from governor.learn.ladder import Ladder
from governor.learn.outcomes import Outcomes, Rows
from governor.learn.played import Cast, Played, Setting, foreseen, play
from governor.learn.recorded import World
from governor.learn.routing import DIALS, by_score, mixing, one_shot
from governor.learn.scores import Scores, score
from governor.learn.sides import Sides, complete, shuffled
from governor.learn.table import Table, draw
from governor.protocols import Terms
from governor.records import Step

KEEP = 0.98

GOVERNOR = "governor"
METHODS = ("length", "tfidf", "knn", "litellm", "one_shot", GOVERNOR, "dp", "perfect", "oracle")
"""Everything that is measured, in the order in which it is reported."""

CONTROL = "mixing"
"""Measured where it is asked for by name: random mixing of fixed rungs, learned and tested on the same folds."""

_ROUTERS = {"length", "tfidf", "knn"}
_OURS = {"one_shot", GOVERNOR, "dp"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """What is replayed, but for the seed.

    `elsewhere` are records to learn from instead of the other `folds` of the tested ones. `base` gives a policy's
    terms of a step, `dial` is a dial of interest beside the grid, `methods` are those wanted. `complexity` holds
    LiteLLM's score of every text, None where it is not to be had.
    """

    table: Table
    ladder: Ladder
    forecaster: Forecaster
    elsewhere: Table | None = None
    folds: int = 5
    shuffle: bool = False
    base: Callable[[Step], Terms] | None = None
    dial: float | None = None
    methods: tuple[str, ...] = METHODS
    complexity: Mapping[str, float] | None = None


def prepared(trial: Trial) -> Trial:
    """The trial on complete questions alone, its texts scored once for all seeds. Raises RecordError for none."""
    table = complete(trial.table, trial.ladder)
    other = None if trial.elsewhere is None else complete(trial.elsewhere, trial.ladder)
    texts = list(dict.fromkeys((() if other is None else other.questions) + table.questions))
    scores = complexity_scores(texts) if "litellm" in trial.methods else None
    known = None if scores is None else dict(zip(texts, scores.tolist(), strict=True))
    return replace(trial, table=table, elsewhere=other, complexity=known)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """What one method did on one seed: each tested question's cost and accuracy, (D, Q), and the figures of it.

    `deployed` is None where no dial could be chosen beforehand, `scores` where nothing was forecast.
    """

    spread: Spread
    measures: Measures
    deployed: Deployed | None = None
    scores: Scores | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """The governor at the dial of interest: means over questions; `calls` of rungs an item."""

    dial: float
    cost: float
    accuracy: float
    accepted: float
    calls: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One seed: the fixed rungs with each tested question's figures, (K, Q), and every method, None where it can't be.

    `seconds` is what estimating and planning a first call took on average.
    """

    seed: int
    items: int
    rungs: Fixed
    fixed: Spread
    methods: Mapping[str, Method | None]
    detail: Detail | None
    seconds: float


def run(trial: Trial, seed: int, advance: Callable[[], None] = lambda: None) -> Run:
    """Replay one seed of a prepared trial. `advance` is told of each tested question that is done."""
    table = _labelled(trial.table, trial, seed)
    if trial.elsewhere is None:
        sides = Sides.crossed(table, trial.folds, seed)
    else:
        sides = Sides.apart(_labelled(trial.elsewhere, trial, seed), table, trial.folds, seed)
    bench = _Bench.of(trial, sides, seed)
    found = dict(_rivals(bench))
    acted = _acted(bench, advance) if _OURS & set(trial.methods) else None
    if acted is not None:
        found |= _ours(bench, acted)
    return Run(
        seed=seed,
        items=int(table.usable.any(axis=1).sum()),
        rungs=bench.rungs,
        fixed=Spread(bench.outcomes.paid[sides.tested].T, bench.outcomes.accuracy[sides.tested].T),
        methods={
            name: found.get(name)
            for name in (*METHODS, CONTROL)
            if name in trial.methods and (name in found or name == "dp")
        },
        detail=None if acted is None else _detail(bench, acted),
        seconds=0.0 if acted is None else acted.seconds,
    )


def _labelled(table: Table, trial: Trial, seed: int) -> Table:
    drawn = draw(table, seed)
    return shuffled(drawn, seed) if trial.shuffle else drawn


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """One seed of a trial, and what all methods are measured against."""

    trial: Trial
    sides: Sides
    seed: int
    outcomes: Outcomes
    rungs: Fixed

    @classmethod
    def of(cls, trial: Trial, sides: Sides, seed: int) -> _Bench:
        outcomes, tested = Outcomes.of(sides.table, trial.ladder), sides.tested
        rungs = fixed(sides.table.rungs, outcomes.paid[tested].T, outcomes.accuracy[tested].T)
        return cls(trial, sides, seed, outcomes, rungs)

    @property
    def best(self) -> tuple[Floats, Floats]:
        """Cost and accuracy of the best fixed rung, (Q,)."""
        return self.outcomes.paid[:, self.rungs.best], self.outcomes.accuracy[:, self.rungs.best]

    def method(self, every: Spread, kept: Deployed | None, p: Floats | None = None) -> Method:
        """From figures of all questions, (D, Q), and first forecasts, (Q, K)."""
        tested = self.sides.tested
        spread = Spread(every.cost[:, tested], every.accuracy[:, tested])
        return Method(
            spread=spread,
            measures=measure(self.rungs, spread.cost.mean(axis=1), spread.accuracy.mean(axis=1)),
            deployed=kept,
            scores=None if p is None else _scores(p[tested], self.outcomes.accuracy[tested], self.seed),
        )

    def chosen(self, every: Spread, p: Floats | None = None) -> Method:
        """A method whose dial is chosen by its figures on the training folds."""
        sides = self.sides
        kept = deployed(self.best, every.cost, every.accuracy, sides.fold, keep=KEEP, tested=sides.tested)
        return self.method(every, kept, p)


def _scores(p: Floats, y: Floats, seed: int) -> Scores:
    """Of all rungs' forecasts together, beside each rung's own base rate."""
    known = np.isfinite(p) & np.isfinite(y)
    rung = np.broadcast_to(np.arange(p.shape[1]), p.shape)
    return score(p[known], y[known], heads=rung[known].astype(np.intp), seed=seed)


def _rivals(bench: _Bench) -> Iterator[tuple[str, Method]]:
    """What needs no forecast of ours: the routers that a reader expects, and hindsight."""
    trial, outcomes, fold = bench.trial, bench.outcomes, bench.sides.fold
    if _ROUTERS & set(trial.methods):
        vocabulary = Vocabulary.of(outcomes.texts)
        routers = {
            "length": length_forecast(outcomes, fold),
            "tfidf": tfidf_forecast(outcomes, vocabulary, fold),
            "knn": knn_forecast(outcomes, vocabulary, fold),
        }
        for name in (name for name in trial.methods if name in routers):
            p = bench.sides.forecast(routers[name])
            yield name, bench.chosen(one_shot(outcomes, fold, p), p)
    if trial.complexity is not None:
        complexity = np.array([trial.complexity[text] for text in outcomes.texts])
        yield "litellm", bench.chosen(by_score(outcomes, fold, complexity))
    if "perfect" in trial.methods:
        yield "perfect", bench.chosen(perfect(outcomes, fold))
    if "oracle" in trial.methods:
        yield "oracle", bench.chosen(oracle(outcomes))
    if CONTROL in trial.methods:
        yield CONTROL, bench.method(mixing(outcomes, bench.sides.splits()), None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Acted:
    """All tested questions played; NaN for the others. `first` are the forecasts before any call, (Q, K)."""

    settings: tuple[Setting, ...]
    governor: Played
    exact: Played | None
    first: Floats
    seconds: float


def _acted(bench: _Bench, advance: Callable[[], None]) -> _Acted:
    """The governor, and exact plans, on every tested question by what was fitted on the others."""
    trial, sides = bench.trial, bench.sides
    settings = (*(Setting(dial=dial) for dial in DIALS.tolist()), Setting(keep=KEEP))
    if trial.dial is not None:
        settings = (*settings, Setting(dial=trial.dial))
    questions, rungs, samples = sides.table.correct.shape
    governor = Played.empty(len(settings), questions, samples)
    exact = Played.empty(len(settings), questions, samples)
    first = np.full((questions, rungs), np.nan)
    seconds, exactly = 0.0, False
    for train, test in sides.splits():
        world, cast = _fitted(bench, train)
        show = play(world, cast, test.tolist(), settings, advance)
        governor.put(test, show.governor)
        if show.exact is not None:
            exact.put(test, show.exact)
        first[test] = show.first
        seconds, exactly = seconds + show.seconds, show.exact is not None
    if not sides.tested.all() and "one_shot" in trial.methods:
        _foresee_the_rest(bench, first)
    asked = int(sides.tested.sum())
    return _Acted(
        settings=settings,
        governor=governor,
        exact=exact if exactly else None,
        first=first,
        seconds=seconds / asked,
    )


def _fitted(bench: _Bench, train: Rows) -> tuple[World, Cast]:
    trial, table, seed = bench.trial, bench.sides.table, bench.seed
    learned_from = table.take(train)
    parts = trial.forecaster.fit(learned_from, trial.ladder, seed=seed)
    world = World.of(table, trial.ladder, learned_from, seed)
    return world, Cast(parts=parts, base=trial.base, exactly="dp" in trial.methods)


def _foresee_the_rest(bench: _Bench, first: Floats) -> None:
    """Forecasts of questions that are only learned from, each by a fit that did not see it: they place the dials."""
    fold, tested = bench.sides.fold, bench.sides.tested
    for part in np.unique(fold[~tested]).tolist():
        world, cast = _fitted(bench, np.flatnonzero(~tested & (fold != part)))
        rows = np.flatnonzero(fold == part)
        first[rows] = foreseen(world, cast, rows.tolist())


def _ours(bench: _Bench, acted: _Acted) -> dict[str, Method]:
    """The governor at the dial that keeps KEEP, one call by the same forecasts, and the exact plans."""
    dials, keep = slice(0, len(DIALS)), len(DIALS)
    every, tested = acted.governor.spread, bench.sides.tested
    kept = deployed_as(bench.best, every.cost[keep], every.accuracy[keep], tested)
    found = {GOVERNOR: bench.method(_only(every, dials), kept, acted.first)}
    if "one_shot" in bench.trial.methods:
        found["one_shot"] = bench.chosen(one_shot(bench.outcomes, bench.sides.fold, acted.first), acted.first)
    if acted.exact is not None:
        exact = _only(acted.exact.spread, dials)
        found["dp"] = bench.chosen(exact) if tested.all() else bench.method(exact, None)
    return found


def _only(spread: Spread, dials: slice) -> Spread:
    return Spread(spread.cost[dials], spread.accuracy[dials])


def _detail(bench: _Bench, acted: _Acted) -> Detail | None:
    if bench.trial.dial is None:
        return None
    last, tested = acted.governor.last(), bench.sides.tested
    cost, accuracy, accepted, calls = (float(figure[tested].mean()) for figure in last)
    return Detail(dial=bench.trial.dial, cost=cost, accuracy=accuracy, accepted=accepted, calls=calls)
