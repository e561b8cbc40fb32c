"""What a policy's `calibration`, `online`, `certificate` and `audit` come to while serving, wired together."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from governor.errors import CalibrationError, CertificateError, FeedbackError, GovernorError
from governor.estimate import RuleEstimator
from governor.plan.index import IndexPlanner
from governor.policy import Finding
from governor.policy.consistency import rung_specs
from governor.protocols import Belief, Estimator, Ledger, Planner, Shelf, Situation, Terms, Verifier
from governor.records import Attempt, Outcome, Plan, Step, Stop
from governor.verify.measured import Measured

if TYPE_CHECKING:  # imported where a policy asks for them: without, nothing of these is loaded
    from governor.estimate.calibration import Calibration
    from governor.estimate.online import Online
    from governor.learn.audits import Audits
    from governor.learn.monitor import Guard
    from governor.plan.frontier import FrontierPrices
    from governor.policy import Policy

T = TypeVar("T")

REMEMBERED = 2_048
"""Outcomes that `feedback` finds by their step's id; the oldest give way."""

REFRESHED_EVERY = 16
"""Outcomes after which what other replicas' audits said is taken up."""

_SHOWN = 12  # digits of a digest in the shelf's keys
_FILES: Mapping[Literal["calibration", "certificate"], type[GovernorError]] = {
    "calibration": CalibrationError,
    "certificate": CertificateError,
}


@dataclass(frozen=True, slots=True)
class LearnedPlanner:
    """Planner (governor.protocols): dial and `keep` by a measured frontier wherever every rung stands on it."""

    rungs: frozenset[str]
    measured: IndexPlanner
    otherwise: IndexPlanner

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        known = all(rung.id in self.rungs for rung in situation.terms.ladder)
        return (self.measured if known else self.otherwise).choose(belief, situation)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What feedback must know of an outcome."""

    node: str
    accepted: bool
    audited: bool

    @classmethod
    def of(cls, outcome: Outcome) -> _Ended:
        return cls(outcome.node, outcome.status == "accepted", outcome.audit and outcome.arm == "governed")


class Learning:
    """The estimator, planner, verifier rates and dial that a policy's learned parts make, and where feedback goes.

    Files are read at once: raises CalibrationError and CertificateError. `ledger` is asked for only where the policy
    has something to share, and when it is first used. Also a Sink. Safe for many threads.
    """

    def __init__(self, policy: Policy, ledger: Callable[[], Ledger]) -> None:
        self._policy = policy
        self._ledger = ledger
        self._lock = threading.Lock()
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._labelled: OrderedDict[str, None] = OrderedDict()
        self._outcomes = 0
        self._online: Online | None = None
        self._audits: Audits | None = None
        self._shelf: Shelf | None = None
        self._looked = False
        self.calibration, self._guard = _read(policy)
        self._prices = _prices(self.calibration)
        self.planner = _planner(self.calibration, self._prices)
        self._offline = _estimator(self.calibration)

    @property
    def estimator(self) -> Estimator:
        """Rules, or learned forecasts, recalibrated by outcomes where the policy says `online`."""
        return (self._online or self._went_online()) if self._policy.online else self._offline

    def ruled(self, step: Step, terms: Terms) -> Terms:
        """The terms with the dial that the certificate allows; as they are without a certificate."""
        if self._guard is None:
            return terms
        asked, said = self._asked(terms)
        ruling = (self._audits or self._audited()).ruling(step.node, asked)
        return replace(terms, dial=ruling.dial, keep=None, reason=f"{terms.reason}; {said}{ruling.reason}")

    def measured(self, verifier: Verifier | None, node: str) -> Verifier | None:
        """The verifier with the rates that the calibration holds for this node; assumed ones stay where it has none."""
        if verifier is None or self.calibration is None or node not in self.calibration.rates:
            return verifier
        seen, passed, verdicts = self.calibration.rates[node]
        return Measured(verifier, seen, passed, verdicts) if seen > passed else verifier

    def feedback(self, outcome: Outcome | str, correct: bool, best_correct: bool | None = None) -> bool:
        """See Governor.feedback."""
        step_id = outcome if isinstance(outcome, str) else outcome.step_id
        ended = self._claim(step_id, outcome)
        try:
            counted = self._audit(ended, correct, best_correct)
        except BaseException:
            with self._lock:
                self._labelled.pop(step_id, None)  # nothing was kept: it may be given again
            raise
        taught = self._policy.online and (self._online or self._went_online()).label(step_id, correct)
        return counted or taught

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        """Remember an outcome for feedback, learn from it, and now and then take up what other replicas know."""
        if self._online is not None:
            self._online.emit(step, record)
        if isinstance(record, Attempt):
            return
        with self._lock:
            _keep(self._ended, step.id, _Ended.of(record))
            self._labelled.pop(step.id, None)  # an id that is used anew is another step
            self._outcomes += 1
            due = self._outcomes % REFRESHED_EVERY == 0
        if due and self._audits is not None:
            self._audits.refresh_aside()

    def close(self) -> None:
        """Hand in what was learned. The ledger stays open."""
        if self._online is not None:
            self._online.close()

    def _claim(self, step_id: str, outcome: Outcome | str) -> _Ended:
        """What is known of the step, which is marked as labelled."""
        with self._lock:
            if step_id in self._labelled:
                raise FeedbackError(f"step '{step_id}': feedback was given already")
            found = self._ended.get(step_id) if isinstance(outcome, str) else _Ended.of(outcome)
            if found is None:
                raise FeedbackError(
                    f"no outcome of step '{step_id}' is known here: the last {REMEMBERED:,} of this process are; "
                    "give the outcome itself"
                )
            _keep(self._labelled, step_id, None)
            return found

    def _audit(self, ended: _Ended, correct: bool, best_correct: bool | None) -> bool:
        if self._guard is None or not ended.audited:
            return False
        from governor.learn.monitor import Audit

        audit = Audit(node=ended.node, accepted=ended.accepted, correct=correct, best_correct=best_correct)
        (self._audits or self._audited()).take(audit)
        return True

    def _asked(self, terms: Terms) -> tuple[float | None, str]:
        """The dial that the policy asks for, and how it came to be one; None: whatever was certified."""
        if terms.keep is None:
            return terms.dial, ""
        if self._prices is None:
            assert self._guard is not None
            return self._guard.safe, f"no frontier says which dial keeps {terms.keep:g}; "
        dial = self._prices.dial_keeping(terms.keep)
        return dial, f"keep {terms.keep:g} is dial {dial:.2f}; "

    def _went_online(self) -> Online:
        from governor.estimate.drift import Wealth
        from governor.estimate.online import Online

        with self._lock:
            if self._online is None:
                shelf = self._shared()
                made = Online(self._offline, shelf=shelf, name=self._name(), wealth=Wealth.two_sided)
                if shelf is None:
                    made.problem = _ALONE
                self._online = made
            return self._online

    def _audited(self) -> Audits:
        from governor.learn.audits import Audits

        with self._lock:
            if self._audits is None:
                assert self._guard is not None
                self._audits = Audits(self._guard, self._shared(), f"audits:{self._name()}")
            return self._audits

    def _name(self) -> str:
        """One application with one calibration: what was learned of other forecasts says nothing of these."""
        return f"{self._policy.app}:{self.calibration.digest[:_SHOWN] if self.calibration else 'rules'}"

    def _shared(self) -> Shelf | None:
        """The ledger's store; None, and said once, where it is no shelf."""
        if not self._looked:
            ledger = self._ledger()
            self._shelf = ledger if isinstance(ledger, Shelf) else None
            self._looked = True
            if self._shelf is None:
                from governor.estimate.online import LocalOnlyWarning

                warnings.warn(LocalOnlyWarning(_ALONE), stacklevel=5)
        return self._shelf


_ALONE = "learned values are this process's own: the ledger shares nothing (it is no Shelf)"


def calibration_of(policy: Policy) -> Calibration | None:
    """The policy's calibration, if it has one. Raises CalibrationError."""
    path = _file(policy, "calibration")
    if path is None:
        return None
    from governor.estimate.calibration import load_calibration

    return load_calibration(path)


def guard_of(policy: Policy) -> Guard | None:
    """The guard of the policy's certificates, if it has any. Raises CertificateError."""
    path = _file(policy, "certificate")
    if path is None:
        return None
    from governor.learn.certificate import file_digest, load_certificates, policy_digest
    from governor.learn.monitor import Guard

    calibration = _file(policy, "calibration")
    try:
        digest = "" if calibration is None else file_digest(calibration)
    except OSError as cause:
        raise CalibrationError(f"{calibration}: can't be read: {cause.strerror or cause}") from cause
    certificates = load_certificates(path)
    return Guard(certificates=certificates, policy=policy_digest(policy), calibration=digest, safe=policy.safe_dial)


def _file(policy: Policy, key: Literal["calibration", "certificate"]) -> Path | None:
    path = policy.file_of(key)
    if path is not None and "\0" in str(path):  # of which the operating system's own error says nothing
        raise _FILES[key](f"{str(path)!r}: no file's name holds a zero byte")
    return path


def deciding_digest(policy: Policy) -> str:
    """SHA-256 (hex) of all that decides: the policy's own digest where it names no files, else theirs as well.

    Raises CalibrationError and CertificateError where one can't be read.
    """
    found = [policy.digest]
    for key, error in _FILES.items():
        path = _file(policy, key)
        try:
            found += [] if path is None else [f"{key} {sha256(path.read_bytes()).hexdigest()}"]
        except OSError as cause:
            raise error(f"{path}: can't be read: {cause.strerror or cause}") from cause
    return policy.digest if len(found) == 1 else sha256("\n".join(found).encode()).hexdigest()


def _read(policy: Policy) -> tuple[Calibration | None, Guard | None]:
    """Calibration and guard of the same state of the files: a certificate must not vouch for one it was not made with.

    Raises CalibrationError where the calibration was replaced meanwhile.
    """
    before = guard_of(policy)
    calibration = calibration_of(policy)
    guard = guard_of(policy)
    if before is not None and guard is not None and before.calibration != guard.calibration:
        raise CalibrationError(
            f"{policy.file_of('calibration')}: was replaced while it was read: load the policy again"
        )
    return calibration, guard


def learned_files(policy: Policy) -> Iterator[Finding]:
    """A check for `load_policy`: whether calibration and certificate can be used, and for what they can't be."""
    try:
        calibration = calibration_of(policy)
    except CalibrationError as fault:
        yield Finding(("calibration",), str(fault))
        return  # a certificate can't be compared with a calibration that can't be read
    if calibration is not None:
        yield from _strange_rungs(policy, calibration)
    try:
        guard = guard_of(policy)
    except CertificateError as fault:
        yield Finding(("certificate",), str(fault))
        return
    if guard is not None:
        yield from guard.findings()


def _strange_rungs(policy: Policy, calibration: Calibration) -> Iterator[Finding]:
    for path, spec in rung_specs(policy):
        if spec.id not in calibration.rungs:
            message = f"the calibration knows no rung '{spec.id}': steps that may use it are forecast by rules"
            known = ", ".join(calibration.rungs)
            yield Finding((*path, "id"), message, f"it knows {known}; fit it on records of this ladder", "warning")


def _prices(calibration: Calibration | None) -> FrontierPrices | None:
    if calibration is None or not len(calibration.frontier.price):
        return None
    from governor.plan.frontier import FrontierPrices

    return FrontierPrices(calibration.frontier)


def _planner(calibration: Calibration | None, prices: FrontierPrices | None) -> Planner:
    if calibration is None or prices is None:
        return IndexPlanner()
    return LearnedPlanner(frozenset(calibration.rungs), IndexPlanner(prices=prices), IndexPlanner())


def _estimator(calibration: Calibration | None) -> Estimator:
    if calibration is None:
        return RuleEstimator()
    from governor.estimate.learned import LearnedEstimator

    return LearnedEstimator(calibration)


def _keep(known: OrderedDict[str, T], step_id: str, value: T) -> None:
    """Remember it as the latest; the oldest gives way."""
    known[step_id] = value
    known.move_to_end(step_id)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
