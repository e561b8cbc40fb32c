from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import PolicyError
from governor.plan.bounds import bound
from governor.protocols import Verifier
from governor.verify import build_verifier, known_verifiers, problems_of
from governor.verify.kinds import KINDS
from governor.verify.spec import GROUPS
from tests.verify.driver import STEP, TOP, built, call_of, judged

EXAMPLES: dict[str, Any] = {
    "agreement": 3,
    "arithmetic": "48 * 27",
    "callable": "tests.verify.test_custom_verifiers:is_42",
    "choice": ["yes", "no"],
    "complete": None,
    "confidence": 0.8,
    "contains": "x",
    "equation": "x + 1 = 2",
    "grounded": None,
    "json_schema": "from_step",
    "judge": "top",
    "maths": "1/2",
    "number": None,
    "pydantic": "tests.verify.test_structure_checks:Person",
    "python_tests": ["assert f(1) == 1"],
    "regex": "x",
    "tool_arguments": None,
}


def test_every_verifier_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize(("name", "short"), EXAMPLES.items())
def test_every_verifier_can_be_built_and_its_rates_overridden(name: str, short: Any) -> None:
    if name == "maths":
        pytest.importorskip("math_verify", reason="the extra 'maths' is not installed")
    assert problems_of({name: short}, judge_rungs=["top"]) == []
    plain = built({name: short}, judge_rungs={"top": TOP})
    assert isinstance(plain, Verifier)
    assert plain.name == name
    assert 0 < plain.false_accept < plain.sensitivity < 1
    stated = built({name: short, "sensitivity": 0.5, "false_accept": 0.25}, judge_rungs={"top": TOP})
    assert (stated.sensitivity, stated.false_accept) == (0.5, 0.25)
    assert plain.bound(call_of(STEP)).millis >= 0
    assert plain.wants_logprobs is (name == "confidence")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_verifier_and_option_is_documented(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
    section = re.search(rf"^### `{name}`\n(.*?)(?=^##)", page, re.DOTALL | re.MULTILINE)
    assert section, f"docs/verify.md has no section on {name}"
    options = {given.alias or field for field, given in KINDS[name].options.model_fields.items()}
    for option in options - {"sensitivity", "false_accept"}:
        assert re.search(f"`{option}[`:]", section[1]), f"docs/verify.md: {name} does not explain {option}"
    rates = re.search(r"s = (\d\.\d+), f = (\d\.\d+)", section[1])
    assert rates, f"docs/verify.md: {name} states no rates"
    if name == "maths":
        pytest.importorskip("math_verify", reason="the extra 'maths' is not installed")
    verifier = built({name: EXAMPLES[name]}, judge_rungs={"top": TOP})
    assert (verifier.sensitivity, verifier.false_accept) == (float(rates[1]), float(rates[2]))


@pytest.mark.parametrize(
    ("spec", "path", "message", "hint"),
    [
        ("complet", (), "there is no verifier 'complet'", "did you mean 'complete'?"),
        ({"al": ["complete"]}, ("al",), "there is no verifier 'al'", "did you mean 'all'?"),
        (["complete", {"regex": "("}], (1, "regex"), "not a regular expression", ""),
        (
            {"all": [{"regex": "a", "mod": "x"}]},
            ("all", 0, "mod"),
            "'regex' has no option 'mod'",
            "did you mean 'mode'?",
        ),
        ({"regex": {"pattern": "a", "mode": "find"}}, ("regex", "mode"), "Input should be 'fullmatch' or 'search'", ""),
        ("regex", (), "'regex' needs the option 'pattern'", "regex: {pattern: ...}"),
        ({"number": {"minimum": 3, "maximum": 1}}, ("number",), "minimum is above maximum", ""),
        ({"number": {"equals": "abc"}}, ("number", "equals"), "write one number", ""),
        ({"judge": "tpo"}, ("judge",), "there is no rung 'tpo', only: top", ""),
        ({"json_schema": {"type": "objec"}}, ("json_schema",), "not a JSON Schema: $.type", ""),
        ({"json_schema": {"schema": 7}}, ("json_schema", "schema"), "write a JSON Schema as a mapping", ""),
        ({"equation": "3*x + y = 2"}, ("equation",), "only one variable can be checked", ""),
        ({"equation": "3*x"}, ("equation",), "exactly one '='", ""),
        ({"equation": "x = import os"}, ("equation",), "not an arithmetic expression", ""),
        ({"arithmetic": "1/0", "check": "exact"}, ("arithmetic",), "divides by zero", ""),
        ({"arithmetic": "10**99999"}, ("arithmetic",), "too large", ""),
        ({"arithmetic": "x + 1"}, ("arithmetic",), "without variables", ""),
        ({"arithmetic": "1/2"}, ("arithmetic",), "residues need whole numbers", ""),
        ({"confidence": 2}, ("confidence",), "less than or equal to 1", ""),
        ({"complete": {"refusals": "no"}}, ("complete", "refusals"), "valid boolean", ""),
        ({"python_tests": ["x ="]}, ("python_tests",), "not Python: 'x ='", ""),
        ({"python_tests": [{"input": [1], "expected": 2}]}, ("python_tests",), "need the option 'function'", ""),
        ({"python_tests": []}, ("python_tests",), "at least 1 item", ""),
        ({"callable": "nope"}, ("callable",), "package.module:name", ""),
        ({"callable": "os:system; rm"}, ("callable",), "package.module:name", ""),
        ({"regex": "a", "choice": ["b"]}, (), "one verifier a mapping, not regex and choice", "write a list"),
        ({"any": []}, ("any",), "'any' needs a list of verifiers", "any: [complete, ...]"),
        ({"any": "complete"}, ("any",), "'any' needs a list of verifiers", ""),
        ({"all": ["complete"], "mode": 1}, ("mode",), "'all' takes no options", "leave it out"),
        ({}, (), "a verifier is needed", ""),
        (7, (), "a verifier is needed, not 7", ""),
        ([None], (0,), "a verifier is needed here", ""),
        ({"agreement": {"samples": 0}}, ("agreement", "samples"), "greater than or equal to 1", ""),
        ({"complete": None, "sensitivity": 1.5}, ("sensitivity",), "less than or equal to 1", ""),
    ],
)
def test_mistakes_are_told_with_their_place(spec: Any, path: tuple[str | int, ...], message: str, hint: str) -> None:
    problems = problems_of(spec, judge_rungs=["top"])
    assert problems, "no mistake was found"
    assert problems[0].path == path
    assert message in problems[0].message
    assert hint in problems[0].hint
    with pytest.raises(PolicyError):
        build_verifier(spec, judge_rungs={"top": TOP}, bound=bound)


def test_all_mistakes_are_told_at_once_and_in_order() -> None:
    spec = ["nope", {"regex": "("}, {"any": [{"choice": []}]}]
    assert [problem.path for problem in problems_of(spec)] == [(0,), (1, "regex"), (2, "any", 0, "choice")]
    with pytest.raises(PolicyError) as caught:
        build_verifier(spec, checks=[{"regx": "a"}], bound=bound)
    assert [problem.field for problem in caught.value.problems] == [
        "verify[0]",
        "verify[1].regex",
        "verify[2].any[0].choice",
        "checks[0].regx",
    ]


def test_endless_nesting_is_a_mistake() -> None:
    spec: Any = "complete"
    for _ in range(500):
        spec = [spec]
    assert "nested too deeply" in problems_of(spec)[0].message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([*KINDS, *GROUPS]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*KINDS, *GROUPS, "mode", "tests"]) | st.text(max_size=3), inner, max_size=3
            )
        ),
        max_leaves=6,
    )
)
def test_any_spec_is_either_wrong_or_can_be_built(spec: Any) -> None:
    if problems_of(spec, judge_rungs=[]):
        with pytest.raises(PolicyError):
            build_verifier(spec, bound=bound)
    else:
        build_verifier(spec, fail="open", bound=bound)


def test_nothing_to_verify_is_no_verifier() -> None:
    assert build_verifier(None, bound=bound) is None
    assert build_verifier([], bound=bound) is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("complete", "complete"),
        (["complete"], "complete"),
        (["complete", {"regex": "a"}], "all(complete, regex)"),
        ({"any": ["complete", {"then": ["number", "grounded"]}]}, "any(complete, then(number, grounded))"),
        ({"regex": {"pattern": "a"}}, "regex"),
    ],
)
def test_the_shape_of_what_is_built(spec: Any, name: str) -> None:
    assert built(spec).name == name


def test_checks_of_a_step_are_added() -> None:
    assert built("complete", checks=[{"number": 1}]).name == "all(complete, number)"
    assert built(None, checks=[{"number": 1}, {"regex": "1"}]).name == "all(number, regex)"
    assert judged("complete", "Answer: 2", checks=[{"number": 1}]).decision == "reject"


def test_equal_specs_make_equal_verifiers_that_keep_nothing() -> None:
    verifier = built(["complete", {"number": 1}])
    first, again = (judged(["complete", {"number": 1}], text) for text in ("Answer: 1", "Answer: 1"))
    assert first == again
    assert verifier.bound(call_of(STEP)) == verifier.bound(call_of(STEP))


def test_names_are_sorted() -> None:
    assert list(known_verifiers()) == sorted(known_verifiers())
    assert set(KINDS) <= set(known_verifiers())
