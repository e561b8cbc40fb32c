"""A governor whose policy names learned parts: forecasts, measured rates, the dial, recalibration, audits."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governor import Governor, Outcome, Reply, Usage
from governor.checks import policy_checks
from governor.cli.run import _job
from governor.errors import CalibrationError, CertificateError, FeedbackError, LedgerUnavailableError, RecordError
from governor.estimate.calibration import Calibration, load_calibration, save_calibration
from governor.estimate.online import LocalOnlyWarning
from governor.learn.audits import CertificateWarning
from governor.learning import deciding_digest
from governor.ledger import open_ledger
from governor.policy import inspect_policy, load_policy, policy_from
from governor.protocols import Ledger, Reservation
from governor.records import Amount, Call, Plan, Step
from governor.testing import ScriptedBackend
from tests.learned_parts import EASY, HARD, HEAD, certify, prompt

LEARNED = "calibration: calibration.npz\n"
CHECKED = "verify: {regex: '^yes'}\n"


def write(folder: Path, *lines: str, name: str = "policy.yaml") -> Path:
    path = folder / name
    path.write_text(HEAD.replace("LEDGER", str(folder / "shared.db")) + "".join(lines), encoding="utf-8")
    return path


def yes(call: Call) -> Reply:
    return Reply(text="yes", usage=Usage(20, 5), seconds=0.01)


def governed(path: Path, answer: Callable[[Call], Reply] = yes, **parts: Any) -> Governor:
    return Governor.from_policy(path, backend=ScriptedBackend(answer), **parts)


def easy(number: int = 0) -> Step:
    return asked(EASY, number)


def hard(number: int = 0) -> Step:
    return asked(HARD, number)


def asked(kind: str, number: int) -> Step:
    """With an id of its own, which is what prices between two points of the frontier are drawn by."""
    text = prompt(kind, np.random.default_rng(number))
    return Step(id=f"{kind[-4:]}-{number}", messages=({"role": "user", "content": text},))


def first(governor: Governor, step: Step, **context: Any) -> str:
    plan = governor.explain(step, **context).plan
    assert isinstance(plan, Plan)
    return plan.rung.id


def p_low(governor: Governor, step: Step) -> float:
    return governor.explain(step).plan.forecasts[0].p_success


class Unshelved:
    """A ledger that keeps no values."""

    def __init__(self) -> None:
        self._inner = open_ledger("memory://")

    def reserve(self, key: str, amount: Amount, limits: Any, *, sent: bool = True) -> Reservation:
        return self._inner.reserve(key, amount, limits, sent=sent)

    def extend(self, key: str, amount: Amount, *, whole: bool = False, sent: bool = True) -> Reservation:
        return self._inner.extend(key, amount, whole=whole, sent=sent)

    def settle(self, key: str, spent: Amount) -> Reservation:
        return self._inner.settle(key, spent)

    def refund(self, key: str) -> Reservation:
        return self._inner.refund(key)

    def reservation(self, key: str) -> Reservation | None:
        return self._inner.reservation(key)

    def balance(self, scope: str) -> Any:
        return self._inner.balance(scope)

    def close(self) -> None:
        self._inner.close()


# Forecasts and prices


def test_the_learned_forecast_chooses_the_rung_that_is_called_first(desk: Path) -> None:
    with governed(write(desk, LEARNED, "dial: 0.2\n")) as governor:
        outcomes = [governor.run(step) for step in (easy(1), hard(1))]
        assert [outcome.rung for outcome in outcomes] == ["low", "high"]
        assert "learned forecast 0." in outcomes[1].attempts[0].reason
    with governed(write(desk, "dial: 0.2\n")) as governor:
        assert first(governor, easy(1)) == first(governor, hard(1))


def test_dial_and_keep_follow_the_frontier(desk: Path) -> None:
    def chosen(aim: str) -> list[str]:
        with governed(write(desk, LEARNED, aim)) as governor:
            return [first(governor, hard(number), id=f"step-{number}") for number in range(20)]

    assert set(chosen("dial: 0\n")) == set(chosen("keep: 0.95\n")) == {"high"}
    assert set(chosen("dial: 1\n")) == set(chosen("keep: 0.5\n")) == {"low"}
    assert set(chosen("keep: 0.72\n")) == {"low", "high"}  # halfway between two points: steps draw either price


def test_a_ladder_that_the_calibration_does_not_know_is_forecast_by_rules(desk: Path) -> None:
    mini = "steps:\n  - match: {node: other}\n    ladder: [low, {id: mini, model: m/mini}]\n"
    with governed(write(desk, LEARNED, mini)) as governor:
        known, other = governor.explain(hard()), governor.explain(hard(), node="other")
    assert known.reasons[0].startswith("learned forecast")
    assert "base rate only for high" in known.reasons
    assert other.reasons[0] == "by rules, as the calibration knows no mini"


def test_measured_rates_replace_the_assumed_ones_where_the_node_was_measured(desk: Path) -> None:
    with governed(write(desk, LEARNED, CHECKED)) as governor:
        here, elsewhere = governor.explain(easy()), governor.explain(easy(), node="other")
        own = governor.explain(easy(), checks=({"regex": "s$"},))
    seen, passed, verdicts = load_calibration(desk / "calibration.npz").rates["default"]
    assert (here.sensitivity, here.false_accept, here.verdicts) == (seen, passed, verdicts)
    assert here.verifier == elsewhere.verifier
    assert elsewhere.verdicts == own.verdicts == 0
    assert (elsewhere.sensitivity, elsewhere.false_accept) != (seen, passed)


def test_an_estimator_or_planner_that_is_given_is_used(desk: Path) -> None:
    from governor.estimate import RuleEstimator
    from governor.plan.index import IndexPlanner

    estimator, planner = RuleEstimator(), IndexPlanner()
    with governed(write(desk, LEARNED), estimator=estimator, planner=planner) as governor:
        assert (governor.estimator, governor.planner) == (estimator, planner)


def test_serving_learned_forecasts_needs_nothing_that_only_fitting_needs(desk: Path) -> None:
    path = write(desk, LEARNED, CHECKED, "online: true\naudit: 1\n", "dial: 0.4\n")
    certify(desk, "policy.yaml")
    write(desk, LEARNED, CHECKED, "online: true\naudit: 1\n", "dial: 0.4\ncertificate: certificate.json\n")
    code = (
        "import sys\nfrom governor import Governor\nfrom governor.testing import ScriptedBackend\n"
        f"g = Governor.from_policy({str(path)!r}, backend=ScriptedBackend(lambda call: 'yes'))\n"
        "g.feedback(g.run('Tell of the blue box at home: balan'), correct=True)\ng.close()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"sklearn", "scipy", "lightgbm", "pyarrow", "pandas"} & set(done.stdout.split())


# Recalibration


def wrong(call: Call) -> Reply:
    """low is always wrong, high always right."""
    return Reply(text="no" if call.rung.id == "low" else "yes", usage=Usage(20, 5), seconds=0.01)


def test_recalibration_moves_survives_a_restart_and_is_shared(desk: Path) -> None:
    path = write(desk, LEARNED, CHECKED, "online: true\n")
    other = governed(path)
    assert p_low(other, easy(999)) > 0.8
    with governed(path, wrong) as governor:
        before = p_low(governor, easy(999))
        assert first(governor, easy(999)) == "low"
        for number in range(120):
            governor.run(easy(number))
        after = p_low(governor, easy(999))
        assert before > 0.8
        assert after < 0.5
        assert first(governor, easy(999)) == "high"
    with governed(path) as again:
        assert p_low(again, easy(999)) == pytest.approx(after, abs=0.05)
        assert any("worse than forecast" in reason for reason in again.explain(easy(999)).reasons)
    assert p_low(other, easy(999)) > 0.8  # as it stood when it was first asked
    for number in range(200, 216):
        other.run(easy(number))  # after so many outcomes it shares
    assert p_low(other, easy(999)) < 0.6
    other.close()


def test_without_online_nothing_moves(desk: Path) -> None:
    with governed(write(desk, LEARNED, CHECKED), wrong) as governor:
        before = p_low(governor, easy(999))
        for number in range(40):
            governor.run(easy(number))
        assert p_low(governor, easy(999)) == before


def test_another_calibration_begins_anew(desk: Path) -> None:
    with governed(write(desk, LEARNED, CHECKED, "online: true\n"), wrong) as governor:
        for number in range(60):
            governor.run(easy(number))
    with governed(write(desk, CHECKED, "online: true\n")) as rules:
        assert not any("than forecast" in reason for reason in rules.explain(easy(999)).reasons)


def test_labels_teach_where_no_verifier_applies(desk: Path) -> None:
    with governed(write(desk, LEARNED, "online: true\n")) as governor:
        before = p_low(governor, easy(999))
        for number in range(60):
            assert governor.feedback(governor.run(easy(number)), correct=False)
        assert p_low(governor, easy(999)) < 0.6 < before


def test_a_label_takes_the_place_of_the_verdict(desk: Path) -> None:
    def taught(label: bool | None) -> float:
        (desk / "shared.db").unlink(missing_ok=True)
        with governed(write(desk, LEARNED, CHECKED, "online: true\n")) as governor:
            for number in range(60):
                outcome = governor.run(easy(number))
                if label is not None:
                    governor.feedback(outcome, correct=label)
            return p_low(governor, easy(999))

    assert taught(False) < 0.5 < taught(None)
    assert taught(True) == pytest.approx(taught(None), abs=0.03)  # the verdicts said so already


def test_a_ledger_that_is_no_shelf_keeps_to_itself_and_says_so_once(desk: Path) -> None:
    ledger: Ledger = Unshelved()
    with governed(write(desk, LEARNED, CHECKED, "online: true\n"), wrong, ledger=ledger) as governor:
        with pytest.warns(LocalOnlyWarning, match="no Shelf"):
            governor.run(easy(0))
        for number in range(1, 60):
            governor.run(easy(number))  # no further warning: they are errors here
        found = governor.explain(easy(999))
        assert any("no Shelf" in reason for reason in found.reasons)
        assert found.plan.forecasts[0].p_success < 0.7


def test_threads_may_run_and_give_feedback_at_once(desk: Path) -> None:
    write(desk, LEARNED, CHECKED, "audit: 1\nonline: true\n")
    certify(desk, "policy.yaml")
    path = write(desk, LEARNED, CHECKED, "audit: 1\nonline: true\ncertificate: certificate.json\n")
    with governed(path) as governor, ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: governor.run(easy(number)), range(40)))
        assert all(pool.map(lambda outcome: governor.feedback(outcome, correct=True), outcomes))
        evidence = governor._learning._online
        assert evidence is not None
        # 40 verdicts and 40 labels, with half lives
        assert evidence.evidence.count == pytest.approx(80, rel=0.03)


# The certificate


def certified(desk: Path, *lines: str, dial: float = 0.5) -> Path:
    write(desk, *lines)
    certify(desk, "policy.yaml", dial=dial)
    return write(desk, *lines, "certificate: certificate.json\n")


@pytest.mark.parametrize(
    ("aim", "dial", "reason"),
    [
        ("", 0.5, "dial 0.5: certified, accepted-wrong at most 0.05"),
        ("dial: 0.9\n", 0.5, "dial 0.5 instead of 0.9: certified"),
        ("dial: 0.25\n", 0.2, "dial 0.2 instead of 0.25: certified"),
        ("keep: 0.95\n", 0.2, "keep 0.95 is dial 0.26; dial 0.2 instead of"),
        ("keep: 0.5\n", 0.5, "keep 0.5 is dial 1.00; dial 0.5 instead of 1: certified"),
    ],
)
def test_the_certificate_sets_the_dial(desk: Path, aim: str, dial: float, reason: str) -> None:
    with governed(certified(desk, LEARNED, aim)) as governor:
        terms = governor.explain(easy()).terms
    assert (terms.dial, terms.keep) == (dial, None)
    assert reason in terms.reason


def test_keep_beside_a_certificate_without_a_frontier_asks_for_the_safe_dial(tmp_path: Path) -> None:
    path = certified(tmp_path, "keep: 0.9\n", "safe_dial: 0.1\n")
    with governed(path) as governor:
        terms = governor.explain(easy()).terms
    assert terms.dial == 0.1
    assert "no frontier says which dial keeps 0.9; dial 0.1: certified" in terms.reason


@pytest.mark.parametrize(
    ("change", "said"), [("harm: 3\n", "made with policy"), ("online: true\n", "made with policy")]
)
def test_digests_that_do_not_agree_put_the_safe_dial_in_force(desk: Path, change: str, said: str) -> None:
    certified(desk, LEARNED)
    path = write(desk, LEARNED, change, "certificate: certificate.json\nsafe_dial: 0.05\n")
    with governed(path) as governor:
        terms = governor.explain(easy()).terms
    assert terms.dial == 0.05
    assert "safe dial 0.05: certificate not used" in terms.reason
    assert said in terms.reason


def test_another_calibration_than_the_certified_puts_the_safe_dial_in_force(desk: Path) -> None:
    path = certified(desk)  # made without a calibration
    path = write(desk, LEARNED, "certificate: certificate.json\n")
    with governed(path) as governor:
        reason = governor.explain(easy()).terms.reason
    assert "it was made without a calibration, and here runs calibration" in reason


def replace_calibration(desk: Path) -> None:
    """Another calibration at the same path."""
    path = desk / "calibration.npz"
    known = load_calibration(path)
    save_calibration(replace(known, level=known.level - 0.5), path)


def test_a_calibration_that_was_replaced_at_its_path_is_not_the_certified_one(desk: Path) -> None:
    path = certified(desk, LEARNED)
    before = load_policy(path).digest
    with governed(path) as running:
        replace_calibration(desk)
        assert load_policy(path).digest == before  # the policy's own digest can't tell
        with governed(path) as later:
            reason = later.explain(easy()).terms.reason
            assert "safe dial 0: certificate not used: it was made with calibration" in reason
        assert running.explain(easy()).terms.dial == 0.5  # it goes on with what it loaded, which was certified
    (warned,) = inspect_policy(path, policy_checks()).warnings
    assert "not used: it was made with calibration" in warned.message


def test_a_calibration_that_is_replaced_while_it_is_read_is_refused(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certified(desk, LEARNED)
    policy = load_policy(path)

    def read(found: Path) -> Calibration:
        known = load_calibration(found)
        replace_calibration(desk)
        return known

    monkeypatch.setattr("governor.estimate.calibration.load_calibration", read)
    with pytest.raises(CalibrationError, match="replaced while it was read: load the policy again"):
        Governor(policy, backend=ScriptedBackend(yes))


def test_what_decides_is_the_policy_and_the_files_it_names(desk: Path) -> None:
    plain = load_policy(write(desk))
    assert deciding_digest(plain) == plain.digest
    path = certified(desk, LEARNED)
    policy = load_policy(path)
    found = [deciding_digest(policy)]
    replace_calibration(desk)
    found.append(deciding_digest(policy))
    (desk / "certificate.json").write_bytes(b"{}")
    found.append(deciding_digest(policy))
    assert len({policy.digest, *found}) == 4
    (desk / "calibration.npz").unlink()
    with pytest.raises(CalibrationError, match=r"calibration\.npz: can't be read: No such file"):
        deciding_digest(policy)


def test_a_run_is_not_resumed_with_another_calibration(desk: Path) -> None:
    policy = load_policy(write(desk, LEARNED))
    out = desk / "outcomes.jsonl"
    for _ in range(2):
        with _job(policy, out, "memory://", None):
            pass
    replace_calibration(desk)
    with pytest.raises(RecordError, match="begun under another policy"), _job(policy, out, "memory://", None):
        pass


def audited(governor: Governor, numbers: range, correct: bool) -> list[Outcome]:
    outcomes = [governor.run(easy(number)) for number in numbers]
    for outcome in outcomes:
        governor.feedback(outcome, correct=correct)
    return outcomes


def test_bad_audits_put_the_safe_dial_in_force_on_every_replica(desk: Path) -> None:
    path = certified(desk, LEARNED, CHECKED, "audit: 1\n")
    replica = governed(path)
    assert replica.explain(easy()).terms.dial == 0.5
    with governed(path) as governor:
        with pytest.warns(CertificateWarning, match="safe dial 0: .* audits say that") as told:
            audited(governor, range(40), correct=False)
        assert governor.explain(easy()).terms.dial == 0.0
    assert len([one for one in told if one.category is CertificateWarning]) == 1
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter("always")
        for number in range(100, 116):
            replica.run(easy(number))
    assert [one.category for one in later] == [CertificateWarning]
    assert "accepted-wrong is above 0.05" in replica.explain(easy()).terms.reason
    replica.close()


def test_good_audits_leave_the_certified_dial(desk: Path) -> None:
    with governed(certified(desk, LEARNED, CHECKED, "audit: 1\n")) as governor:
        assert all(outcome.audit for outcome in audited(governor, range(40), correct=True))
        assert governor.explain(easy()).terms.dial == 0.5


def test_only_steps_that_were_drawn_count_for_the_certificate(desk: Path) -> None:
    with governed(certified(desk, LEARNED, CHECKED, "audit: 0.5\n")) as governor:
        outcomes = [governor.run(easy(number), id=f"s{number}") for number in range(200)]
        counted = [governor.feedback(outcome, correct=True) for outcome in outcomes]
        again = governor.run(easy(0), id="s0")
    assert [outcome.audit for outcome in outcomes] == counted
    assert 70 < sum(counted) < 130
    assert again.audit == outcomes[0].audit


class Down(Unshelved):
    """A shelf that can't be reached."""

    def load(self, key: str) -> tuple[bytes, int] | None:
        raise LedgerUnavailableError("the store is down")

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        raise LedgerUnavailableError("the store is down")


def test_while_audits_cannot_be_read_the_safe_dial_is_in_force(desk: Path) -> None:
    path = certified(desk, LEARNED, CHECKED, "audit: 1\n")
    with governed(path, ledger=Down()) as governor:
        outcome = governor.run(easy())
        assert outcome.status == "accepted"
        assert "safe dial 0: what audits said so far can't be read" in governor.explain(easy()).terms.reason
        for _ in range(2):  # nothing was counted, so it may be tried again
            with pytest.raises(LedgerUnavailableError, match="the store is down"):
                governor.feedback(outcome, correct=True)


# Feedback


def test_feedback_on_an_unknown_step_is_one_clear_error(desk: Path) -> None:
    with governed(write(desk, LEARNED)) as governor:
        with pytest.raises(FeedbackError) as caught:
            governor.feedback("nowhere", correct=True)
        assert str(caught.value) == (
            "no outcome of step 'nowhere' is known here: the last 2,048 of this process are; give the outcome itself"
        )


def test_feedback_is_taken_once_by_id_or_by_outcome(desk: Path) -> None:
    with governed(certified(desk, LEARNED, CHECKED, "audit: 1\n")) as governor:
        outcome = governor.run(easy(), id="a")
        assert governor.feedback("a", correct=True)
        with pytest.raises(FeedbackError, match="step 'a': feedback was given already"):
            governor.feedback(outcome, correct=True)
        governor.run(easy(), id="a")
        assert governor.feedback("a", correct=True)  # another step under the same id
    with governed(desk / "policy.yaml") as another:
        assert another.feedback(outcome, correct=True)  # an outcome that was kept elsewhere


# Files that can't be used


def test_a_policy_that_was_never_checked_is_refused_when_it_is_wired(tmp_path: Path) -> None:
    rung = {"id": "a", "model": "m"}
    missing = str(tmp_path / "none")
    with pytest.raises(CalibrationError, match=r"none: can't be read .*governor fit"):
        Governor(policy_from({"version": 1, "ladder": [rung], "calibration": missing}))
    with pytest.raises(CertificateError, match="none: can't be read"):
        Governor(policy_from({"version": 1, "ladder": [rung], "certificate": missing}))


def test_files_are_relative_to_the_policy_file_that_names_them(desk: Path) -> None:
    write(desk, LEARNED, name="base.yaml")
    (desk / "sub").mkdir()
    path = desk / "sub" / "policy.yaml"
    path.write_text("version: 1\nextends: ../base.yaml\napp: other\n")
    policy = load_policy(path)
    assert policy.calibration == "calibration.npz"
    found = policy.file_of("calibration")
    assert found is not None
    assert found.resolve() == (desk / "calibration.npz").resolve()


def test_a_step_outside_governed_arms_is_not_audited(desk: Path) -> None:
    path = certified(desk, LEARNED, CHECKED, "audit: 1\n", "mode: shadow\n")
    with governed(path) as governor:
        outcome = governor.run(easy())
        assert (outcome.arm, outcome.audit) == ("shadow", True)
        assert not governor.feedback(outcome, correct=False)
