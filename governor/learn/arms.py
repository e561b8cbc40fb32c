"""What the arms of a rollout came to: governed sessions beside control ones, and what shadow steps promise to save.

A canary deals whole sessions to its arms, so that a session, not a step, is the unit: figures are ratios of sums over
sessions, and their errors those of a ratio estimator under cluster sampling (Cochran, Sampling Techniques, 3rd ed.,
1977, section 6.3). Shares have Wilson intervals with the sample size that clustering leaves (Korn & Graubard, Survey
Methodology 24, 1998), their differences Newcombe's (Statistics in Medicine 17, 1998, method 10); ratios of costs have
intervals on the logarithmic scale. No draw is made: the same records always give the same report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeAlias

Interval: TypeAlias = tuple[float, float]

LEAST_SESSIONS: Final = 30
"""Below, normal approximations are not to be trusted, and no interval is given."""

Z: Final = 1.959964
"""The normal quantile of two-sided 95 % intervals."""

ARMS: Final = ("governed", "control", "shadow")
_JUDGED: Final = ("accepted", "best_so_far")
_UNANSWERED: Final = ("refused", "error")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, and its 95 % interval where there are sessions enough for one."""

    value: float
    interval: Interval | None = None


class _Sums:
    """Figures that are added field by field."""

    __slots__: tuple[str, ...] = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Session(_Sums):
    """Sums over one session's steps. `micros` are micro-USD, `seconds` wall-clock."""

    steps: float = 0.0
    judged: float = 0.0
    accepted: float = 0.0
    unanswered: float = 0.0
    micros: float = 0.0
    output_tokens: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Promise(_Sums):
    """Sums of what was forecast of one shadow arm's steps; micro-USD, and probabilities as sums over steps."""

    steps: int = 0
    refused: int = 0
    """Steps for which Governor would have called no model."""
    baseline: float = 0.0
    governed: float = 0.0
    """The first call, its verdict taken as the forecast has it: where it is rejected the baseline is paid as well."""
    measured: float = 0.0
    """What the baseline really cost in these steps."""
    baseline_right: float = 0.0
    first_right: float = 0.0


@dataclass(slots=True)
class Arm:
    """One arm's sessions by name, and the verifiers that judged there."""

    sessions: dict[str, Session] = field(default_factory=dict)
    verifiers: set[str] = field(default_factory=set)

    def total(self, name: str) -> float:
        """A sum over all sessions."""
        return math.fsum(getattr(one, name) for one in self.sessions.values())

    def per(self, name: str, base: str = "steps") -> Figure | None:
        """A mean per step (or another `base`) with its interval; None where there is nothing to divide by."""
        found = self._ratio(name, base)
        if found is None:
            return None
        value, error = found
        if error is None:
            return Figure(value)
        spread = Z * error / value if value else 0.0
        return Figure(value, (value * math.exp(-spread), value * math.exp(spread)))

    def share(self, name: str, base: str = "steps") -> Figure | None:
        """A share of steps (or another `base`) with its interval; None where there is nothing to divide by."""
        found = self._ratio(name, base)
        if found is None:
            return None
        value, error = found
        return Figure(value) if error is None else Figure(value, _wilson(value, self._effective(value, error, base)))

    def _effective(self, share: float, error: float, base: str) -> float:
        """How many independent trials would be as sure: never more than there were."""
        trials = self.total(base)
        return min(trials, share * (1.0 - share) / error**2) if error > 0.0 else min(trials, len(self.sessions))

    def _ratio(self, name: str, base: str) -> tuple[float, float | None] | None:
        """A ratio of sums, and its standard error where there are sessions enough."""
        below = self.total(base)
        if not below:
            return None
        value, n = self.total(name) / below, len(self.sessions)
        if n < LEAST_SESSIONS:
            return value, None
        apart = math.fsum((getattr(one, name) - value * getattr(one, base)) ** 2 for one in self.sessions.values())
        return value, math.sqrt(apart * n / (n - 1)) / below


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step's records say, whole or not at all."""

    arm: str
    session: str
    verifiers: frozenset[str]
    came: Session
    promised: Promise


@dataclass(slots=True)
class Rollout:
    """The arms of one group of records, and what is forecast of its shadow steps."""

    arms: dict[str, Arm] = field(default_factory=dict)
    promise: Promise = field(default_factory=Promise)

    def add(self, step: _Step) -> None:
        arm = self.arms.setdefault(step.arm, Arm())
        arm.verifiers |= step.verifiers
        arm.sessions[step.session] = arm.sessions.get(step.session, Session()) + step.came
        self.promise += step.promised

    def saved(self, name: str) -> Figure | None:
        """The share of control's mean per step that governed steps saved; None where an arm or its cost is missing."""
        governed, control = (self.arms.get(arm, Arm()).per(name) for arm in ("governed", "control"))
        if governed is None or control is None or not control.value:
            return None
        ratio = governed.value / control.value
        if governed.interval is None or control.interval is None or not ratio:
            return Figure(1.0 - ratio)
        spread = math.hypot(*(math.log(one.interval[1] / one.value) for one in (governed, control) if one.interval))
        return Figure(1.0 - ratio, (1.0 - ratio * math.exp(spread), 1.0 - ratio * math.exp(-spread)))

    def gained(self, name: str, base: str = "steps") -> Figure | None:
        """Governed share less control's; None where either has none."""
        governed, control = (self.arms.get(arm, Arm()).share(name, base) for arm in ("governed", "control"))
        if governed is None or control is None:
            return None
        return _difference(governed, control)

    @property
    def comparable(self) -> bool:
        """Whether the same verifiers judged both arms: those that cost money are left out where nothing is governed."""
        governed, control = (self.arms.get(arm, Arm()).verifiers for arm in ("governed", "control"))
        return bool(governed) and governed == control


@dataclass(frozen=True, slots=True)
class Told:
    """Rollouts by group ("" is everything together), and how many steps were left out for which reason."""

    groups: Mapping[str, Rollout]
    left_out: Mapping[str, int]


def rollouts(records: Iterable[Mapping[str, Any]], by: str | None = None) -> Told:
    """Read record lines (`governor.telemetry.records`); `by` names the field of an outcome that groups them besides.

    Steps that are parts of others are counted with these. Governed steps count only under policies (by digest) that had
    a control arm too, where there is any control arm: others ran at other times, or on other traffic. What verifiers
    cost is taken out of the arms that are not governed: nobody would have paid it without Governor.
    """
    attempts: dict[str, dict[Any, Mapping[str, Any]]] = {}  # by number: a resumed run may write one twice
    outcomes: dict[str, Mapping[str, Any]] = {}
    for record in records:
        kind, step = record.get("kind"), str(record.get("step_id"))
        if kind == "attempt":
            attempts.setdefault(step, {})[record.get("attempt")] = record
        elif kind == "outcome":
            outcomes[step] = record
    left_out: Counter[str] = Counter()
    groups: dict[str, Rollout] = {"": Rollout()}
    shared = _shared([*outcomes.values()])
    for step, outcome in outcomes.items():
        if why := _foreign(outcome, shared):
            left_out[why] += 1
            continue
        try:
            read = _read(outcome, [*attempts.get(step, {}).values()])
        except (KeyError, TypeError, AttributeError):
            left_out["steps whose records lack what a report reads"] += 1
            continue
        for name in {"", str(outcome.get(by) or "") if by else ""}:
            groups.setdefault(name, Rollout()).add(read)
    return Told(groups, left_out)


def _shared(outcomes: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
    """Digests of the policies that had a control arm; None where no step was in one."""
    found = frozenset(str(one.get("policy")) for one in outcomes if one.get("arm") == "control")
    return found or None


def _foreign(outcome: Mapping[str, Any], shared: frozenset[str] | None) -> str:
    """Why a step is left out; "" where it is not."""
    if outcome.get("parent"):
        return "parts of other steps"
    if outcome.get("arm") not in ARMS:
        return "steps of no arm that is known"
    if outcome["arm"] == "governed" and shared is not None and str(outcome.get("policy")) not in shared:
        return "governed steps under policies without a control arm"
    return ""


def _read(outcome: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> _Step:
    verdicts = [one["verdict"] for one in attempts if one.get("verdict")]
    checked = _checked(verdicts, outcome)
    return _Step(
        arm=outcome["arm"],
        session=str(outcome.get("session") or outcome["step_id"]),
        verifiers=frozenset(verdict["verifier"] for verdict in verdicts),
        came=Session(
            steps=1,
            judged=outcome["status"] in _JUDGED,
            accepted=outcome["status"] == "accepted",
            unanswered=outcome["status"] in _UNANSWERED,
            micros=outcome["micros"] - checked.micros,
            output_tokens=outcome["usage"]["output_tokens"] + checked.output_tokens,
            seconds=outcome["seconds"] - checked.seconds,
        ),
        promised=_promise(outcome, attempts[0]) if outcome["arm"] == "shadow" and attempts else Promise(),
    )


def _checked(verdicts: Sequence[Mapping[str, Any]], outcome: Mapping[str, Any]) -> Session:
    """What verifiers cost: a part of a governed step's price (its tokens stand apart), none of another's."""
    if outcome["arm"] == "governed":
        return Session(output_tokens=outcome["verifier_usage"]["output_tokens"])
    return Session(micros=sum(one["micros"] for one in verdicts), seconds=sum(one["seconds"] for one in verdicts))


def _promise(outcome: Mapping[str, Any], attempt: Mapping[str, Any]) -> Promise:
    forecasts = {one["rung"]: one for one in attempt.get("forecasts") or ()}
    baseline = forecasts.get(attempt["rung"])
    if baseline is None:
        return Promise()
    known = Promise(1, 0, baseline["micros"], 0.0, attempt["micros"], baseline["p_success"])
    first = forecasts.get(outcome["decided"])
    if first is None:
        return replace(known, refused=1)
    again = baseline["micros"] if first is not baseline else 0.0
    governed = first["micros"] + (1.0 - first["p_accept"]) * again
    return replace(known, governed=governed, first_right=first["p_success"])


def _wilson(share: float, n: float) -> Interval:
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _difference(one: Figure, other: Figure) -> Figure:
    apart = one.value - other.value
    if one.interval is None or other.interval is None:
        return Figure(apart)
    below = math.hypot(one.value - one.interval[0], other.interval[1] - other.value)
    above = math.hypot(one.interval[1] - one.value, other.value - other.interval[0])
    return Figure(apart, (apart - below, apart + above))
