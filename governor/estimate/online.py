"""Learning while serving: an estimator that recalibrates another, and a sink that learns from what became of its steps.

    online = Online(RuleEstimator(), shelf=ledger, name="support", wealth=Wealth.two_sided)
    Governor(policy, ledger=ledger, estimator=online, sinks=[online])

What it learned lies on a shelf, where replicas add up what they saw. A shelf that fails never stops a step: the replica
goes on with its own values, says so (`problem`, and in a belief's reasons), and hands everything in later.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from governor.aside import Aside
from governor.errors import LedgerError
from governor.estimate.adjusted import AdjustedBelief, Learned, joint, odds_for
from governor.estimate.curves import Floats
from governor.estimate.evidence import HALF_LIFE, Evidence, Ints
from governor.estimate.lessons import Begun, Unlabelled, observations, posterior, unlabelled
from governor.estimate.recalibration import Observed, Recalibration, logit
from governor.estimate.session import SessionEffect
from governor.estimate.template import Templates
from governor.protocols import Estimator, Shelf, Situation, Terms
from governor.records import Attempt, Outcome, Step
from governor.shelf import update

T = TypeVar("T")

PENDING = 2_048
"""Steps begun and not ended that are remembered; the outcome of an older one teaches nothing."""

SESSIONS = 1_024
"""Sessions that a replica remembers; those longest unseen give way."""

SESSION_SECONDS = 3_600.0
"""Time to live of a session on the shelf."""

ALARM = 1e-3
"""Chance, per rung, of ever calling drift where there is none: the alarm is at a wealth of 1 / ALARM."""

ALARMED = 200
"""Outcomes of a rung for which an alarm lasts."""

_TEMPERATURE = 0.7  # by which the logits of a rung whose forecasts drifted are multiplied
_FORGOTTEN = 2.0 * HALF_LIFE  # outcomes as which an alarm ages the evidence: a quarter of it is left
_NO_EFFECT = SessionEffect()
_TRIES = 8  # of an update within a step: a busy shelf is left for later
_LONGEST_WAIT = 64  # flushes that are left out at most after failures


class Betting(Protocol):
    """An e-process on calibration (`governor.estimate.drift`): wealth won by betting against the forecasts."""

    @property
    def value(self) -> float: ...

    def after(self, outcome: float, expected: float) -> Betting: ...


class LocalOnlyWarning(UserWarning):
    """What is learned while serving can't be shared for now; steps go on with this replica's own values."""


@dataclass(frozen=True, slots=True)
class _Values:
    """Everything that estimates read: replaced as a whole, so that reading it needs no lock."""

    recalibration: Recalibration
    templates: Templates

    @classmethod
    def of(cls, evidence: Evidence) -> _Values:
        values = cls(Recalibration(evidence), Templates(evidence))
        values.recalibration.prepare()  # here, so that no step waits for it
        values.templates.prepare()
        return values


@dataclass(slots=True)
class _Session:
    """A session as this replica knows it, and what of that is not on the shelf yet."""

    effect: SessionEffect = _NO_EFFECT
    fresh: SessionEffect = _NO_EFFECT
    steps: int = 0
    asked: bool = False


@dataclass(slots=True)
class _Unshared:
    """What was learned since the last flush, and by how many outcomes the shelf's evidence has to be aged."""

    evidence: Evidence = field(default_factory=Evidence)
    age: float = 0.0


class Online:
    """Estimator and Sink (governor.protocols). Safe for many threads; estimates do no I/O.

    An estimate holds a lock only while it notes what its outcome will be compared with.

    `name` tells applications on one shelf apart. `wealth` makes the e-process of a rung's calibration (None: no watch
    for drift). Learned values are handed in after every `every` outcomes and at `close`, which leaves the shelf open.
    """

    def __init__(
        self,
        inner: Estimator,
        *,
        shelf: Shelf | None = None,
        name: str = "default",
        wealth: Callable[[], Betting] | None = None,
        every: int = 16,
    ) -> None:
        self.inner = inner
        self.problem = ""
        self._shelf = shelf
        self._key = f"online:{name}"
        self._wealth = wealth
        self._every = every
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._aside = Aside(shelf)
        self._values = _Values.of(Evidence())
        self._unshared = _Unshared()
        self._begun: OrderedDict[str, Begun] = OrderedDict()
        self._unlabelled: OrderedDict[str, Unlabelled] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._bets: dict[str, Betting] = {}
        self._alarms: dict[str, int] = {}
        self._since, self._wait, self._failures = 0, 0, 0
        self._aside(self.flush)

    @property
    def evidence(self) -> Evidence:
        """What was learned so far, by all replicas as of the last flush and by this one since."""
        return self._values.recalibration.evidence

    @property
    def alarmed(self) -> tuple[str, ...]:
        """Rungs whose forecasts were found to have drifted, and are held less sure for now."""
        return tuple(sorted(self._alarms))

    def session(self, session: str) -> SessionEffect:
        """What this replica believes of a session."""
        known = self._sessions.get(session)
        return known.effect if known else SessionEffect()

    def estimate(self, step: Step, terms: Terms) -> AdjustedBelief:
        """The inner estimator's belief, recalibrated and moved by the step's session."""
        belief = self.inner.estimate(step, terms)
        values = self._values
        effect = self._session_of(step.session)
        grid = joint(belief, Situation(step=step, terms=terms))
        weights = effect.shifted(grid.weights)
        heads = tuple([rung.id for rung in terms.ladder])
        cluster, sketch = values.templates.find(step)
        raw = grid.success @ weights
        recalibrated = self._tempered(values.recalibration.apply(raw, heads, cluster), heads)
        odds = odds_for(grid.success, weights, raw, recalibrated)
        gridded = weights if grid.weights.size > 1 else None
        self._remember(step.id, Begun(heads, raw, odds, cluster, sketch, gridded, grid.answer))
        return AdjustedBelief(
            inner=belief,
            heads=heads,
            odds=odds,
            weights=gridded,
            prior=gridded,
            learned=self._learned(odds, effect, heads),
        )

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        """Learn from an outcome (an attempt alone is part of one that follows); now and then share what was learned."""
        if isinstance(record, Attempt):
            return
        with self._lock:
            begun = self._begun.pop(step.id, None)
            if begun is None:
                return
            for seen, expected in observations(begun, record):
                self._learn(seen, expected, begun.sketch)
            self._learn_session(step.session, begun, record)
            shipped = unlabelled(begun, record)
            if shipped is not None:
                _keep(self._unlabelled, step.id, shipped)
            due = self._learned_one()
        if due:
            self._aside(lambda: self.flush(patient=True))

    def label(self, step_id: str, correct: bool) -> bool:
        """Learn whether the answer that a step shipped was right, in place of what a verifier's verdict taught of it.

        False where nothing is known of the step: it ran elsewhere, long ago, or was labelled already. Which answers are
        labelled must not depend on their being right.
        """
        with self._lock:
            known = self._unlabelled.pop(step_id, None)
            if known is None:
                return False
            taught = known.verdict
            for seen, expected in known.labelled(correct):
                self._learn(seen, expected, known.sketch, taught)
                taught = None  # the verdict was on the answer that shipped
            due = self._learned_one()
        if due:
            self._aside(lambda: self.flush(patient=True))
        return True

    def flush(self, *, patient: bool = False) -> None:
        """Hand in what was learned and take up what others learned; `patient` leaves out turns after failures."""
        shelf = self._shelf
        with self._flushing:
            self._since = 0
            if shelf is None:
                return
            if patient and self._wait > 0:
                self._wait -= 1
                return
            try:
                self._share(shelf)
                self._share_sessions(shelf, everything=not patient)
            except LedgerError as fault:
                self._failed(fault)
            else:
                self.problem, self._failures = "", 0

    def close(self) -> None:
        """Hand in what was learned. The shelf stays open: it is the ledger's."""
        self.flush()

    def _session_of(self, session: str) -> SessionEffect:
        if not session:
            return _NO_EFFECT
        known = self._sessions.get(session)
        if known is not None:
            return known.effect
        with self._lock:
            self._know(session)  # what the shelf has of it comes with the next flush: estimates do no I/O
        return _NO_EFFECT

    def _know(self, session: str) -> _Session:
        known = self._sessions.setdefault(session, _Session())
        self._sessions.move_to_end(session)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return known

    def _remember(self, step: str, begun: Begun) -> None:
        with self._lock:
            _keep(self._begun, step, begun)

    def _tempered(self, p: Floats, heads: tuple[str, ...]) -> Floats:
        alarms = self._alarms
        if not alarms:
            return p
        by = np.array([_TEMPERATURE if head in alarms else 1.0 for head in heads])
        tempered: Floats = 1.0 / (1.0 + np.exp(-by * logit(p)))
        return tempered

    def _learned(self, odds: Floats, effect: SessionEffect, heads: tuple[str, ...]) -> Learned:
        factors: list[float] = odds.tolist()
        low, high = min(factors, default=1.0), max(factors, default=1.0)
        extreme = high if high * low > 1.0 else low
        return Learned(
            factor=extreme,
            outcomes=self._values.recalibration.evidence.count,
            session=effect.mean,
            alarmed=tuple([head for head in heads if head in self._alarms]) if self._alarms else (),
            problem=self.problem,
        )

    def _learned_one(self) -> bool:
        """Make what was learned count for estimates; whether it is time to share it."""
        self._values = _Values.of(self._values.recalibration.evidence)
        self._since += 1
        return self._since >= self._every

    def _learn(self, seen: Observed, expected: float, sketch: Ints, known: Observed | None = None) -> None:
        recalibration = self._values.recalibration
        fresh = recalibration.learned(seen, sketch)
        if known is not None:
            fresh = fresh.instead_of(recalibration.learned(known, sketch))
        aged = 1.0 + self._watch(seen, expected)
        self._values = replace(
            self._values, recalibration=Recalibration(recalibration.evidence.faded(aged).plus(fresh))
        )
        self._unshared = _Unshared(self._unshared.evidence.faded(aged).plus(fresh), self._unshared.age + aged)

    def _watch(self, seen: Observed, expected: float) -> float:
        """Bet on the outcome; returns the outcomes as which an alarm ages the evidence, 0 without alarm."""
        if self._wealth is None:
            return 0.0
        head = seen.head
        left = self._alarms.get(head, 0) - 1
        if left <= 0:
            self._alarms = {other: more for other, more in self._alarms.items() if other != head}
        else:
            self._alarms = {**self._alarms, head: left}
        bets = (self._bets.get(head) or self._wealth()).after(float(seen.accepted), expected)
        if bets.value < 1.0 / ALARM:
            self._bets[head] = bets
            return 0.0
        self._bets.pop(head, None)  # betting begins anew, on what will be learned from here on
        self._alarms = {**self._alarms, head: ALARMED}
        return _FORGOTTEN

    def _learn_session(self, session: str, begun: Begun, outcome: Outcome) -> None:
        if not session or begun.weights is None:
            return
        known = self._know(session)
        later = known.effect.after(begun.weights, posterior(begun, begun.weights, outcome))
        known.fresh = known.fresh.plus(later.minus(known.effect)).faded()
        known.effect = later.faded()
        known.steps += 1

    def _share(self, shelf: Shelf) -> None:
        with self._lock:
            handed, self._unshared = self._unshared, _Unshared()

        def merged(old: bytes | None) -> bytes:
            stored = Evidence.from_bytes(old) if old else Evidence()
            return stored.faded(handed.age).plus(handed.evidence).to_bytes()

        try:
            if handed.age == 0.0:
                found = shelf.load(self._key)
                shared = Evidence.from_bytes(found[0]) if found else Evidence()
            else:
                shared = Evidence.from_bytes(update(shelf, self._key, merged, attempts=_TRIES))
        except BaseException:
            with self._lock:  # nothing is lost: it is handed in next time, with what came since
                since = self._unshared
                whole = handed.evidence.faded(since.age).plus(since.evidence)
                self._unshared = _Unshared(whole, handed.age + since.age)
            raise
        with self._lock:
            since = self._unshared
            self._values = _Values.of(shared.faded(since.age).plus(since.evidence))

    def _share_sessions(self, shelf: Shelf, *, everything: bool) -> None:
        with self._lock:
            known = list(self._sessions.items())
        for name, session in known:
            if everything or session.steps or not session.asked:
                self._share_session(shelf, name, session)

    def _share_session(self, shelf: Shelf, name: str, known: _Session) -> None:
        key = f"{self._key}:session:{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
        with self._lock:
            fresh, steps = known.fresh, known.steps

        def merged(old: bytes | None) -> bytes:
            stored = SessionEffect.from_bytes(old) if old else SessionEffect()
            return stored.faded(steps).plus(fresh).to_bytes()

        if steps:
            shared = SessionEffect.from_bytes(update(shelf, key, merged, ttl=SESSION_SECONDS, attempts=_TRIES))
        else:
            found = shelf.load(key)
            shared = SessionEffect.from_bytes(found[0]) if found else SessionEffect()
        with self._lock:
            known.fresh, since = known.fresh.minus(fresh.faded(known.steps - steps)), known.steps - steps
            known.effect = shared.faded(since).plus(known.fresh)
            known.steps, known.asked = since, True

    def _failed(self, fault: LedgerError) -> None:
        """Go on alone, and try less often the longer it lasts."""
        self._wait = min(2**self._failures, _LONGEST_WAIT)
        self._failures += 1
        self.problem = f"learned values are this replica's own: {fault}"
        if self._failures == 1:
            warnings.warn(LocalOnlyWarning(self.problem), stacklevel=3)


def _keep(waiting: OrderedDict[str, T], step: str, value: T) -> None:
    """Remember it; the oldest gives way."""
    waiting[step] = value
    if len(waiting) > PENDING:
        waiting.popitem(last=False)
