"""What a valid file means: YAML 1.2, defaults, inheritance, digests, the shipped policies."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from governor.errors import PolicyError
from governor.policy import Policy, inspect_policy, load_policy, policy_from, shipped_names
from governor.policy.budget import periods
from governor.policy.schema import Canary
from governor.records import Limit, Price, Reply, Step, ToolCall
from tests.verify.driver import judged

MINIMAL = "version: 1\nladder: [{id: a, model: m}]\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str) -> Policy:
    return load_policy(write(folder, "policy.yaml", text))


def test_on_is_a_word_not_a_boolean(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "mode: on\n").mode == "on"
    assert load(tmp_path, MINIMAL + "app: no\n").app == "no"
    assert load(tmp_path, MINIMAL + "mode: {canary: 0.1}\n").mode == Canary(canary=0.1)


def test_the_least_policy_has_the_documented_defaults(tmp_path: Path) -> None:
    policy = load(tmp_path, MINIMAL)
    assert (policy.app, policy.mode, policy.fail, policy.harm) == ("default", "on", "closed", 0.5)
    assert (policy.dial, policy.keep, policy.verify, policy.ledger) == (None, None, None, None)
    assert policy.require_hard is False
    assert (policy.records.prompts, policy.records.answers, policy.sandbox.allow_unsandboxed) == (False, False, False)


def test_numbers_of_yaml_1_2(tmp_path: Path) -> None:
    policy = load(
        tmp_path, MINIMAL + "budget: {step: {tokens: 1_000, calls: 0x10}, session: {tokens: 0o17, usd: 1e-2}}\n"
    )
    assert policy.budget.step is not None
    assert policy.budget.session is not None
    assert (policy.budget.step.tokens, policy.budget.step.calls) == (1000, 16)
    assert (policy.budget.session.tokens, policy.budget.session.usd) == (15, 0.01)


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        "version: 1\nladder:\n  - &low {id: a, model: m, answer_tokens: 10}\n  - {<<: *low, id: b}\n"
        "  - {<<: [{answer_tokens: 3}, *low], id: c}\nsteps: [{verify: &v [complete]}, {verify: *v}]\n",
    )
    assert [(rung.id, rung.answer_tokens) for rung in policy.ladder] == [("a", 10), ("b", 10), ("c", 3)]
    assert policy.steps[1].verify == ["complete"]


def test_a_rung_takes_its_own_price_else_its_models(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        "version: 1\nmodels: {m: {price: {input: 1, output: 2, cached_input: 0.1}}, n: {}}\n"
        "ladder:\n  - {id: a, model: m}\n  - {id: b, model: m, price: {output: 9}}\n  - {id: c, model: n}\n",
    )
    assert [rung.price for rung in policy.rungs.values()] == [Price(1, 2, 0.1), Price(0, 9), Price()]


def test_limits_are_integers_of_micro_usd_and_milliseconds(tmp_path: Path) -> None:
    policy = load(
        tmp_path, MINIMAL + "budget: {step: {usd: 0.57, seconds: 1.2345, calls: 3}, app: {per: day, usd: 0}}\n"
    )
    assert policy.budget.step is not None
    assert policy.budget.step.limit("s") == Limit("s", None, 570_000, 1234, 3)
    assert [part.limit("a") for part in periods(policy.budget.app)] == [Limit("a", None, 0, None, None)]


BASE = """\
version: 1
app: base
dial: 0.5
models:
  m: {price: {input: 1, output: 2}, max_output_tokens: 5000}
ladder: [{id: a, model: m}, {id: b, model: m}]
verify: {all: [complete]}
budget: {step: {usd: 1, calls: 3}, session: {usd: 5}, on_exhausted: refuse}
steps: [{match: {node: x}, dial: 0.1}]
"""


def test_mappings_merge_and_lists_replace(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    policy = load(
        tmp_path,
        "version: 1\nextends: base.yaml\nladder: [{id: c, model: m}]\nverify: {regex: x}\n"
        "models: {m: {price: {output: 3}}, n: {}}\nbudget: {step: {usd: 2}, session: null}\n",
    )
    assert [rung.id for rung in policy.ladder] == ["c"]
    assert policy.verify == {"regex": "x"}
    assert policy.rungs["c"].price == Price(1, 3)
    assert set(policy.models) == {"m", "n"}
    assert policy.budget.step is not None
    assert (policy.budget.step.usd, policy.budget.step.calls) == (2, 3)
    assert policy.budget.session is None
    assert policy.budget.on_exhausted == "refuse"
    assert (policy.app, policy.dial, len(policy.steps)) == ("base", 0.5, 1)


def test_dial_and_keep_drop_each_other_when_inherited(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    middle = write(tmp_path, "middle.yaml", "version: 1\nextends: base.yaml\nkeep: 0.9\n")
    top = write(tmp_path, "top.yaml", "version: 1\nextends: ./middle.yaml\ndial: 0.7\n")
    assert (load_policy(middle).dial, load_policy(middle).keep) == (None, 0.9)
    assert (load_policy(top).dial, load_policy(top).keep) == (0.7, None)
    assert [path.name for path in inspect_policy(top).files] == ["top.yaml", "middle.yaml", "base.yaml"]


def test_a_mistake_is_shown_in_the_file_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    base = write(tmp_path / "shared", "base.yaml", BASE + "harm: -1\nbaseline: c\n")
    child = write(
        tmp_path, "child.yaml", "version: 1\nextends: shared/base.yaml\ndeadline: 0\nladder: [{id: d, model: m}]\n"
    )
    problems = inspect_policy(child).problems
    assert [(p.file, p.line, p.field) for p in problems] == [
        (str(child), 3, "deadline"),
        (str(base), 10, "harm"),
        (str(base), 11, "baseline"),
    ]


def test_a_circle_of_files_is_an_error_where_it_closes(tmp_path: Path) -> None:
    write(tmp_path, "one.yaml", "version: 1\nextends: two.yaml\n")
    two = write(tmp_path, "two.yaml", "version: 1\nextends: ./one.yaml\n")
    (problem,) = inspect_policy(tmp_path / "one.yaml").problems
    assert str(problem) == f"{two}:2:10: extends: './one.yaml' extends this file in turn (break the circle)"


def test_mistakes_beside_a_missing_base_are_told_too(tmp_path: Path) -> None:
    path = write(tmp_path, "policy.yaml", "version: 1\nextends: gone.yaml\ndail: 1\n")
    assert [problem.field for problem in inspect_policy(path).problems] == ["extends", "dail"]


def test_a_base_of_another_version_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "version: 3\nfuture: true\n")
    path = write(tmp_path, "policy.yaml", "version: 1\nextends: base.yaml\n")
    assert [(p.file, p.message) for p in inspect_policy(path).problems] == [
        (str(base), "this Governor reads version 1, not 3")
    ]


def test_a_base_keeps_its_place_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path, "base.yaml", BASE)
    write(tmp_path / "a", "middle.yaml", "version: 1\nextends: ../base.yaml\n")
    path = write(tmp_path / "a" / "b", "policy.yaml", "version: 1\nextends: ../middle.yaml\n")
    assert load_policy(path).app == "base"


def test_digest_is_of_the_meaning_not_the_text(tmp_path: Path) -> None:
    one = load(tmp_path, "version: 1\napp: x\nladder: [{id: a, model: m}]\ndial: 0.5\n")
    same = load(tmp_path, "# other\ndial: 5e-1\nversion: 1\nladder:\n  - model: m\n    id: a\napp: 'x'\n")
    other = load(tmp_path, "version: 1\napp: x\nladder: [{id: a, model: m}]\ndial: 0.6\n")
    assert one.digest == same.digest
    assert (one, hash(one)) == (same, hash(same))
    assert one.digest != other.digest
    assert len(one.digest) == 64
    assert (
        one.digest == policy_from({"version": 1, "app": "x", "ladder": [{"id": "a", "model": "m"}], "dial": 0.5}).digest
    )


def test_digest_does_not_depend_on_how_content_is_split(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    split = load(tmp_path, "version: 1\nextends: base.yaml\nharm: 2\n")
    whole = load(tmp_path, BASE + "harm: 2\n")
    assert split.digest == whole.digest


def test_a_copy_has_its_own_digest_and_rungs() -> None:
    policy = load_policy("balanced")
    assert "top" in policy.rungs
    copied = policy.model_copy(update={"dial": 0.9, "ladder": policy.ladder[:1]})
    assert copied.digest != policy.digest
    assert list(copied.rungs) == ["nano"]
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_policies_are_frozen() -> None:
    policy = load_policy("balanced")
    with pytest.raises(ValidationError, match="frozen"):
        policy.dial = 1.0  # type: ignore[misc]


def test_data_in_memory_is_checked_alike() -> None:
    with pytest.raises(
        PolicyError, match=r"^mine:1:1: ladder\[0\]\.efort: unknown key 'efort' \(did you mean 'effort'\?\)$"
    ):
        policy_from({"version": 1, "ladder": [{"id": "a", "model": "m", "efort": "low"}]}, name="mine")
    with pytest.raises(PolicyError, match="only a file can extend another"):
        policy_from({"version": 1, "extends": "balanced"})
    with pytest.raises(PolicyError, match="must be 1, not 2"):
        policy_from({"version": 2, "ladder": [{"id": "a", "model": "m"}]})


@pytest.mark.parametrize("name", ["balanced", "coding-agent", "frugal", "latency-first", "support-desk", "thorough"])
def test_shipped_policies_load_without_doubts(name: str) -> None:
    found = inspect_policy(name)
    assert (found.problems, found.warnings) == ((), ())
    assert found.policy is not None
    assert found.policy.app == name
    assert len(found.policy.ladder) >= 3
    assert all(rung.price.output > 0 for rung in found.policy.rungs.values())


def test_the_coding_agents_tool_calls_must_fit_their_schemas() -> None:
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    tool = {"type": "function", "function": {"name": "read", "parameters": parameters}}
    step = Step(id="s", messages=({"role": "user", "content": "Read it."},), tools=(tool,))
    spec = load_policy("coding-agent").verify
    calls = {given: ToolCall(id="1", name="read", arguments=given) for given in ("{}", '{"path": "a"}')}
    decisions = {
        given: judged(spec, Reply(text="", tool_calls=(call,), finish_reason="tool_calls"), step).decision
        for given, call in calls.items()
    }
    assert decisions == {"{}": "reject", '{"path": "a"}': "accept"}


def test_shipped_names_are_what_is_documented() -> None:
    assert shipped_names() == ["balanced", "coding-agent", "frugal", "latency-first", "support-desk", "thorough"]


def test_a_file_can_extend_a_shipped_policy_and_a_file_wins_over_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "frugal", "version: 1\nextends: thorough\napp: mine\n")
    assert load_policy("frugal").app == "mine"
    assert load_policy("frugal").keep == 0.99
    assert load_policy("balanced").app == "balanced"
