"""Recorded questions played through the governor's own loop at every dial, and what came of each item."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from governor.climb import Mind
from governor.estimate.agreement import Pairs
from governor.estimate.chain import Look
from governor.estimate.curves import Floats
from governor.estimate.latent import Grid
from governor.learn.costs import PricedBelief
from governor.learn.forecaster import Parts
from governor.learn.intervals import Spread
from governor.learn.optimal import MAX_RUNGS, best_scripts
from governor.learn.outcomes import Rows, over_samples
from governor.learn.recorded import Recorded, Stage, World, terms_of
from governor.plan.comparing import Course
from governor.plan.dial import DIAL, price_at
from governor.plan.index import IndexPlanner
from governor.plan.odds import Odds
from governor.plan.prices import Unit
from governor.protocols import Planner, Situation, Terms
from governor.records import SECOND_LOOKS, Forecast, Rung, Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where the dial stands, or which share of the best quality is to be kept."""

    dial: float | None = None
    keep: float | None = None


_FIGURES = ("cost", "correct", "accepted", "calls")


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What became of n questions' items under N settings: each (N, n, S), NaN where there is no such item.

    `correct` is whether what shipped is right, `calls` how often a rung was called.
    """

    cost: Floats
    correct: Floats
    accepted: Floats
    calls: Floats

    @classmethod
    def empty(cls, settings: int, questions: int, samples: int) -> Played:
        """Nothing played yet."""
        shape = (settings, questions, samples)
        return cls(*(np.full(shape, np.nan) for _ in range(4)))

    def put(self, questions: Rows, part: Played) -> None:
        """Fill in what was played of these questions."""
        for name in _FIGURES:
            getattr(self, name)[:, questions] = getattr(part, name)

    def copy(self, to: tuple[int, int], of: tuple[int, int]) -> None:
        """Fill in a question under a setting that does what another did."""
        for name in _FIGURES:
            getattr(self, name)[to] = getattr(self, name)[of]

    @property
    def spread(self) -> Spread:
        """Cost and accuracy of each question, means over its items: (N, n)."""
        return Spread(over_samples(self.cost), over_samples(self.correct))

    def last(self) -> tuple[Floats, ...]:
        """Each field's means over items under the last setting, (n,)."""
        return tuple(over_samples(getattr(self, name)[-1:])[0] for name in _FIGURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who decides: the learned parts, `base` the policy's terms of a step where there is one, whether exactly too."""

    parts: Parts
    base: Callable[[Step], Terms] | None = None
    exactly: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Show:
    """A run over questions: by the governor, by exact plans where asked for, and the first forecasts (n, K).

    `seconds` is what estimating and planning the first calls took.
    """

    governor: Played
    exact: Played | None
    first: Floats
    seconds: float


def play(
    world: World,
    cast: Cast,
    questions: Sequence[int],
    settings: Sequence[Setting],
    advance: Callable[[], None] = lambda: None,
) -> Show:
    """Every item of these questions under every setting. `advance` is told of each question that is done."""
    samples = len(world.table.samples)
    exactly = cast.exactly and world.checking.kind != "score" and len(world.rungs) <= MAX_RUNGS
    governor = Played.empty(len(settings), len(questions), samples)
    exact = Played.empty(len(settings), len(questions), samples) if exactly else None
    first = np.full((len(questions), len(world.table.rungs)), np.nan)
    seconds = 0.0
    granted: dict[tuple[Rung, ...], list[Terms]] = {}
    for row, question in enumerate(questions):
        scene = _Scene.of(world, cast, question)
        seconds += scene.seconds
        scene.forecasts_into(first[row])
        if cast.base is not None or scene.terms.ladder not in granted:
            granted[scene.terms.ladder] = [replace(scene.terms, dial=one.dial, keep=one.keep) for one in settings]
        scene.governed(granted[scene.terms.ladder], governor, row)
        if exact is not None:
            scene.planned(settings, exact, row)
        advance()
    return Show(governor, exact, first, seconds)


def foreseen(world: World, cast: Cast, questions: Sequence[int]) -> Floats:
    """P(correct) of every rung before any call, (n, K); nothing is played."""
    first = np.full((len(questions), len(world.table.rungs)), np.nan)
    for row, question in enumerate(questions):
        _Scene.of(world, cast, question).forecasts_into(first[row])
    return first


@dataclass(slots=True)
class _Believed:
    """A belief that remembers what it told, as estimator and as belief.

    No setting moves a belief, and an item's attempts follow from the rungs called: what was told once, of a sample and
    the calls made on it, holds under every dial. `known` is shared by all beliefs of one question.
    """

    inner: PricedBelief
    stage: Stage
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    difficulty: float = field(init=False)
    reasons: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.difficulty, self.reasons = self.inner.difficulty, self.inner.reasons

    def estimate(self, step: Step, terms: Terms) -> _Believed:
        del step, terms
        return self

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        return self._remembered("forecasts", situation, self.inner.forecasts)

    def grid(self, situation: Situation) -> Grid:
        return self._remembered("grid", situation, self.inner.grid)

    def look(self, situation: Situation) -> Look | None:
        return self._remembered("look", situation, self.inner.look)

    def pairs(self, situation: Situation) -> Pairs | None:
        if ("pairs",) not in self.known:
            self.known["pairs",] = self.inner.pairs(situation)
        found: Pairs | None = self.known["pairs",]
        return found

    def after(self, rung: Rung, decision: str, situation: Situation) -> _Believed:
        def moved(situation: Situation) -> _Believed:
            return _Believed(self.inner.after(rung, decision, situation), self.stage, self.known)

        return self._remembered("after", situation, moved)

    def _remembered(self, what: str, situation: Situation, tell: Callable[[Situation], T]) -> T:
        key: tuple[Any, ...] = (what, *((one.rung.id, one.mode) for one in situation.attempts))
        if situation.attempts:
            key = (self.stage.sample, *key)
        if key not in self.known:
            self.known[key] = tell(situation)
        found: T = self.known[key]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """One question, ready to be played. `seconds` is what its estimate and first plan took."""

    stage: Stage
    step: Step
    terms: Terms
    believed: _Believed
    planner: IndexPlanner
    seconds: float

    @classmethod
    def of(cls, world: World, cast: Cast, question: int) -> _Scene:
        step = world.step(question)
        terms = terms_of(world.ladder, world.offered(question), cast.base(step) if cast.base else None)
        planner, situation = IndexPlanner(cast.parts.prices), _before(step, terms, world)
        started = time.perf_counter()
        belief = cast.parts.estimator.estimate(step, terms)
        planner.choose(belief, situation)
        seconds = time.perf_counter() - started
        stage = Stage(world, question)
        return cls(stage, step, terms, _Believed(belief, stage), planner, seconds)

    @property
    def first(self) -> tuple[Forecast, ...]:
        """The forecasts before any call."""
        return self.believed.forecasts(_before(self.step, self.terms, self.world))

    @property
    def world(self) -> World:
        return self.stage.world

    @property
    def _grid(self) -> Grid:
        return self.believed.grid(_before(self.step, self.terms, self.world))

    def forecasts_into(self, row: Floats) -> None:
        """P(correct) of each rung before any call, in the table's order."""
        for forecast in self.first:
            row[self.world.at[forecast.rung]] = forecast.p_success

    def governed(self, granted: Sequence[Terms], played: Played, row: int) -> None:
        """By the governor's own planner, once for each price: nothing else of these terms reaches a decision."""
        once = _decides_once(self.world, self.terms)
        priced: dict[float, tuple[int, Terms]] = {}
        alike: list[tuple[int, int]] = []
        unit = Unit.of(self.first).size
        for at, terms in enumerate(granted):
            price = self._set_price(terms, unit)
            if price is None:
                self._play(self.planner, terms, played, (at, row))
            elif price in priced:
                alike.append((at, priced[price][0]))
            else:
                priced[price] = at, terms
        by_price = [priced[price] for price in sorted(priced)]
        courses = self._courses(sorted(priced)) if self.world.checking.kind == "none" else None
        if courses is not None:
            alike = self._by_course(by_price, courses, played, row) + alike
        elif once:
            self._between(by_price, played, row)
        else:
            for at, terms in by_price:
                self._play(self.planner, terms, played, (at, row))
        for to, of in alike:
            played.copy((to, row), (of, row))

    def _courses(self, prices: Sequence[float]) -> list[Course] | None:
        situation = _before(self.step, self.terms, self.world)
        return self.planner.courses(self.believed, situation, np.array(prices))

    def _by_course(
        self, by_price: Sequence[tuple[int, Terms]], courses: Sequence[Course], played: Played, row: int
    ) -> list[tuple[int, int]]:
        """One run of the loop for each course of action; settings (to, of) that do as others did are returned."""
        begun: dict[Course, int] = {}
        alike = []
        for (at, terms), course in zip(by_price, courses, strict=True):
            if course in begun:
                alike.append((at, begun[course]))
            else:
                begun[course] = at
                self._play(self.planner, terms, played, (at, row))
        return alike

    def _between(self, by_price: Sequence[tuple[int, Terms]], played: Played, row: int) -> None:
        """One choice a setting, from low prices to high. A rung is worth `p - price * cost`, a line in the price.

        So where two prices lead to the same rung, all between them do: there the loop need not be run.
        """
        chosen: dict[int, int] = {}

        def rung(place: int) -> int:
            if place not in chosen:
                at, terms = by_price[place]
                self._play(self.planner, terms, played, (at, row))
                chosen[place] = self.stage.shown[0].rung
            return chosen[place]

        open_ends = [(0, len(by_price) - 1)] if by_price else []
        while open_ends:
            low, high = open_ends.pop()
            if rung(low) == rung(high):
                between = [at for at, _ in by_price[low + 1 : high]]
                self._likewise(rung(low), self.world.items(self.stage.question), played, between, row)
            elif high - low > 1:
                middle = (low + high) // 2
                open_ends += [(low, middle), (middle, high)]

    def planned(self, settings: Sequence[Setting], played: Played, row: int) -> None:
        """By the best plan at the governor's price and belief; settings without a dial are left out."""
        dials = [at for at, setting in enumerate(settings) if setting.dial is not None]
        granted = [replace(self.terms, dial=settings[at].dial, keep=None) for at in dials]
        unit = Unit.of(self.first).size
        prices = np.array([self._price(terms, unit) for terms in granted])
        scripts = best_scripts(self._odds(), self._grid.weights, prices)
        for at, terms, script in zip(dials, granted, scripts, strict=True):
            if self.world.checking.kind == "none":  # the first answer ships
                first = self.world.at[self.terms.ladder[script.arms[0]].id]
                self._likewise(first, self.world.items(self.stage.question), played, [at], row)
            else:
                self._play(script, terms, played, (at, row))

    def _play(self, planner: Planner, terms: Terms, played: Played, at: tuple[int, int]) -> None:
        """All items of the question; where nobody judged the first one's only call, the others are called likewise."""
        world, stage = self.world, self.stage
        verifier = None if world.checking.kind == "none" else Recorded(stage)
        mind = Mind(self.believed, planner, verifier)
        items = world.items(stage.question)
        for place, sample in enumerate(items, 1):
            take = stage.play(sample, self.step, terms, mind)
            for name, figure in zip(_FIGURES, (take.cost, take.correct, take.accepted, len(take.rungs)), strict=True):
                getattr(played, name)[(*at, sample)] = figure
            if len(take.rungs) == 1 and self._alike():
                self._likewise(take.rungs[0], items[place:], played, [at[0]], at[1])
                return

    def _alike(self) -> bool:
        """Whether items whose first call is their only one were decided alike: nobody looked at its answer."""
        return self.world.checking.kind == "none"

    def _likewise(self, rung: int, items: Sequence[int], played: Played, settings: Sequence[int], row: int) -> None:
        """One call of this rung for each item under these settings, whose answer nobody judges."""
        question, table = self.stage.question, self.world.table
        drawn = np.array([self.world.drawn(question, rung, sample) for sample in items], dtype=np.intp)
        at = np.ix_(settings, [row], items)
        played.cost[at] = table.cost[question, rung, drawn]
        played.correct[at] = table.correct[question, rung, drawn]
        played.accepted[at], played.calls[at] = 0.0, 1.0

    def _set_price(self, terms: Terms, unit: float) -> float | None:
        """The price that these terms set; None where it follows from the belief: a share to keep, no frontier."""
        return None if self.planner.prices is None and terms.keep is not None else self._price(terms, unit)

    def _price(self, terms: Terms, unit: float) -> float:
        if self.planner.prices is None:
            return price_at(DIAL if terms.dial is None else terms.dial)
        return self.planner.prices.price(terms, _before(self.step, terms, self.world), unit)

    def _odds(self) -> Odds:
        costs = Unit.of(self.first).costs(self.first)
        return Odds.of(self._grid.success, costs, *_rates(self.world), self.terms.harm)


def _rates(world: World) -> tuple[float, float]:
    return (1.0, 1.0) if world.checking.kind == "none" else world.rates


def _before(step: Step, terms: Terms, world: World) -> Situation:
    """Where a step stands before its first call."""
    seen, passed = _rates(world)
    return Situation(step=step, terms=terms, sensitivity=seen, false_accept=passed)


def _decides_once(world: World, terms: Terms) -> bool:
    """Whether the first call is the only decision: nobody judges its answer, and nothing may be compared with it."""
    looks = SECOND_LOOKS & set(terms.modes) and any(rung.temperature is None for rung in terms.ladder)
    return world.checking.kind == "none" and not looks
