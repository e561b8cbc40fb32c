"""What a policy says of steps that fail for good, and of tools that a rewind would call again."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.policy import (
    OnFail,
    Policy,
    Rewind,
    ToolRule,
    inspect_policy,
    load_policy,
    on_fail_for,
    policy_from,
    terms_for,
    tool_rule,
)
from governor.records import Step

LADDER = [{"id": "low", "model": "m"}, {"id": "top", "model": "m"}]


def policy(**keys: Any) -> Policy:
    return policy_from({"version": 1, "app": "shop", "ladder": LADDER, **keys})


def step(node: str) -> Step:
    return Step(id="s1", messages=(), node=node)


def test_a_step_fails_by_the_rule_that_it_falls_under() -> None:
    own = policy(
        steps=[
            {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "rung": "+1", "max": 3}}},
            {"match": {"node": "review*"}, "on_fail": {"blame": "auto"}},
            {"match": {"node": "solve"}, "dial": 0.1},
            {"match": {"node": "s*"}, "on_fail": {"blame": "auto", "backtrack": {"rung": 0, "max": 1}}},
        ]
    )
    check, review, solve, other, none = (
        on_fail_for(own, step(node)) for node in ("check", "review2", "solve", "sum", "plan")
    )
    assert check == OnFail(backtrack=Rewind(to="plan", rung=1, max=3))
    assert review is not None
    assert (review.blame, review.backtrack, review.rewind) == ("auto", None, Rewind(to=None, rung=1, max=2))
    assert (solve, none) == (None, None), "the first rule that matches is the only one used"
    assert other is not None
    assert (other.blame, other.rewind) == ("auto", Rewind(rung=0, max=1))


@given(st.integers(0, 99))
def test_rungs_upwards_are_a_number_or_a_text_with_its_sign(up: int) -> None:
    said: list[Any] = [up, f"+{up}"]
    found = [policy(steps=[{"on_fail": {"backtrack": {"to": "plan", "rung": one}}}]) for one in said]
    assert [one.steps[0].on_fail.backtrack.rung for one in found if one.steps[0].on_fail] == [up, up]  # type: ignore[union-attr]
    assert found[0].digest == found[1].digest


def test_a_plain_plus_one_in_yaml_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nladder: [{id: a, model: m}, {id: b, model: m}]\n"
        "steps: [{match: {node: check}, on_fail: {backtrack: {to: plan, rung: +1, max: 2}}}]\n"
    )
    found = inspect_policy(path)
    assert (found.problems, found.warnings) == ((), ())
    assert found.policy is not None
    assert on_fail_for(found.policy, step("check")) == OnFail(backtrack=Rewind(to="plan"))


def test_a_glob_that_holds_the_node_to_go_back_to_is_no_mistake() -> None:
    for node in ("pl*", ["plan", "check"]):
        assert policy(steps=[{"match": {"node": node}, "on_fail": {"backtrack": {"to": "plan"}}}]).steps[0].on_fail


GLOBS = st.sampled_from(["*", "pay", "p*", "?ay", "[ps]ay", "say", "Pay"])
RULES = st.builds(
    lambda rewind, most: {"on_rewind": rewind, "max_calls": most},
    st.sampled_from(["replay", "rerun", "forbid"]),
    st.none() | st.integers(0, 9),
)


@given(st.dictionaries(GLOBS, RULES, max_size=5), st.sampled_from(["pay", "say", "Pay", "pray", "ay"]))
def test_the_rule_of_a_tool_is_that_of_the_first_glob_that_matches(tools: dict[str, Any], name: str) -> None:
    first: dict[str, Any] = next((rule for glob, rule in tools.items() if fnmatchcase(name, glob)), {})
    assert tool_rule(policy(tools=tools), name) == ToolRule(**first)


def test_what_no_rule_names_is_replayed_without_limit() -> None:
    assert tool_rule(policy(), "pay") == ToolRule(on_rewind="replay", max_calls=None)
    assert tool_rule(policy(tools={"pay": {}}), "pay") == ToolRule()
    assert policy().ungoverned == "error"


def test_a_file_s_own_globs_are_tried_before_those_that_it_inherits(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "version: 1\nladder: [{id: a, model: m}]\nungoverned: pass\n"
        "tools: {'*': {on_rewind: rerun}, pay: {on_rewind: forbid}, old: {}}\nbudget: {run: {calls: 3, usd: 1}}\n"
    )
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nextends: base.yaml\ntools: {send: {max_calls: 2}, pay: {max_calls: 1}, old: null}\n"
        "budget: {run: {calls: 5}}\n"
    )
    own = load_policy(path)
    assert list(own.tools) == ["send", "pay", "*"]
    assert tool_rule(own, "send") == ToolRule(max_calls=2)
    assert tool_rule(own, "pay") == ToolRule(on_rewind="forbid", max_calls=1)
    assert tool_rule(own, "other") == ToolRule(on_rewind="rerun")
    assert own.ungoverned == "pass"
    assert own.budget.run is not None
    assert (own.budget.run.calls, own.budget.run.usd) == (5, 1)


def test_the_order_of_globs_is_part_of_what_a_policy_says() -> None:
    rules = {"p*": {"on_rewind": "rerun"}, "*y": {"on_rewind": "forbid"}}
    one, other = policy(tools=rules), policy(tools=dict(reversed(rules.items())))
    assert tool_rule(one, "pay") != tool_rule(other, "pay")
    assert one != other
    assert one.digest != other.digest
    assert (one, hash(one)) == (policy(tools=rules), hash(policy(tools=rules)))


@pytest.mark.parametrize("where", ["policy", "rule"])
def test_so_is_that_of_models_with_budgets(where: str) -> None:
    globs = {"m*": {"per": "day", "calls": 1}, "*": {"per": "day", "calls": 2}}
    pair = [{"budget": {"model": dict(order)}} for order in (globs.items(), reversed(globs.items()))]
    one, other = (policy(**keys) if where == "policy" else policy(steps=[{"match": {}, **keys}]) for keys in pair)
    assert one.digest != other.digest
    assert [terms_for(each, step("ask"), 0.0).models[0][1][0].calls for each in (one, other)] == [1, 2]


def test_the_digest_of_a_policy_that_uses_none_of_it_is_that_of_before_these_keys() -> None:
    old = {"dial": 0.5, "budget": {"session": {"usd": 1}}, "steps": [{"match": {"node": "x"}, "harm": 2}]}
    found = policy_from({"version": 1, "app": "x", "ladder": [{"id": "a", "model": "m"}], **old})
    assert found.digest == "ca6584cf9503a1f3f200ae329c5cd5d5010fb7390c650a8cd5f53f513a756082"


@pytest.mark.parametrize(
    "keys",
    [
        {"tools": {"pay": {}}},
        {"ungoverned": "pass"},
        {"budget": {"tell": True}},
        {"budget": {"run": {"usd": 1}}},
        {"steps": [{"on_fail": {"blame": "auto"}}]},
    ],
    ids=str,
)
def test_each_of_these_keys_changes_the_digest(keys: dict[str, Any]) -> None:
    assert policy(**keys).digest != policy().digest
