"""From a scope's key back to the period in it and the limits on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.ledger.exposition import kind_of
from governor.policy import limits_on, policy_from, terms_for
from governor.policy.period import fixed, period_of, slides
from governor.records import Step
from governor.telemetry.metrics import WIDEST

RUNG = [{"id": "a", "model": "m/a"}]
PERIODS = ("minute", "hour", "day", "week", "month")
BUDGET: dict[str, Any] = {
    "step": {"usd": 1, "seconds": 9},
    "session": {"tokens": 100},
    "run": {"calls": 8, "usd": 4},
    "node": {"per": "hour", "calls": 5},
    "tenant": [{"per": "total", "usd": 3}, {"per": "day", "sliding": True, "usd": 2}],
    "app": [{"per": "month", "usd": 9}, {"per": "week", "tokens": 7}, {"per": "minute", "sliding": True, "calls": 1}],
}
POLICY = policy_from(
    {
        "version": 1,
        "app": "desk",
        "ladder": RUNG,
        "budget": BUDGET,
        "steps": [{"match": {"node": "plan"}, "budget": {"session": {"tokens": 50, "calls": 2}, "run": {"usd": 6}}}],
    }
)


@given(st.sampled_from(PERIODS), st.floats(0, 4e9))
def test_a_period_s_name_is_read_back(per: str, when: float) -> None:
    name, window = fixed(per, when)
    found = period_of(f"app:desk@{name}")
    assert found is not None
    told, begun = found
    assert told == per
    assert begun <= when < (window.until or 0)
    assert fixed(per, begun)[0] == name


@pytest.mark.parametrize(
    "scope", ["app:desk", "app:desk~day", "session:desk/a@b", "app:desk@2026-1-1", "app:desk@2026-W99"]
)
def test_what_is_no_period_is_none(scope: str) -> None:
    assert period_of(scope) is None
    assert slides(scope) == ("day" if scope.endswith("~day") else None)


@given(st.floats(0, 4e9), st.sampled_from(["plan", "talk"]), st.sampled_from(["", "t/1", "t@x"]))
def test_every_limit_that_a_step_meets_is_found_by_its_scope(when: float, node: str, tenant: str) -> None:
    step = Step(id="s", messages=(), node=node, session="9", run="r/3@2026", tenant=tenant)
    for limit in terms_for(POLICY, step, when).limits:
        without = {name: getattr(limit, name) for name in ("tokens", "micros", "millis", "calls", "input", "answer")}
        found = [{name: getattr(one, name) for name in without} for one in limits_on(POLICY, limit.scope)]
        assert without in found, limit


def test_metrics_and_exports_know_every_kind_of_scope_that_a_policy_names() -> None:
    limits = terms_for(POLICY, Step(id="s", messages=(), run="7", tenant="t"), 0.0).limits
    kinds = [kind_of(limit.scope) for limit in limits]
    assert {*kinds} == {"step", "session", "run", "node", "tenant", "app"}
    assert {*kinds} - {*WIDEST} == {"step"}


@pytest.mark.parametrize(
    ("scope", "tokens", "micros"),
    [
        ("session:desk/1", [50, 100], [None, None]),
        ("session:desk2/1", [], []),
        ("run:desk/1@2026-11", [None, None], [6_000_000, 4_000_000]),
        ("run:desk2/1", [], []),
        ("app:desk@2026-11", [None], [9_000_000]),
        ("app:desk@2026-W47", [7], [None]),
        ("app:desk@2026-11-21", [], []),
        ("app:desk", [], []),
        ("app:desk2@2026-11", [], []),
        ("app:desk~minute", [None], [None]),
        ("tenant:desk/t", [None], [3_000_000]),
        ("tenant:desk/t~day", [None], [2_000_000]),
        ("other", [], []),
    ],
)
def test_a_scope_has_the_limits_of_its_kind_and_period_alone(scope: str, tokens: list[Any], micros: list[Any]) -> None:
    found = limits_on(POLICY, scope)
    assert [limit.tokens for limit in found] == tokens
    assert [limit.micros for limit in found] == micros
    assert {limit.scope for limit in found} <= {scope}
