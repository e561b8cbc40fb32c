"""Audits that replicas share: nothing is lost, an alarm reaches all, and what can't be read is not trusted."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from governor.errors import CertificateError
from governor.learn.audits import Audits, CertificateWarning
from governor.learn.monitor import Audit, Guard, Watch
from governor.ledger import open_ledger
from governor.protocols import Shelf
from tests.learn.test_monitor import certificate, guard

RIGHT, WRONG = Audit(correct=True), Audit(correct=False)
KEY = "audits:test"


def shelf_at(path: Path) -> Shelf:
    ledger = open_ledger(f"sqlite:///{path / 'shelf.db'}")
    assert isinstance(ledger, Shelf)
    return ledger


def wrong(audits: Audits, times: int) -> None:
    for _ in range(times):
        audits.take(WRONG)


def one() -> Guard:
    return guard(certificate())


def test_no_audit_is_lost_among_threads_and_replicas(tmp_path: Path) -> None:
    shelves = [shelf_at(tmp_path) for _ in range(3)]
    replicas = [Audits(one(), shelf, KEY) for shelf in shelves]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda at: replicas[at % 3].take(RIGHT), range(60)))
    found = shelves[0].load(KEY)
    assert found is not None
    assert Watch.from_bytes(found[0]).of(certificate()).outcomes == 60


def test_each_alarm_is_told_once(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    audits, other = Audits(one(), shelf, KEY), Audits(one(), shelf, KEY)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(30):
            audits.take(WRONG)
        other.refresh()
        other.refresh()
    assert [warning.category for warning in told] == [CertificateWarning] * 2  # one a replica
    assert (audits.ruling("default", 0.4).dial, other.ruling("default", 0.4).dial) == (0.0, 0.0)


def test_without_a_shelf_a_process_counts_alone() -> None:
    audits = Audits(one(), None, KEY)
    with pytest.warns(CertificateWarning):
        wrong(audits, 30)
    audits.refresh()
    assert audits.ruling("default", None).dial == 0.0


def test_a_damaged_state_is_not_trusted_and_not_overwritten(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    assert shelf.save(KEY, b"nonsense", 0)
    audits = Audits(one(), shelf, KEY)
    ruling = audits.ruling("default", 0.4)
    assert (ruling.dial, ruling.certified) == (0.0, False)
    assert "what audits said so far can't be read" in ruling.reason
    with pytest.raises(CertificateError, match="can't be read"):
        audits.take(RIGHT)
    assert shelf.load(KEY) == (b"nonsense", 1)
    assert shelf.save(KEY, Watch().to_bytes(), 1)
    audits.refresh()
    assert audits.ruling("default", None).certified
