"""Balances out of records: every scope, its window, what no longer counts, and what can't be placed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from governor.policy.period import placed, window_of
from governor.records import Amount, Window
from governor.telemetry.restore import restored

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
DAY = "app:desk@2026-11-21"


def attempt(step: str, micros: int) -> dict[str, Any]:
    usage = {"input_tokens": 4, "output_tokens": 6}
    return {"kind": "attempt", "step_id": step, "usage": usage, "micros": micros, "calls": 1, "verdict": None}


def outcome(step: str, micros: int, scopes: list[str] | None, ago: float = 60.0) -> dict[str, Any]:
    spent = {"tokens": 10, "micros": micros, "millis": 5, "calls": 1, "input": 4, "thinking": 0, "answer": 6}
    when = datetime.fromtimestamp(NOON - ago, UTC).isoformat()
    told = {} if scopes is None else {"scopes": scopes}
    return {"kind": "outcome", "step_id": step, "spent": spent, "time": when, **told}


def test_spend_is_added_up_on_every_scope_with_its_window() -> None:
    scopes = [DAY, "session:desk/9", "tenant:desk/acme~hour", "app:desk"]
    lines = [line for at in range(3) for line in (attempt(f"s{at}", 7), outcome(f"s{at}", 7, scopes))]
    found = restored([*lines, lines[-1]], NOON)
    assert (found.outcomes, found.unplaced) == (3, ())
    assert [one.scope for one in found.balances] == sorted(scopes)
    assert {one.spent for one in found.balances} == {Amount(30, 21, 15, 3, 12, 0, 18)}
    assert [one.window for one in found.balances] == [window_of(scope) for scope in sorted(scopes)]


@pytest.mark.parametrize(
    ("scope", "ago", "counts"),
    [
        ("app:desk~hour", 3_500.0, True),
        ("app:desk~hour", 3_700.0, False),
        ("session:desk/9", 29 * 86_400.0, True),
        ("session:desk/9", 31 * 86_400.0, False),
        ("run:desk/r", 29 * 86_400.0, True),
        ("run:desk/r", 31 * 86_400.0, False),
        ("step:desk/s", 60.0, False),
        ("app:desk", 900 * 86_400.0, True),
    ],
)
def test_what_a_ledger_would_not_count_any_more_is_left_out(scope: str, ago: float, counts: bool) -> None:
    found = restored([attempt("s", 7), outcome("s", 7, [scope], ago)], NOON)
    assert [one.scope for one in found.balances] == [scope] * counts


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([attempt("s", 7)], "no outcome: its attempts used 10 tokens, 7 micro-USD"),
        ([attempt("s", 7), outcome("s", 7, None)], "its outcome does not state its scopes"),
        ([attempt("s", 7), outcome("s", 8, [DAY])], "its attempts come to 7 micros where its outcome says 8"),
    ],
)
def test_steps_whose_spend_is_not_placed_are_named(lines: list[dict[str, Any]], why: str) -> None:
    assert restored(lines, NOON).unplaced == (("s", why),)


def part(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"step_id": "s/1", "parent": "s"} for line in lines]


@pytest.mark.parametrize("inner", [[attempt("", 3)], [attempt("", 3), outcome("", 3, [])]], ids=["cut", "ended"])
def test_a_part_is_placed_by_the_step_that_it_is_a_part_of(inner: list[dict[str, Any]]) -> None:
    found = restored([*part(inner), attempt("s", 7), outcome("s", 7, [DAY])], NOON)
    assert found.unplaced == ()
    assert [one.spent.micros for one in found.balances] == [7], "what the part spent is in the whole's figures"
    lost = restored(part(inner), NOON)
    assert lost.unplaced == (("s/1", "it is a part of 's', which has no outcome"),)


def test_a_part_with_scopes_of_its_own_is_booked_on_them() -> None:
    lines = [*part([attempt("", 3), outcome("", 3, [DAY])]), attempt("s", 7), outcome("s", 7, [DAY])]
    found = restored(lines, NOON)
    assert ([one.spent.micros for one in found.balances], found.unplaced) == ([10], ())


@pytest.mark.parametrize("per", ["minute", "hour", "day", "week", "month", "total"])
@pytest.mark.parametrize("sliding", [False, True])
def test_a_scopes_key_tells_its_window(per: Any, sliding: bool) -> None:
    scope, window = placed("app:desk", per, sliding, NOON)
    assert window_of(scope) == window


def test_steps_runs_and_sessions_may_be_called_like_a_window() -> None:
    assert window_of("session:desk/x~hour") == window_of("session:desk/x")
    assert window_of("run:desk/x@2026-11-21") == window_of("run:desk/x") == window_of("session:desk/x")
    assert window_of("step:desk/2026-11-21").idle == 0.0
    assert window_of("app:desk") == Window()
