"""All rules over a batch of rows: what is known of each, what they say of it, and what a token changes.

For every token a carrier asks `said` (what to do before it), and then `after` (what it changes). Both are functions of
their arguments alone, so that a step can be computed twice, or for tokens that are then rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor.stops import budget, group, margin, place, repetition, steps
from governor.stops.arrays import Array, Namespace, columns, flag, matrix, names, width
from governor.stops.group import Group
from governor.stops.place import Place
from governor.stops.settings import MAX_PERIOD, MAX_STEPS, Stops
from governor.stops.steps import Edges, Steps
from governor.stops.verdict import Findings, verdict

_NEVER = 1e18


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings as columns (rows,); a rule that is off has a threshold that is never met."""

    budget: Array
    room: Array
    least: Array
    margin: Array
    wide_margin: Array
    temperature: Array
    group: Array
    group_window: Array
    group_top: Array
    low_confidence: Array
    high_confidence: Array
    low_variance: Array
    high_variance: Array
    step_window: Array
    few: Array
    times: Array
    longest: Array
    tokens: Array


def limits_of(stops: Stops, *, room: int | None = None, temperature: float | None = None) -> NDArray[np.float64]:
    """One row of `Limits`. `room` is the reply's `max_tokens`; a temperature of 0 or None counts as 1."""
    narrow = -_NEVER if stops.margin is None else stops.margin
    values = Limits(
        budget=_NEVER if stops.budget is None else stops.budget,
        room=_NEVER if room is None or not stops.reserve else max(room - stops.reserve, 0),
        least=stops.least,
        margin=narrow,
        wide_margin=narrow if stops.wide_margin is None else stops.wide_margin,
        temperature=temperature or 1.0,
        group=-_NEVER if stops.group is None else stops.group,
        group_window=stops.group_window,
        group_top=stops.group_top,
        low_confidence=-1.0 if stops.low_confidence is None else stops.low_confidence,
        high_confidence=2.0 if stops.high_confidence is None else stops.high_confidence,
        low_variance=-1.0 if stops.low_variance is None else stops.low_variance,
        high_variance=2.0 if stops.high_variance is None else stops.high_variance,
        step_window=stops.step_window,
        few=stops.few,
        times=_NEVER if stops.repeat is None else stops.repeat,
        longest=stops.repeat_period,
        tokens=stops.repeat_tokens,
    )
    return np.array([getattr(values, name) for name in names(Limits)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Signals:
    """What the distribution of the next token shows (rows,).

    `margin` of the end of thought, `top` = ln p_max, `spread` = DeepConf's token confidence; `known` is 0 where no
    log-probabilities were given. `turning` is 1 where the likeliest token ends the thought, given a phrase to go on.
    """

    margin: Array
    top: Array
    spread: Array
    known: Array
    turning: Array


@dataclass(frozen=True, slots=True)
class Uses:
    """Which rules any of the rows uses: what none does costs nothing."""

    group: bool = False
    steps: bool = False
    repeat: bool = False

    def __or__(self, other: Uses) -> Uses:
        return Uses(self.group or other.group, self.steps or other.steps, self.repeat or other.repeat)

    @classmethod
    def of(cls, stops: Stops) -> Uses:
        return cls(stops.group is not None, stops.steps, stops.repeat is not None)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of each row: matrices with the columns of `Place`, `Group`, `Steps`, and the rules' memories."""

    place: Array
    group: Array
    steps: Array
    confidences: Array
    tokens: Array
    runs: Array

    def at(self, rows: Array) -> Rows:
        """Some of the rows, copied."""
        return Rows(*(getattr(self, name)[rows] for name in names(Rows)))

    def put(self, rows: Array, values: Rows) -> None:
        """Overwrite some of the rows."""
        for name in names(Rows):
            getattr(self, name)[rows] = getattr(values, name)

    def where(self, xp: Namespace, chosen: Array, other: Rows) -> Rows:
        """These rows where `chosen`, the other ones elsewhere."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in names(Rows))
        return Rows(*(xp.where(chosen[:, None], mine, theirs) for mine, theirs in pairs))


def fresh(count: int) -> Rows:
    """Rows of which nothing is known yet (numpy): outside any thought."""
    group_state = np.zeros((count, width(Group)))
    group_state[:, names(Group).index("lowest")] = _NEVER
    return Rows(
        place=np.zeros((count, width(Place))),
        group=group_state,
        steps=np.zeros((count, width(Steps))),
        confidences=np.zeros((count, MAX_STEPS)),
        tokens=np.full((count, MAX_PERIOD), -1.0),
        runs=np.zeros((count, MAX_PERIOD)),
    )


class Rules:
    """The rules in one array namespace. `made` turns a numpy array into one of the namespace's, on its device.

    `anywhere`: the rules for being stuck judge the whole reply, not only its thought.
    """

    def __init__(self, xp: Namespace, made: Callable[[NDArray[np.float64]], Array], *, anywhere: bool = False) -> None:
        self.xp = xp
        self._anywhere = anywhere
        self._ages = made(np.arange(MAX_STEPS, dtype=np.float64))
        self._periods = made(np.arange(1, MAX_PERIOD + 1, dtype=np.float64))

    def said(self, limits: Limits, rows: Rows, signals: Signals, length: Array, uses: Uses) -> Array:
        """What the rules say (rows,) before the next token, whose distribution gave `signals`.

        `length` (rows,) is how many tokens ending the thought for its budget takes.
        """
        xp = self.xp
        here, known = columns(Place, rows.place), signals.known > 0
        inside = (here.inside > 0) & (here.tool == 0)
        never = here.made < 0
        sure, suspicious, low, repeating = never, never, never, never
        threshold = limits.margin
        if uses.steps:
            diagnosis = columns(Steps, rows.steps)
            suspicious = (diagnosis.sure > 0) & (here.count < limits.few)
            threshold = xp.where(diagnosis.hesitant > 0, limits.wide_margin, limits.margin)
        if uses.group:
            low = group.low(columns(Group, rows.group), limits.group_window, limits.group)
        if uses.repeat:
            repeating = repetition.stuck(xp, rows.runs, self._periods, limits.times, limits.longest, limits.tokens)
        sure = inside & known & margin.sure(signals.margin, limits.temperature, threshold, here.sentence)
        early = inside & budget.early(here.count, limits.least)
        due = inside & budget.due(here.count, here.made, limits.budget, limits.room, length)
        turning = inside & (signals.turning > 0)
        free = place.free(here, anywhere=self._anywhere)
        return verdict(xp, Findings(free, early, due, repeating, low, sure, suspicious, turning))

    def after(
        self,
        limits: Limits,
        rows: Rows,
        signals: Signals,
        token: Array,
        packed: Array,
        leaving: Array,
        generated: Array,
        own: Array,
        uses: Uses,
    ) -> Rows:
        """The rows after `token` (rows, whole numbers), whose entry in the marks' table is `packed`.

        `generated` is 1 for tokens that are not the prompt's, `own` for those that the model chose itself: of these
        alone the rules keep statistics. `leaving` is what leaves the group's window (see `group.entered`).
        """
        xp = self.xp
        here = columns(Place, rows.place)
        counted = own * (here.tool == 0) if self._anywhere else own * flag(xp, (here.inside > 0) & (here.tool == 0))
        moved = matrix(xp, place.moved(xp, here, packed, generated, anywhere=self._anywhere))
        grouped, stepping, confidences, tokens, runs = rows.group, rows.steps, rows.confidences, rows.tokens, rows.runs
        if uses.group:
            window = columns(Group, rows.group)
            value = group.entered(xp, window, signals.spread, leaving, limits.group_window, counted * signals.known)
            grouped = matrix(xp, value)
        if uses.steps:
            edges = Edges(
                limits.low_confidence,
                limits.high_confidence,
                limits.low_variance,
                limits.high_variance,
                limits.step_window,
            )
            state, confidences = steps.stepped(
                xp,
                columns(Steps, rows.steps),
                rows.confidences,
                signals.top,
                place.paragraph(packed),
                counted * signals.known,
                edges,
                self._ages,
            )
            stepping = matrix(xp, state)
        if uses.repeat:
            tokens, runs = repetition.repeated(xp, rows.tokens, rows.runs, flag(xp, token), counted)
        return Rows(moved, grouped, stepping, confidences, tokens, runs)

    def window_place(self, limits: Limits, rows: Rows) -> Array:
        """Where in the group's window (rows,) the next token's confidence is kept, and the one that leaves stands."""
        return group.next_place(self.xp, columns(Group, rows.group), limits.group_window)
