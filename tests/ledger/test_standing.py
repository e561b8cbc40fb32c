"""What is left, at which pace, and when it runs out; and how that is written for other tools."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from governor.ledger.exposition import COLUMNS, as_csv, as_object, as_prometheus, kind_of
from governor.ledger.standing import UNITS, Standing, standings
from governor.ledger.sums import DIMENSIONS
from governor.policy.budget import Limits
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit, Window

DAY = 1_763_683_200.0  # 2025-11-21T00:00:00Z
NOON = DAY + 43_200
SCOPE = "app:desk@2025-11-21"
TODAY = Window(until=DAY + 86_400, idle=35 * 86_400.0)
MICROS = DIMENSIONS.index("micros")


def standing(
    spent: int, limit: int | None = 10_000_000, *, scope: str = SCOPE, window: Window = TODAY, reserved: int = 0
) -> Standing:
    balance = Balance(scope=scope, spent=Amount(micros=spent), reserved=Amount(micros=reserved), window=window)
    (found,) = standings([balance], [], lambda _: [Limit(scope, micros=limit)], NOON)
    return found


def test_the_pace_is_the_mean_since_the_period_began() -> None:
    found = standing(6_000_000, reserved=500_000)
    assert found.left(MICROS) == 3_500_000
    assert found.pace(MICROS) == 500_000
    assert found.runs_out(MICROS) == NOON + 7 * 3600


@pytest.mark.parametrize(
    ("found", "runs_out"),
    [
        (standing(4_000_000), None),
        (standing(10_000_000), NOON),
        (standing(12_000_000), NOON),
        (standing(0), None),
        (standing(6_000_000, None), None),
        (standing(9_000_000, scope="app:desk~day", window=Window(sliding=86_400.0)), None),
        (standing(10_000_000, scope="app:desk~day", window=Window(sliding=86_400.0)), NOON),
        (standing(9_000_000, scope="app:desk", window=Window()), None),
    ],
    ids=["the day ends first", "spent", "past it", "nothing spent", "no limit", "slides", "slid full", "no beginning"],
)
def test_when_it_runs_out(found: Standing, runs_out: float | None) -> None:
    assert found.runs_out(MICROS) == runs_out


def test_a_scope_without_a_beginning_has_the_pace_that_was_seen() -> None:
    balance = Balance(scope="session:desk/1", spent=Amount(tokens=300), window=Window(idle=9.0))
    limits = (1_000, *[None] * 6)
    found = Standing(balance=balance, ceilings=limits, begun=None, now=NOON, seen=(NOON - 1800, (200, *[0] * 6)))
    assert (found.pace(0), found.runs_out(0)) == (200, NOON + 3.5 * 3600)


def test_the_tightest_of_all_known_limits_counts() -> None:
    open_one = Reservation(key="a", amount=Amount(), state="open", limits=(Limit(SCOPE, tokens=50, calls=9),))
    closed = Reservation(key="b", amount=Amount(), state="settled", limits=(Limit(SCOPE, tokens=1),))
    (found,) = standings([Balance(scope=SCOPE)], [open_one, closed], lambda _: [Limit(SCOPE, tokens=70, calls=4)], NOON)
    assert found.ceilings == (50, None, None, 4, None, None, None)


def test_units_are_called_as_in_a_policy() -> None:
    assert {name for name, _ in UNITS.values()} == set(Limits.model_fields)
    assert list(UNITS) == list(DIMENSIONS)


@pytest.mark.parametrize(
    ("scope", "kind"),
    [("app:x@2025-11", "app"), ("step:x/1", "step"), ("emergency:x", "emergency"), ("apps", "other"), ("a:b", "other")],
)
def test_the_kind_of_a_scope_is_one_of_few(scope: str, kind: str) -> None:
    assert kind_of(scope) == kind


def full() -> Standing:
    balance = Balance(
        scope='tenant:desk/a "b"\\',
        spent=Amount(10, 1_500_001, 2_500, 3, 4, 5, 1),
        reserved=Amount(tokens=7),
        overshoot=Amount(micros=1),
        expired=2,
        window=TODAY,
    )
    return Standing(balance=balance, ceilings=(5, 2_000_000, *[None] * 5), begun=DAY, now=NOON)


def test_an_object_holds_exact_integers_and_what_is_known() -> None:
    told: dict[str, Any] = json.loads(json.dumps(as_object(full())))
    assert told["spent"] == dict(zip(DIMENSIONS, (10, 1_500_001, 2_500, 3, 4, 5, 1), strict=True))
    assert told["limit"] == {"tokens": 5, "micros": 2_000_000}
    assert told["left"] == {"tokens": -12, "micros": 499_999}
    assert told["overshoot"]["micros"] == 1
    assert (told["kind"], told["expired"], told["window"]["until"]) == ("tenant", 2, DAY + 86_400)
    assert told["runs_out"]["tokens"] == NOON


def test_the_csv_has_a_row_for_each_dimension() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([full()]))))
    assert [row["dimension"] for row in rows] == list(DIMENSIONS)
    assert tuple(rows[1].values()) == (
        *('tenant:desk/a "b"\\', "tenant", str(DAY + 86_400), "", "micros"),
        *("2000000", "1500001", "0", "499999", "1", "2"),
    )
    assert tuple(rows[1]) == COLUMNS


def test_prometheus_reads_base_units_and_escaped_labels() -> None:
    text = as_prometheus([full()])
    labels = r'{scope="tenant:desk/a \"b\"\\",kind="tenant"}'
    for expected in (
        f"governor_scope_spent_usd{labels} 1.500001",
        f"governor_scope_left_usd{labels} 0.499999",
        f"governor_scope_overshoot_usd{labels} 0.000001",
        f"governor_scope_spent_seconds{labels} 2.5",
        f"governor_scope_left_tokens{labels} -12",
        f"governor_scope_limit_tokens{labels} 5",
        f"governor_scope_expired_leases_total{labels} 2",
        "# TYPE governor_scope_expired_leases_total counter",
        "# TYPE governor_scope_spent_thinking_tokens gauge",
    ):
        assert text.splitlines().count(expected) == 1, expected
    assert "governor_scope_limit_calls" not in text
    assert text.endswith("\n")
    assert as_prometheus([]) == ""
