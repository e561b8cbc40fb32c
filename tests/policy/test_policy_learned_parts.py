# ruff: noqa: E501 - tables of odd inputs read best with one case a line
"""The keys that name learned parts: their mistakes and doubts, with file, line and how to mend them, and reloading."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from governor.checks import policy_checks
from governor.policy import PolicyWatcher, inspect_policy, load_policy
from governor.policy.match import audited, terms_for
from governor.records import Step
from tests.learned_parts import HEAD, certify

RUNG = "version: 1\nladder: [{id: a, model: m}]\n"


class Case(NamedTuple):
    name: str
    text: str
    told: str


MISTAKES = [
    Case("misspelt calibration", "calibraton: a.npz\n", "policy.yaml:3:1: calibraton: unknown key 'calibraton' (did you mean 'calibration'?)"),
    Case("misspelt certificate", "certifcate: a\n", "policy.yaml:3:1: certifcate: unknown key 'certifcate' (did you mean 'certificate'?)"),
    Case("safe-dial", "safe-dial: 0.1\n", "policy.yaml:3:1: safe-dial: unknown key 'safe-dial' (did you mean 'safe_dial'?)"),
    Case("online as a word", "online: on\n", "policy.yaml:3:9: online: must be true or false, not 'on' (write true)"),
    Case("audit over 1", "audit: 2\n", "policy.yaml:3:8: audit: must be at most 1, not 2"),
    Case("audit as a percentage", "audit: 2%\n", "policy.yaml:3:8: audit: must be a number, not '2%'"),
    Case("safe dial below 0", "safe_dial: -1\n", "policy.yaml:3:12: safe_dial: must be at least 0, not -1"),
    Case("empty calibration", "calibration: ''\n", "policy.yaml:3:14: calibration: must be text that is not empty, not ''"),
    Case("calibration as a number", "calibration: 3\n", "policy.yaml:3:14: calibration: must be text, not 3 (put it in quotes)"),
    Case("absent calibration", "calibration: gone.npz\n", "policy.yaml:3:14: calibration: {folder}/gone.npz: can't be read (No such file or directory); make one with: governor fit"),
    Case("foreign calibration", "calibration: policy.yaml\n", "policy.yaml:3:14: calibration: {folder}/policy.yaml: not a calibration, or damaged (File is not a zip file); fit it anew: governor fit"),
    Case("absent certificate", "\ncertificate: gone.json\n", "policy.yaml:4:14: certificate: {folder}/gone.json: can't be read: "),
    Case("foreign certificate", "certificate: policy.yaml\n", "policy.yaml:3:14: certificate: {folder}/policy.yaml: this is no JSON: "),
    Case("in a rule", "steps:\n  - calibration: a\n", "policy.yaml:4:5: steps[0].calibration: unknown key 'calibration' ('calibration' belongs at the top of the policy)"),
]  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.name)
def test_mistakes(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(RUNG + case.text)
    (problem,) = inspect_policy(path, policy_checks()).problems
    assert str(problem).startswith(f"{tmp_path}/" + case.told.format(folder=tmp_path))


DOUBTS = [
    Case("safe dial alone", "safe_dial: 0.1\n", "safe_dial: is used only beside a certificate (add 'certificate: FILE') "),
    Case("audit for nothing", "audit: 0.1\n", "audit: labels teach nothing: there is neither a certificate nor 'online: true' "),
    Case("online beside a certificate", "certificate: certificate.json\nonline: true\n", "online: the certificate speaks of forecasts that stand still"),
    Case("keep beside a certificate", "certificate: certificate.json\nkeep: 0.9\n", "certificate: a certificate speaks of dials, and without a calibration none is known for 'keep'"),
]  # fmt: skip


@pytest.mark.parametrize("case", DOUBTS, ids=lambda case: case.name)
def test_doubts(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(RUNG + case.text.replace("certificate: certificate.json\n", ""))
    certify(tmp_path, "policy.yaml")
    path.write_text(RUNG + case.text)
    found = inspect_policy(path, policy_checks())
    assert found.policy is not None
    (warning,) = found.warnings
    assert case.told in f"{warning.field}: {warning.message} ({warning.hint}) "


@pytest.mark.parametrize("text", ["online: true\naudit: 0.1\n", "calibration: calibration.npz\n"])
def test_what_goes_together_is_told_nothing_of(text: str, desk: Path) -> None:
    (desk / "policy.yaml").write_text(HEAD + text)
    assert inspect_policy(desk / "policy.yaml", policy_checks()).warnings == ()


def test_a_tampered_or_newer_file_is_a_mistake_of_the_line_that_names_it(desk: Path) -> None:
    path = desk / "policy.yaml"
    path.write_text(HEAD)
    certificate = certify(desk, "policy.yaml")
    body = json.loads(certificate.read_text())
    path.write_text(HEAD + "certificate: certificate.json\n")
    line = len(HEAD.splitlines()) + 1
    for change, said in (({"version": 9}, "version 9"), ({"digest": "0" * 64}, "was changed after it was written")):
        certificate.write_text(json.dumps(body | change))
        (problem,) = inspect_policy(path, policy_checks()).problems
        assert (problem.line, problem.field) == (line, "certificate")
        assert said in problem.message
    content = (desk / "calibration.npz").read_bytes()
    (desk / "calibration.npz").write_bytes(content[: len(content) // 2])
    path.write_text(HEAD + "calibration: calibration.npz\n")
    (problem,) = inspect_policy(path, policy_checks()).problems
    assert (problem.line, problem.field) == (line, "calibration")
    assert "not a calibration, or damaged" in problem.message


def test_rungs_that_the_calibration_does_not_know_are_told(desk: Path) -> None:
    path = desk / "policy.yaml"
    rule = "steps:\n  - match: {node: x}\n    ladder: [low, {id: mini, model: m}]\n"
    path.write_text(HEAD + "calibration: calibration.npz\n" + rule)
    warnings = inspect_policy(path, policy_checks()).warnings
    (warning,) = [one for one in warnings if "calibration" in one.message]
    assert warning.field == "steps[0].ladder[1].id"
    assert warning.line == len(HEAD.splitlines()) + 4
    assert "knows no rung 'mini'" in warning.message
    assert warning.hint == "it knows low, high; fit it on records of this ladder"


def test_a_certificate_of_another_policy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(RUNG)
    certify(tmp_path, "policy.yaml")
    path.write_text(RUNG + "harm: 2\ncertificate: certificate.json\n")
    found = inspect_policy(path, policy_checks())
    assert found.policy is not None
    (warning,) = found.warnings
    assert (warning.field, warning.line) == ("certificate", 4)
    assert warning.message.startswith("not used: it was made with policy ")


def test_the_last_good_policy_stays_while_its_calibration_is_broken(desk: Path) -> None:
    path, file = desk / "policy.yaml", desk / "calibration.npz"
    path.write_text(HEAD + "calibration: calibration.npz\n")
    now = [0.0]
    watcher = PolicyWatcher(path, checks=policy_checks(), clock=lambda: now[0])

    def looked() -> str | None:
        for _ in range(4):
            now[0] += 1
            watcher.current()
        return watcher.error.problems[0].field if watcher.error else None

    good = file.read_bytes()
    assert looked() is None
    file.write_bytes(good[:100])
    assert looked() == "calibration"
    assert watcher.current().calibration == "calibration.npz"
    file.unlink()
    assert looked() == "calibration"
    file.write_bytes(good)
    assert looked() is None


def test_a_path_belongs_to_the_file_that_gives_it(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(RUNG + "calibration: a.npz\ncertificate: b.json\n")
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nextends: shared/base.yaml\ncertificate: c.json\n")
    policy = load_policy(path)
    assert policy.file_of("calibration") == tmp_path / "shared" / "a.npz"
    assert policy.file_of("certificate") == tmp_path / "c.json"
    assert set(inspect_policy(path).files) == {
        path,
        tmp_path / "shared" / "base.yaml",
        tmp_path / "shared" / "a.npz",
        tmp_path / "c.json",
    }


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.text())
@example(0.0, 1.0, "a")
def test_audits_are_drawn_by_the_id_alone(one: float, other: float, step_id: str) -> None:
    assert not audited(0.0, step_id)
    assert audited(1.0, step_id)
    low, high = sorted((one, other))
    assert audited(high, step_id) >= audited(low, step_id)  # a larger share takes nobody out


def test_the_share_of_audits_is_kept_and_the_terms_say_so(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(RUNG + "online: true\naudit: 0.1\n")
    policy = load_policy(path)
    drawn = sum(terms_for(policy, Step(id=f"s{at}", messages=()), 0.0).audit for at in range(5000))
    assert abs(drawn - 500) < 85  # four standard deviations


VALUES = st.sampled_from(["true", "false", "0", "1", "0.5", "-1", "2", "nan", "''", "null", "[]", "{}", "x", "/", "..", "\"\\0\"", "a\\b", "~/x", "policy.yaml", "'" + "x" * 300 + "'"])  # fmt: skip
KEYS = st.sampled_from(["calibration", "certificate", "online", "safe_dial", "audit", "keep", "dial"])


@settings(max_examples=150, deadline=None)
@example({"calibration": '"\\0"'})
@example({"certificate": '"\\0"'})
@given(st.dictionaries(KEYS, VALUES, min_size=1))
def test_whatever_stands_there_it_loads_or_is_told_with_its_line(values: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(RUNG + "".join(f"{key}: {value}\n" for key, value in values.items()))
        found = inspect_policy(path, policy_checks())
    assert (found.policy is None) == bool(found.problems)
    for problem in (*found.problems, *found.warnings):
        assert problem.field.partition(".")[0] in values
        assert 3 <= problem.line <= 2 + len(values)
        assert "\n" not in str(problem)
