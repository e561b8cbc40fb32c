"""When a gauge counts as flat, and that a short hour leaves one behind."""

from __future__ import annotations

import pytest

from benchmarks import ledger_soak
from benchmarks.ledger_soak import SAMPLES, Hour, flat, quarter, soak


def test_flat_is_measured_between_the_second_and_the_last_quarter() -> None:
    rising = [{"fields": 1000.0 + 10 * at} for at in range(SAMPLES)]
    filling = [{"fields": min(10.0 * at, 140.0)} for at in range(SAMPLES)]
    assert quarter(rising, "fields", 1) == 1220.0
    assert not flat(rising, "fields")
    assert flat(filling, "fields")


def test_a_few_rows_more_are_noise_and_a_few_more_than_these_are_not() -> None:
    before, after = [{"keys": 8.0}] * (SAMPLES // 2), SAMPLES // 2
    assert flat([*before, *[{"keys": 28.0}] * after], "keys")
    assert not flat([*before, *[{"keys": 29.0}] * after], "keys")


@pytest.fixture
def _beside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soak in this process, which holds all that other tests have imported: its garbage is not collected 60 times."""
    monkeypatch.setattr(ledger_soak, "ready", lambda: None)
    monkeypatch.setattr(ledger_soak, "_blocks", lambda: 0.0)


@pytest.mark.usefixtures("_beside_tests")
def test_what_is_forgotten_leaves_the_store() -> None:
    found = soak(0, "memory://", Hour(600, 2))
    assert len(found) == SAMPLES
    assert 0 < found[-1]["reservations"] < 0.2 * 2 * 600
    assert flat(found, "reservations")
    assert flat(found, "entries in all")


@pytest.mark.usefixtures("_beside_tests")
def test_what_is_never_forgotten_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hour, "keep", 10_000.0)
    found = soak(0, "memory://", Hour(600, 2))
    assert not flat(found, "reservations")
