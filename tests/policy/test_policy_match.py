"""Which rule matches, why, and the terms it grants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.policy import Policy, limits_on, load_policy, policy_from, tell_for, terms_for, verify_for
from governor.policy.period import PERIOD_IDLE, RUN, SESSION, STEP, fixed, window, window_of
from governor.records import Limit, Step, Window

NOON = datetime(2026, 11, 21, 14, 30, tzinfo=UTC).timestamp()
LADDER = [{"id": "low", "model": "m"}, {"id": "mid", "model": "m"}, {"id": "top", "model": "n"}]
TOOL = {"type": "function", "function": {"name": "f"}}


def policy(**keys: Any) -> Policy:
    return policy_from({"version": 1, "app": "shop", "ladder": LADDER, **keys})


def step(prompt: str = "hello", **keys: Any) -> Step:
    return Step(id="s1", messages=({"role": "user", "content": prompt},), **keys)


def difficulty(match: dict[str, Any], asked: Step) -> float | None:
    """1 where the rule matches, None where it does not."""
    return terms_for(policy(steps=[{"match": match, "difficulty": 1}]), asked, NOON).difficulty


MATCHES: list[tuple[dict[str, Any], Step, bool]] = [
    ({}, step(), True),
    ({"node": "solve"}, step(node="solve"), True),
    ({"node": "solve"}, step(node="solver"), False),
    ({"node": "sol*"}, step(node="solver"), True),
    ({"node": "Sol*"}, step(node="solver"), False),
    ({"node": ["plan", "so?ve"]}, step(node="solve"), True),
    ({"node": ["plan", "so?ve"]}, step(node="plan2"), False),
    ({"node": "a.c"}, step(node="abc"), False),
    ({"tools": True}, step(tools=(TOOL,)), True),
    ({"tools": True}, step(), False),
    ({"tools": False}, step(), True),
    ({"tools": False}, step(tools=(TOOL,)), False),
    ({"schema": True}, step(response_schema={}), True),
    ({"schema": True}, step(), False),
    ({"schema": False}, step(response_schema={"type": "object"}), False),
    ({"min_prompt_chars": 5}, step("12345"), True),
    ({"min_prompt_chars": 6}, step("12345"), False),
    ({"max_prompt_chars": 5}, step("12345"), True),
    ({"max_prompt_chars": 4}, step("12345"), False),
    ({"prompt": "(?i)refund"}, step("A REFUND, please"), True),
    ({"prompt": "^refund"}, step("A refund"), False),
    ({"state": {"tier": "gold"}}, step(state={"tier": "gold", "x": 1}), True),
    ({"state": {"tier": "gold"}}, step(state={"tier": "tin"}), False),
    ({"state": {"tier": "gold"}}, step(), False),
    ({"state": {"errors": 1}}, step(state={"errors": True}), False),
    ({"state": {"errors": 1}}, step(state={"errors": 1.0}), True),
    ({"state": {"flag": True}}, step(state={"flag": True}), True),
    ({"state": {"a": 1, "b": "x"}}, step(state={"a": 1}), False),
    ({"node": "solve", "tools": True}, step(node="solve"), False),
    ({"node": "solve", "tools": True}, step(node="solve", tools=(TOOL,)), True),
]


@pytest.mark.parametrize(("match", "asked", "holds"), MATCHES)
def test_match(match: dict[str, Any], asked: Step, holds: bool) -> None:
    assert difficulty(match, asked) == (1 if holds else None)


def test_the_first_match_wins_and_says_so() -> None:
    given_rules = policy(
        steps=[
            {"match": {"node": ["plan", "sol*"], "tools": True}, "dial": 0.1},
            {"match": {"node": "solve", "state": {"tier": "gold"}}, "dial": 0.2},
            {"dial": 0.3},
        ]
    )
    first = terms_for(given_rules, step(node="solve", tools=(TOOL,), state={"tier": "gold"}), NOON)
    second = terms_for(given_rules, step(node="solve", state={"tier": "gold"}), NOON)
    third = terms_for(given_rules, step(node="solve"), NOON)
    assert (first.dial, first.reason) == (0.1, "steps[0] matches node plan or sol*, tools present")
    assert (second.dial, second.reason) == (0.2, "steps[1] matches node solve, state tier=gold")
    assert (third.dial, third.reason) == (0.3, "steps[2] matches every step")
    assert terms_for(policy(), step(), NOON).reason == "no rule of steps matches: the policy's own terms"


def test_defaults_become_terms() -> None:
    terms = terms_for(policy(), step(), NOON)
    assert [rung.id for rung in terms.ladder] == ["low", "mid", "top"]
    assert (terms.app, terms.dial, terms.keep, terms.harm) == ("shop", 0.3, None, 0.5)
    assert (terms.call, terms.limits, terms.deadline, terms.difficulty) == (None, (), None, None)
    assert (terms.mode, terms.share, terms.fail, terms.baseline) == ("on", 1.0, "closed", "top")
    assert terms.modes == ("continue", "more", "feedback", "fresh", "again", "agree", "compare", "verify")
    assert terms.max_attempts == 6
    assert terms.continues == frozenset()


@pytest.mark.parametrize(
    ("mode", "kind", "share"), [("on", "on", 1.0), ("shadow", "shadow", 0.0), ({"canary": 0.25}, "canary", 0.25)]
)
def test_modes(mode: Any, kind: str, share: float) -> None:
    ours = terms_for(policy(mode=mode), step(), NOON)
    rule = terms_for(policy(steps=[{"mode": mode}]), step(), NOON)
    assert (ours.mode, ours.share) == (rule.mode, rule.share) == (kind, share)


def test_a_rule_overrides_only_what_it_gives() -> None:
    own = policy(
        keep=0.9,
        harm=2,
        deadline=60,
        baseline="mid",
        verify="complete",
        budget={"call": {"tokens": 5000}, "step": {"usd": 1}, "session": {"calls": 9}, "on_exhausted": "refuse"},
        backtrack={"modes": ["fresh"], "max_attempts": 3},
        steps=[
            {
                "match": {"node": "x"},
                "ladder": ["mid", {"id": "own", "model": "z", "answer_tokens": 7}],
                "dial": 0.7,
                "budget": {"step": {"tokens": 10}},
                "backtrack": {"max_attempts": 1},
                "verify": None,
            },
            {"match": {"node": "y"}, "harm": 0, "deadline": 5, "verify": {"regex": "a"}, "ladder": ["low", "top"]},
        ],
    )
    x, y, other = (terms_for(own, step(node=node), NOON) for node in "xyz")
    assert [(rung.id, rung.answer_tokens) for rung in x.ladder] == [("mid", 1024), ("own", 7)]
    assert (x.dial, x.keep, x.harm, x.deadline, x.baseline) == (0.7, None, 2, 60, "mid")
    assert x.limits == (
        Limit("step:shop/s1", tokens=10, window=STEP),
        Limit("session:shop/s1", calls=9, window=SESSION),
    )
    assert x.call == Limit("call", tokens=5000)
    assert (x.on_exhausted, x.modes, x.max_attempts) == ("refuse", ("fresh",), 1)
    assert (y.dial, y.keep, y.harm, y.deadline, y.baseline, y.max_attempts) == (None, 0.9, 0, 5, "top", 3)
    money = Limit("step:shop/s1", micros=1_000_000, window=STEP)
    assert y.limits == other.limits == (money, Limit("session:shop/s1", calls=9, window=SESSION))
    assert [verify_for(own, step(node=node)) for node in "xyz"] == [None, {"regex": "a"}, "complete"]


def test_the_model_is_told_of_its_budget_where_the_policy_or_its_rule_says_so() -> None:
    own = policy(
        budget={"tell": True, "step": {"usd": 1}},
        steps=[
            {"match": {"node": "quiet"}, "budget": {"tell": False}},
            {"match": {"node": "loud"}, "budget": {"step": {"usd": 2}}},
        ],
    )
    assert [tell_for(own, step(node=node)) for node in ("quiet", "loud", "other")] == [False, True, True]
    assert not tell_for(policy(), step())


def test_scopes_name_app_session_step_and_window() -> None:
    own = policy(budget={"step": {"calls": 1}, "session": {"calls": 2}, "app": {"per": "day", "usd": 3}})
    scopes = [limit.scope for limit in terms_for(own, step(session="conv/7"), NOON).limits]
    assert scopes == ["step:shop/s1", "session:shop/conv/7", "app:shop@2026-11-21"]


@given(st.text(max_size=8), st.text(min_size=1, max_size=8), st.text(max_size=8))
def test_a_run_is_one_scope_and_a_step_without_run_a_run_of_its_own(run: str, step_id: str, node: str) -> None:
    own = policy(budget={"run": {"usd": 0.5}}, steps=[{"match": {"node": "x*"}, "budget": {"run": {"calls": 3}}}])
    (limit,) = terms_for(own, Step(id=step_id, messages=(), node=node, run=run), NOON).limits
    assert (limit.scope, limit.window) == (f"run:shop/{run or step_id}", RUN)
    assert (limit.calls, limit.micros) == ((3, None) if node.startswith("x") else (None, 500_000))
    assert limits_on(own, limit.scope) == (Limit(limit.scope, calls=3), Limit(limit.scope, micros=500_000))
    assert window_of(limit.scope) == RUN


@pytest.mark.parametrize(
    ("per", "name"), [("hour", "2026-11-21T14"), ("day", "2026-11-21"), ("week", "2026-W47"), ("month", "2026-11")]
)
def test_windows_are_utc(per: str, name: str) -> None:
    assert window(per, NOON) == name


def test_weeks_follow_iso_across_the_year() -> None:
    assert window("week", datetime(2027, 1, 3, 23, 59, tzinfo=UTC).timestamp()) == "2026-W53"
    assert window("week", datetime(2027, 1, 4, tzinfo=UTC).timestamp()) == "2027-W01"


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.sampled_from(["hour", "day", "week", "month"]))
def test_two_times_share_a_window_exactly_when_they_share_the_period(one: float, two: float, per: str) -> None:
    moments = [datetime.fromtimestamp(when, UTC) for when in (one, two)]
    every: dict[str, list[Any]] = {
        "hour": [moment.replace(minute=0, second=0, microsecond=0) for moment in moments],
        "day": [moment.date() for moment in moments],
        "week": [moment.isocalendar()[:2] for moment in moments],
        "month": [(moment.year, moment.month) for moment in moments],
    }
    starts = every[per]
    assert (window(per, one) == window(per, two)) == (starts[0] == starts[1])


@given(st.none() | st.floats(0.1, 100), st.none() | st.floats(0.1, 100))
def test_the_earlier_deadline_holds(ours: float | None, theirs: float | None) -> None:
    terms = terms_for(policy(**({} if ours is None else {"deadline": ours})), step(deadline=theirs), NOON)
    known = [value for value in (ours, theirs) if value is not None]
    assert terms.deadline == (min(known) if known else None)


@given(st.text(max_size=30), st.text(max_size=8), st.text(max_size=8), st.booleans(), st.floats(0, 4e9))
def test_terms_of_any_step_are_whole(prompt: str, node: str, session: str, tools: bool, when: float) -> None:
    own = load_policy("support-desk")
    asked = step(prompt, node=node, session=session, tools=(TOOL,) if tools else ())
    terms = terms_for(own, asked, when)
    assert terms == terms_for(own, asked, when)
    assert (terms.dial is None) != (terms.keep is None)
    assert terms.baseline in {rung.id for rung in terms.ladder}
    assert [limit.scope.partition(":")[0] for limit in terms.limits] == ["step", "session", "app"]
    assert {rung.id for rung in terms.ladder} <= set(own.rungs)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5), st.sampled_from(["a", "b", "c", "d"]))
def test_the_rule_used_is_the_first_that_matches(nodes: list[str], node: str) -> None:
    rules = [{"match": {"node": name}, "difficulty": at / 10} for at, name in enumerate(nodes)]
    expected = nodes.index(node) / 10 if node in nodes else None
    assert terms_for(policy(steps=rules), step(node=node), NOON).difficulty == expected


def test_several_windows_and_scopes_hold_at_once() -> None:
    periods = [{"usd": 20, "per": "day"}, {"tokens": 9, "per": "hour", "sliding": True}, {"calls": 7, "per": "total"}]
    own = policy(
        budget={"app": periods, "tenant": {"thinking_tokens": 5, "per": "month"}, "node": {"calls": 1, "per": "minute"}}
    )
    minute, month = datetime(2026, 11, 21, 14, 6, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    asked = Step(id="s1", messages=(), node="plan", tenant="acme")
    assert terms_for(own, asked, minute.timestamp() - 30).limits == (
        Limit("node:shop/plan@2026-11-21T14:05", calls=1, window=Window(until=minute.timestamp(), idle=PERIOD_IDLE)),
        Limit("tenant:shop/acme@2026-11", thinking=5, window=Window(until=month.timestamp(), idle=PERIOD_IDLE)),
        Limit(
            "app:shop@2026-11-21",
            micros=20_000_000,
            window=Window(until=datetime(2026, 11, 22, tzinfo=UTC).timestamp(), idle=PERIOD_IDLE),
        ),
        Limit("app:shop~hour", tokens=9, window=Window(sliding=3600.0)),
        Limit("app:shop", calls=7),
    )


@given(st.sampled_from(["minute", "hour", "day", "week", "month"]), st.integers(0, 4_000_000_000))
def test_a_period_ends_where_the_next_begins(per: str, when: int) -> None:
    name, counted = fixed(per, when)
    assert counted.until is not None
    assert counted.until > when
    assert window(per, counted.until - 1) == name != window(per, counted.until)
