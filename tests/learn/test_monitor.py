"""The guard of a running governor: which dial is in force, and what audits do to it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import CertificateError
from governor.learn.certificate import Certificate
from governor.learn.certify import Kind
from governor.learn.monitor import Audit, Guard, Watch

POLICY, OTHER, CALIBRATION = "a" * 64, "b" * 64, "c" * 64
NOTHING = Watch()
WRONG, RIGHT = Audit(correct=False), Audit(correct=True)


def certificate(kind: Kind = "accepted-wrong", dial: float = 0.5, node: str = "") -> Certificate:
    return Certificate(
        name="test",
        kind=kind,
        risk=0.05,
        delta=0.05,
        dial=dial,
        dials=tuple(tenth / 10 for tenth in range(11) if tenth / 10 <= dial),
        n=500,
        failures=10,
        bound=0.0337,
        policy=POLICY,
        calibration=CALIBRATION,
        records="d" * 64,
        created=datetime(2026, 11, 21, tzinfo=UTC),
        node=node,
    )


def guard(*certificates: Certificate, policy: str = POLICY, calibration: str = CALIBRATION, safe: float = 0.0) -> Guard:
    return Guard(certificates=certificates, policy=policy, calibration=calibration, safe=safe)


def observed(guard: Guard, *audits: Audit, watch: Watch = NOTHING) -> Watch:
    for audit in audits:
        watch = guard.observe(watch, audit)
    return watch


@pytest.mark.parametrize(
    ("asked", "dial", "reason"),
    [
        (None, 0.5, "dial 0.5: certified, accepted-wrong at most 0.05"),
        (0.5, 0.5, "dial 0.5: certified, accepted-wrong at most 0.05"),
        (1.0, 0.5, "dial 0.5 instead of 1: certified, accepted-wrong at most 0.05"),
        (0.39, 0.3, "dial 0.3 instead of 0.39: certified, accepted-wrong at most 0.05"),
        (0.0, 0.0, "dial 0: certified, accepted-wrong at most 0.05"),
    ],
)
def test_no_dial_is_in_force_that_was_not_certified(asked: float | None, dial: float, reason: str) -> None:
    ruling = guard(certificate()).ruling("solve", asked, NOTHING)
    assert (ruling.dial, ruling.certified, ruling.reason) == (dial, True, reason)


@pytest.mark.parametrize(
    ("policy", "calibration", "told"),
    [
        (OTHER, CALIBRATION, "it was made with policy aaaaaaaaaaaa, and here runs policy bbbbbbbbbbbb"),
        (POLICY, "", "it was made with calibration cccccccccccc, and here runs no calibration"),
    ],
)
def test_a_certificate_of_something_else_is_not_used_and_that_is_said(policy: str, calibration: str, told: str) -> None:
    held = guard(certificate(), policy=policy, calibration=calibration, safe=0.1)
    ruling = held.ruling("solve", 0.5, NOTHING)
    assert (ruling.dial, ruling.certified) == (0.1, False)
    assert ruling.reason == f"safe dial 0.1: certificate not used: {told}"
    (finding,) = held.findings()
    assert finding.path == ("certificate",)
    assert finding.severity == "warning"
    assert finding.message == f"not used: {told}; dial 0.1 is in force"
    assert observed(held, WRONG, WRONG) == NOTHING


def test_a_certificate_without_a_policy_fits_none() -> None:
    held = guard(replace(certificate(), policy=""))
    assert "it was made without a policy, and here runs policy aaaaaaaaaaaa" in held.ruling("", None, NOTHING).reason


def test_a_certificate_that_fits_is_no_finding() -> None:
    assert guard(certificate(), certificate("lost-correct")).findings() == ()


def test_the_safe_dial_is_never_thriftier_than_the_one_asked() -> None:
    held = guard(certificate(), policy=OTHER, safe=0.3)
    assert [held.ruling("", asked, NOTHING).dial for asked in (None, 0.9, 0.2)] == [0.3, 0.3, 0.2]


def test_every_certified_kind_of_risk_must_hold() -> None:
    held = guard(certificate(dial=0.7), certificate("lost-correct", dial=0.4))
    ruling = held.ruling("solve", None, NOTHING)
    assert ruling.dial == 0.4
    assert ruling.reason == "dial 0.4: certified, accepted-wrong at most 0.05 and lost-correct at most 0.05"


def test_dials_that_share_nothing_certify_nothing() -> None:
    odd = replace(certificate("lost-correct"), dial=0.25, dials=(0.25,))
    assert guard(certificate(), odd).ruling("", None, NOTHING).reason == "safe dial 0: no dial holds every risk"
    assert guard(odd).ruling("", 0.1, NOTHING).reason == "safe dial 0: no certified dial is as safe as that"


def test_a_node_has_its_own_certificate_or_the_general_one_or_none() -> None:
    own, general = certificate(node="solve", dial=0.2), certificate(dial=0.6)
    assert guard(own, general).ruling("solve", None, NOTHING).dial == 0.2
    assert guard(own, general).ruling("other", None, NOTHING).dial == 0.6
    assert guard(own).ruling("other", None, NOTHING).reason == "safe dial 0: no certificate for node 'other'"
    assert not guard(general, replace(own, kind="lost-correct")).ruling("other", None, NOTHING).certified


def test_an_alarm_snaps_back_and_stays_through_good_times_and_restarts() -> None:
    held = guard(certificate())
    watch, audits = NOTHING, 0
    while held.ruling("solve", None, watch).certified:
        watch, audits = held.observe(watch, WRONG), audits + 1
    assert audits < 10
    ruling = held.ruling("solve", None, watch)
    assert ruling.dial == 0.0
    assert f"{audits} audits say that accepted-wrong is above 0.05 (e-value" in ruling.reason
    assert held.alarms(watch) == (ruling.reason.partition("not used: ")[2],)
    later = observed(held, *[RIGHT] * 500, watch=Watch.from_bytes(watch.to_bytes()))
    assert held.ruling("solve", None, later).dial == 0.0


def test_only_a_certificate_from_other_evidence_ends_the_alarm() -> None:
    watch = observed(guard(certificate()), *[WRONG] * 10)
    again = replace(certificate(), created=datetime(2027, 1, 1, tzinfo=UTC))
    assert not guard(again).ruling("", None, watch).certified
    newer = replace(certificate(), records="e" * 64)
    assert guard(newer).ruling("", None, watch).certified
    assert not guard(certificate()).ruling("", None, observed(guard(newer), RIGHT, watch=watch)).certified


def test_an_alarm_at_one_node_leaves_the_others() -> None:
    held = guard(certificate(node="a"), certificate(node="b"))
    watch = observed(held, *[replace(WRONG, node="a")] * 10)
    assert [held.ruling(node, None, watch).certified for node in "ab"] == [False, True]
    assert "10 audits at node 'a' say" in held.alarms(watch)[0]


@pytest.mark.parametrize(
    ("kind", "audit", "counts"),
    [
        ("accepted-wrong", Audit(correct=False, accepted=False), 0),
        ("accepted-wrong", Audit(correct=False), 1),
        ("accepted-wrong", Audit(correct=True), 1),
        ("lost-correct", Audit(correct=False), 0),
        ("lost-correct", Audit(correct=True), 0),
        ("lost-correct", Audit(correct=False, accepted=False, best_correct=True), 1),
        ("lost-correct", Audit(correct=True, best_correct=True), 1),
    ],
)
def test_only_audits_that_tell_of_the_risk_count(kind: Kind, audit: Audit, counts: int) -> None:
    one = certificate(kind)
    assert observed(guard(one), audit).of(one).outcomes == counts


@pytest.mark.parametrize(
    ("audit", "failed"),
    [
        (Audit(correct=False, best_correct=True), True),
        (Audit(correct=False, best_correct=False), False),
        (Audit(correct=True, best_correct=True), False),
    ],
)
def test_lost_is_what_the_best_rung_had_right(audit: Audit, failed: bool) -> None:
    one = certificate("lost-correct")
    grown = observed(guard(one), audit).of(one).value > NOTHING.of(one).value
    assert grown == failed


def test_a_risk_that_holds_rarely_alarms_and_one_that_trebles_soon_does() -> None:
    rng, held, runs = np.random.default_rng(6), guard(certificate()), 100

    def alarmed(rate: float, audits: int) -> bool:
        return bool(held.alarms(observed(held, *(Audit(correct=not bad) for bad in rng.random(audits) < rate))))

    assert sum(alarmed(0.05, 200) for _ in range(runs)) <= 11  # 5 expected at most, and three standard errors
    assert sum(alarmed(0.15, 200) for _ in range(runs)) >= 80


@given(wrongs=st.lists(st.booleans(), max_size=20), nodes=st.lists(st.sampled_from("ab"), max_size=20))
def test_the_state_comes_back_whole(wrongs: list[bool], nodes: list[str]) -> None:
    held = guard(certificate(node="a"), certificate(node="b"), certificate("lost-correct"))
    watch = NOTHING
    for wrong, node in itertools.zip_longest(wrongs, nodes, fillvalue="a"):
        watch = held.observe(watch, Audit(node=str(node), correct=not wrong, best_correct=True))
    assert Watch.from_bytes(watch.to_bytes()) == watch
    assert len(watch.to_bytes()) < 1000


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"a": 1}', b'{"a": [1, 2]}', b'{"a": ["x"]}'])
def test_a_damaged_state_is_an_error_not_a_fresh_start(data: bytes) -> None:
    with pytest.raises(CertificateError, match="state of the risk monitor can't be read"):
        Watch.from_bytes(data)
