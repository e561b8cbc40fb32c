"""Which threshold of a stop rule holds a risk? Learn-then-Test, as for dials (`governor.learn.certify`).

The risk is that of losing a right answer: the stopped answer is wrong and the whole thought's is right. A rule's
thresholds are put in an order fixed beforehand, from one that hardly ever ends a thought to the most eager, and tested
until one fails. Where thresholds are read off the records (confidences, scores, margins), a quarter of the questions
tells them, and the others alone are counted. Several rules share risk and delta evenly: a thought that several rules
watch ends where one of them would have ended it alone, so that together they lose no more than the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from governor.errors import RecordError
from governor.estimate.curves import Floats
from governor.learn.certify import Bools, Trial, Trials, certify, one_per_group
from governor.learn.looks import Looks, Places
from governor.learn.table import folds
from governor.learn.thoughts import REPEATS, Thought, lowest_group, repeats
from governor.stops.settings import Stops

GRID = 24
"""Thresholds at most of a rule whose thresholds are read off the records."""

PARTS = 4
"""One in so many questions tells those thresholds."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """T thresholds of one rule, from hardly ever to eager, on the N thoughts that are counted.

    `groups` (N,); (T, N): whether the thought is `ended` early, and whether a right answer is `lost` by it.
    `settings`: the other keys of `stops` that the rule was read with, which its thresholds mean nothing without.
    """

    name: str
    thresholds: Floats
    groups: tuple[str, ...]
    ended: Bools
    lost: Bools
    settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was found of one rule: its `trials` in the order tested, and thoughts ended at each threshold tested."""

    thresholds: tuple[float, ...]
    ended: tuple[int, ...]
    trials: Trials
    settings: Mapping[str, int]

    @property
    def name(self) -> str:
        """The rule."""
        return self.trials.node

    @property
    def threshold(self) -> float | None:
        """The most eager one that holds the risk; None where not even the first was shown to."""
        return self.thresholds[len(self.trials.dials) - 1] if self.trials.dials else None

    @property
    def shown(self) -> Trial:
        """The test of that threshold; of the first where none passed."""
        return self.trials.certified or self.trials.each[0]


def fit_stops(rules: Sequence[Rule], *, risk: float, delta: float, seed: int = 0) -> tuple[Fitted, ...]:
    """The most eager thresholds at which all rules together lose a right answer with probability `risk` at most.

    That holds with probability 1 - `delta`. Of each group one thought, drawn by `seed`, is counted.
    """
    return tuple(_fitted(rule, risk / len(rules), delta / len(rules), seed) for rule in rules)


def _fitted(rule: Rule, risk: float, delta: float, seed: int) -> Fitted:
    kept = one_per_group(rule.groups, seed)
    eagerness = np.linspace(0.0, 1.0, len(rule.thresholds)) if len(rule.thresholds) > 1 else np.zeros(1)
    each = certify(eagerness, rule.lost[:, kept].astype(np.float64), risk=risk, delta=delta)
    return Fitted(
        thresholds=tuple(rule.thresholds[: len(each)].tolist()),
        ended=tuple(rule.ended[: len(each), kept].sum(axis=1).tolist()),
        trials=Trials(node=rule.name, kind="lost-correct", risk=risk, delta=delta, units=len(kept), each=each),
        settings=rule.settings,
    )


def budget_rule(looks: Looks) -> Rule:
    """`budget`: the thought is cut at one of the ladder's budgets, the largest first."""
    places = np.arange(len(looks.rungs) - 2, -1, -1)
    within = np.arange(len(looks.rungs))[None, :]
    at = np.array([looks.ended(within >= place) for place in places])
    return _looked("budget", looks.budgets[places], looks, at)


def score_rule(looks: Looks, field: str, *, seed: int) -> Rule:
    """A score of the answer at each look, such as `p_top`: the first answer with this score or more is taken."""
    return _signalled(looks, field, 1.0, seed)


def margin_rule(looks: Looks, *, seed: int) -> Rule:
    """`margin`: the thought ends at the first look whose recorded margin of the end of thought is this or less."""
    return _signalled(looks, "margin", -1.0, seed)


def repeat_rule(thoughts: Sequence[Thought]) -> Rule:
    """`repeat`: a thought that goes round in circles is given up. Its answer is not used, so a right one is lost."""
    most = np.array([repeats(thought) for thought in thoughts])
    rule = _stuck("repeat", np.array(REPEATS, dtype=np.float64), thoughts, most[None, :] >= np.array(REPEATS)[:, None])
    return replace(rule, settings={"repeat_period": Stops().repeat_period, "repeat_tokens": Stops().repeat_tokens})


def group_rule(thoughts: Sequence[Thought], window: int, top: int, *, seed: int) -> Rule:
    """`group`: a thought whose confidence falls below this is given up, and a right answer of it is lost.

    RecordError where no thought has log-probabilities over a full window.
    """
    found = [lowest_group(thought, window, top) for thought in thoughts]
    lowest = np.array([np.inf if one is None else one for one in found])
    if not np.isfinite(lowest).any():
        raise RecordError(f"no thought here has log-probabilities over a full window of {window} tokens: group")
    choosing = _choosing([thought.group for thought in thoughts], seed)
    thresholds = _grid(lowest[choosing & np.isfinite(lowest)], "group")
    counted = [thought for thought, chosen in zip(thoughts, choosing.tolist(), strict=True) if not chosen]
    rule = _stuck("group", thresholds, counted, lowest[None, ~choosing] < thresholds[:, None])
    return replace(rule, settings={"group_window": window, "group_top": top})


def _stuck(name: str, thresholds: Floats, thoughts: Sequence[Thought], ended: Bools) -> Rule:
    right = np.array([thought.right for thought in thoughts], dtype=np.bool_)
    return Rule(name, thresholds, tuple(thought.group for thought in thoughts), ended, ended & right)


def _signalled(looks: Looks, name: str, sign: float, seed: int) -> Rule:
    """Ends at the first look where `sign` x signal is at least `sign` x threshold."""
    signal = sign * np.where(looks.known, looks.signals[name], np.nan)
    choosing = _choosing(looks.groups, seed)
    early = np.arange(len(looks.rungs))[None, :] < looks.last[:, None]  # the whole thought's own figure ends nothing
    told = signal[choosing[:, None] & early & ~np.isnan(signal)]
    thresholds = -_grid(-told, name)
    rule = _looked(name, sign * thresholds, looks, np.array([looks.ended(signal >= least) for least in thresholds]))
    counted = np.flatnonzero(~choosing)
    groups = tuple(rule.groups[n] for n in counted.tolist())
    return Rule(name, rule.thresholds, groups, rule.ended[:, counted], rule.lost[:, counted])


def _grid(eager: Floats, name: str) -> Floats:
    """Quantiles of figures, rising. RecordError where there is none."""
    if not eager.size:
        raise RecordError(f"too few records tell a threshold of {name}")
    return np.unique(np.quantile(eager, np.linspace(0.0, 1.0, GRID), method="lower"))


def _choosing(groups: Sequence[str], seed: int) -> Bools:
    """(N,): the quarter of the questions that tells thresholds. RecordError where there are too few groups."""
    chosen: Bools = folds(groups, PARTS, seed) == 0
    return chosen


def _looked(name: str, thresholds: Floats, looks: Looks, at: Places) -> Rule:
    lost = np.array([looks.lost(places) for places in at], dtype=np.bool_)
    thought = np.arange(len(looks.groups))
    ended = looks.tokens[thought, at] < looks.tokens[thought, looks.last]
    return Rule(name, thresholds, looks.groups, ended, lost)
