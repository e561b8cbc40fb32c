"""What the effort table and the verifiers say of a policy, at the right place of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from governor.checks import policy_checks
from governor.errors import PolicyError
from governor.policy import inspect_policy, policy_from

MINI = {"id": "mini", "model": "openai/gpt-5-mini", "effort": "low", "thinking_tokens": 500}
HIGH = {"id": "high", "model": "openai/gpt-5-mini", "effort": "high", "thinking_tokens": 900}


def refused(**keys: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        policy_from({"version": 1, "ladder": [MINI], **keys}, checks=policy_checks())
    return str(caught.value)


def test_an_effort_word_that_the_model_lacks_is_refused() -> None:
    assert "effort" in refused(ladder=[{**MINI, "effort": "max"}])


def test_soft_thinking_is_said_once_and_refused_where_the_policy_wants_it_hard(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    rows = "".join(
        f"  - {{id: {r['id']}, model: {r['model']}, effort: {r['effort']}, thinking_tokens: {r['thinking_tokens']}}}\n"
        for r in (MINI, HIGH)
    )
    path.write_text(f"version: 1\nladder:\n{rows}")
    (warning,) = inspect_policy(path, policy_checks()).warnings
    assert (warning.line, "mini, high" in warning.message) == (3, True)
    path.write_text(f"version: 1\nrequire_hard: true\nladder:\n{rows}")
    assert [problem.line for problem in inspect_policy(path, policy_checks()).problems] == [4, 5]


def test_rungs_that_end_as_the_same_request_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nladder:\n  - {id: a, model: m/x}\n  - {id: b, model: m/x, timeout: 9}\n")
    (warning,) = inspect_policy(path, policy_checks()).warnings
    assert (warning.line, warning.message) == (4, "rung 'b' ends as the same wire request as 'a'")


def test_an_unknown_verifier_and_a_wrong_option_are_refused_with_a_suggestion() -> None:
    assert "did you mean 'regex'" in refused(verify={"regx": "a"})
    assert "verify.number" in refused(verify={"number": {"equal": 3}})


def test_an_unknown_dialect_is_refused() -> None:
    assert "hosted-vllm" in refused(models={"openai/gpt-5-mini": {"wire": "hosted-vlm"}})


@pytest.mark.parametrize(
    ("verify", "warned"),
    [
        ("complete", False),
        ("{regex: '42'}", True),
        ("[{regex: '42'}, {contains: {text: a, absent: [b]}}]", False),
        ("{any: [complete, {regex: '42'}]}", True),
    ],
)
def test_a_speculated_stream_needs_something_to_doubt(tmp_path: Path, verify: str, warned: bool) -> None:
    path = tmp_path / "p.yaml"
    ladder = "ladder:\n  - {id: a, model: openai/gpt-5-mini}\n"
    path.write_text(f"version: 1\n{ladder}stream: speculate\nverify: {verify}\n")
    found = inspect_policy(path, policy_checks())
    assert not found.problems
    assert [warning.line for warning in found.warnings if "stream" in warning.message] == [5] * warned
    path.write_text(path.read_text().replace("stream: speculate", "stream: buffer"))
    assert not any("stream" in warning.message for warning in inspect_policy(path, policy_checks()).warnings)
