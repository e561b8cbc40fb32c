"""The JSON Schema: fresh, complete, and of one mind with the loader."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from governor.errors import PolicyError
from governor.policy import policy_from, shipped_names
from governor.policy.json_schema import keys_at, policy_schema, schema_text
from governor.policy.shipped import shipped_folder


def shipped(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def test_the_shipped_schema_is_fresh() -> None:
    held = (shipped_folder() / "policy.schema.json").read_text(encoding="utf-8")
    assert held == schema_text(), "run: governor schema --out policies/policy.schema.json"


def test_it_is_a_schema_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(policy_schema())
    assert policy_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_policies_are_valid_and_name_the_schema(name: str) -> None:
    errors = [error.message for error in Draft202012Validator(policy_schema()).iter_errors(shipped(name))]
    assert errors == []
    first = (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./policy.schema.json"


def test_every_key_is_described_for_editors() -> None:
    parts = [policy_schema(), *policy_schema()["$defs"].values()]
    keys = [(part["title"], key, spec) for part in parts for key, spec in part.get("properties", {}).items()]
    assert [f"{title}.{key}" for title, key, spec in keys if not spec.get("description")] == []
    assert len(keys) > 70
    assert policy_schema()["properties"]["mode"]["examples"] == ["on", "shadow", {"canary": 0.1}]


RUNG = {"id": "a", "model": "m"}
BAD_ON_FAIL: list[dict[str, Any]] = [
    {},
    {"blame": None},
    {"blame": "auto", "backtrack": {"to": "plan"}},
    {"backtrack": None},
    {"backtrack": {"to": None}},
    {"backtrack": {"rung": 1}},
    {"backtrack": {"to": "plan", "rung": "1"}},
    {"backtrack": {"to": "plan", "rung": "+100"}},
    {"backtrack": {"to": "plan", "rung": -1}},
    {"backtrack": {"to": "plan", "max": 0}},
]
GOOD_ON_FAIL: list[dict[str, Any]] = [
    {"blame": "auto"},
    {"blame": "auto", "backtrack": None},
    {"blame": "auto", "backtrack": {"rung": "+2", "max": 1, "to": None}},
    {"backtrack": {"to": "plan"}, "blame": None},
    {"backtrack": {"to": "plan", "rung": 0, "max": 100}},
]
BAD: list[dict[str, Any]] = [
    {"version": 2, "ladder": [RUNG]},
    {"ladder": [RUNG]},
    {"version": 1},
    {"version": 1, "ladder": []},
    {"version": 1, "ladder": [RUNG], "dail": 1},
    {"version": 1, "ladder": [RUNG], "dial": 2},
    {"version": 1, "ladder": [RUNG], "dial": 0.1, "keep": 0.9},
    {"version": 1, "ladder": [RUNG], "mode": "off"},
    {"version": 1, "ladder": [RUNG], "mode": {"canary": 3}},
    {"version": 1, "ladder": [{"id": "a b", "model": "m"}]},
    {"version": 1, "ladder": [RUNG], "verify": {"all": []}},
    {"version": 1, "ladder": [RUNG], "verify": {"a": 1, "b": 2}},
    {"version": 1, "ladder": [RUNG], "steps": [{"match": {"nod": "x"}}]},
    {"version": 1, "ladder": [RUNG], "steps": [{"dial": 0.1, "keep": 0.9}]},
    {"version": 1, "ladder": [RUNG], "budget": {"app": {"usd": 1, "per": "year"}}},
    *({"version": 1, "ladder": [RUNG], "steps": [{"on_fail": on_fail}]} for on_fail in BAD_ON_FAIL),
    {"version": 1, "ladder": [RUNG], "tools": {"pay": {"on_rewind": "undo"}}},
    {"version": 1, "ladder": [RUNG], "ungoverned": True},
]


@pytest.mark.parametrize("data", BAD, ids=str)
def test_schema_and_loader_refuse_the_same(data: dict[str, Any]) -> None:
    assert not Draft202012Validator(policy_schema()).is_valid(data)
    with pytest.raises(PolicyError):
        policy_from(data)


@pytest.mark.parametrize("on_fail", GOOD_ON_FAIL, ids=str)
def test_schema_and_loader_accept_the_same(on_fail: dict[str, Any]) -> None:
    data = {"version": 1, "ladder": [RUNG], "steps": [{"on_fail": on_fail}]}
    assert Draft202012Validator(policy_schema()).is_valid(data)
    assert policy_from(data).steps[0].on_fail is not None


def test_keys_are_known_at_every_depth() -> None:
    assert "thinking_tokens" in keys_at(("ladder", 0))
    assert keys_at(("models", "any/model", "price")) == ["input", "output", "cached_input", "cache_write"]
    assert "schema" in keys_at(("steps", 2, "match"))
    assert keys_at(("steps", 1, "on_fail", "backtrack")) == ["to", "rung", "max"]
    assert keys_at(("tools", "any_tool")) == ["on_rewind", "max_calls"]
    assert keys_at(("mode",)) == ["canary"]
    assert "model" in keys_at(("steps", 0, "ladder", 1))
    assert keys_at(("dial", "x")) == []


def test_the_reference_names_every_key() -> None:
    reference = (shipped_folder().parent / "docs" / "policy.md").read_text(encoding="utf-8")
    parts = [policy_schema(), *policy_schema()["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", {})}
    assert {key for key in keys if key not in reference} == set()
