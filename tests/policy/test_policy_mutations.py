# ruff: noqa: E501 - tables of odd inputs read best with one case a line
"""Whatever happens to a policy's text, it loads or is refused with places inside the file: never anything else."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from governor.policy import Inspection, inspect_policy
from governor.policy.shipped import shipped_folder

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(shipped_folder().glob("*.yaml"))]
SNIPPETS = ["", "\n", " ", "\t", ":", "- ", "{", "}", "[", "]", "'", '"', "&a", "*a", "<<: *a", "!x ", "null", ".nan", "-1", "1e999",
            "true", "\x00", "\u2028", "\ud7ff", "é", "%YAML 1.1\n---\n", "---\n", "?", "|", ">", "#", "version: 1", "verify:", "id: top",
            "2026-11-21", "0x", "0b2", "9" * 30, "!!int x", "!!set {a}", "!!binary a", "~", "[[a]", "dial: 0.1", "extends: frugal"]  # fmt: skip
JARGON = re.compile(
    r"Input should|valid (dict|string|integer|tuple)|pydantic|instance of|Traceback|<\w+>", re.IGNORECASE
)


def inspected(text: str) -> Inspection:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return inspect_policy(path)


def check(text: str) -> None:
    found = inspected(text)
    assert (found.policy is None) == bool(found.problems)
    lines = re.split(r"\r\n|\n|\r", text)
    for problem in (*found.problems, *found.warnings):
        if Path(problem.file).name != "policy.yaml" or not problem.line:
            continue  # in a base that the text extends
        assert 1 <= problem.line <= max(1, len(lines)), problem
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
        assert "\n" not in str(problem)
        assert not JARGON.search(problem.message), problem
    places = [(problem.line, problem.column) for problem in found.problems if Path(problem.file).name == "policy.yaml"]
    assert places == sorted(places)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A shipped policy with a few cuts, insertions, swaps of lines or values."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 1, 3, 20, 200])))
        text = text[:start] + draw(st.sampled_from(SNIPPETS) | st.text(max_size=4)) + text[end:]
    return text


@settings(max_examples=250, deadline=None)
@given(mutated())
@example("version: 1\nladder: [{id: a, model: m}]\nsteps: [{match: {prompt: '[[a]'}}]\n")
@example("version: 1\nladder: [{id: a, model: m}]\nx: !!set {a}\n")
@example("version: 1\nladder: [{id: a, model: m, b\n\nc: 1}]\n")
def test_any_mutation_loads_or_is_explained(text: str) -> None:
    check(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats(allow_nan=True) | st.sampled_from(["on", "a", "", "top", "low", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "model", "all", "regex", "usd"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _yaml(value: object) -> str:
    """A value in YAML's flow style; JSON is that, but for the numbers it can't say."""
    return json.dumps(value, ensure_ascii=False).replace("NaN", ".nan").replace("Infinity", ".inf")


@st.composite
def revalued(draw: st.DrawFn) -> str:
    """A shipped policy in which the values of some lines are other values, of any type."""
    lines = draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[at].partition(": ")
        lines[at] = f"{key}{colon}{_yaml(draw(VALUES))}"
    return "\n".join(lines) + "\n"


@settings(max_examples=200, deadline=None)
@given(revalued())
def test_any_other_value_loads_or_is_explained(text: str) -> None:
    check(text)
