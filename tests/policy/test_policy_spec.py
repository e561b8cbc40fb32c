"""The shape of `verify`, and the check that other parts add for its leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from governor.errors import PolicyError
from governor.policy import Finding, policy_from, specs, verify_check
from governor.policy.finding import Path, dotted, suggestion


def refused(verify: Any, **keys: Any) -> list[tuple[str, str]]:
    check = verify_check(["complete", "regex", "choice"], keys.pop("leaf", None))
    data = {"version": 1, "ladder": [{"id": "a", "model": "m"}], "verify": verify, **keys}
    try:
        policy_from(data, checks=[check])
    except PolicyError as error:
        return [(problem.field, f"{problem.message} ({problem.hint})") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "spec",
    [
        "complete",
        {"regex": "a"},
        {"complete": None},
        ["complete", {"regex": "a"}],
        {"all": ["complete", {"any": [{"regex": "a"}, {"then": ["complete", "complete"]}]}]},
        None,
    ],
)
def test_specs_of_any_depth(spec: Any) -> None:
    assert refused(spec) == []


def test_unknown_names_are_found_where_they_stand() -> None:
    spec = {"all": ["complet", {"any": [{"regx": "a"}, "complete"]}]}
    assert refused(spec) == [
        ("verify.all[0]", "unknown verifier 'complet' (did you mean 'complete'?)"),
        ("verify.all[1].any[0].regx", "unknown verifier 'regx' (did you mean 'regex'?)"),
    ]


def test_specs_of_rules_are_judged_too() -> None:
    assert refused(None, steps=[{}, {"verify": "choise"}]) == [
        ("steps[1].verify", "unknown verifier 'choise' (did you mean 'choice'?)")
    ]


def test_wrong_shapes_are_told_once() -> None:
    assert refused({"all": ["complete", 7]}) == [
        ("verify.all[1]", "must be a verifier's name, {name: options}, or a list of these ()")
    ]


def test_a_leaf_is_judged_with_its_options_and_place() -> None:
    seen: list[tuple[str, Any, Path]] = []

    def leaf(name: str, options: Any, path: Path) -> Iterator[Finding]:
        seen.append((name, options, path))
        if name == "regex" and options == "(":
            yield Finding(path, "is not a regular expression")

    assert refused({"all": ["complete", {"regex": "("}]}, leaf=leaf) == [
        ("verify.all[1].regex", "is not a regular expression ()")
    ]
    assert seen == [("complete", None, ("verify", "all", 0)), ("regex", "(", ("verify", "all", 1, "regex"))]


def test_specs_are_listed_with_their_paths() -> None:
    policy = policy_from(
        {
            "version": 1,
            "ladder": [{"id": "a", "model": "m"}],
            "verify": "complete",
            "steps": [{}, {"verify": ["regex"]}],
        }
    )
    assert list(specs(policy)) == [(("verify",), "complete"), (("steps", 1, "verify"), ["regex"])]


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("dail", ["fail", "dial", "mode"], "did you mean 'dial'?"),
        ("thinking-tokens", ["thinking_tokens"], "did you mean 'thinking_tokens'?"),
        ("Balanced", ["balanced"], "did you mean 'balanced'?"),
        ("zzz", ["a", "b"], "known: a, b"),
        ("zzz", [str(n) for n in range(50)], ""),
        ("zzz", [], ""),
    ],
)
def test_suggestions(word: str, known: list[str], hint: str) -> None:
    assert suggestion(word, known) == hint


def test_dotted() -> None:
    assert dotted(("steps", 0, "match", "node", 2)) == "steps[0].match.node[2]"
    assert dotted(()) == ""
