"""`governor explain`, `check` and `run` under a policy that names learned parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from governor.cli import main
from governor.cli.app import app
from tests.learned_parts import EASY, HEAD, certify

LEARNED = HEAD + "calibration: calibration.npz\n"
PROMPT = f"{EASY}: balan comir"


@pytest.fixture
def folder(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("COLUMNS", "200")
    return desk


def governor(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


def test_explain_shows_the_learned_forecast_and_measured_rates(folder: Path) -> None:
    (folder / "policy.yaml").write_text(LEARNED + "verify: {regex: '^yes'}\n")
    text = governor("explain", "policy.yaml", PROMPT).stdout
    assert "learned forecast 0." in text
    assert "base rates 0." in text
    assert "base rate only for high" in text
    assert "(measured on 400 verdicts)" in text


def test_explain_says_where_a_question_is_unlike_those_fitted_on(folder: Path) -> None:
    (folder / "policy.yaml").write_text(LEARNED)
    said = "the question is unlike those that were fitted on: base rates 0."
    assert said not in governor("explain", "policy.yaml", PROMPT).stdout
    code = "def far(rows):\n    return {row: [1, 2, 3] for row in rows if row > 10}\n" * 5
    assert said in governor("explain", "policy.yaml", code).stdout


def test_explain_says_what_the_certificate_rules(folder: Path) -> None:
    policy = folder / "policy.yaml"
    policy.write_text(LEARNED)
    certify(folder, "policy.yaml")
    policy.write_text(LEARNED + "dial: 0.8\ncertificate: certificate.json\n")
    told = json.loads(governor("explain", "policy.yaml", PROMPT, "--json").stdout)
    assert told["dial"] == 0.5
    assert "dial 0.5 instead of 0.8: certified, accepted-wrong at most 0.05" in told["matched"]
    policy.write_text(LEARNED + "harm: 2\ncertificate: certificate.json\n")
    told = json.loads(governor("explain", "policy.yaml", PROMPT, "--json").stdout)
    assert told["dial"] == 0.0
    assert "safe dial 0: certificate not used: it was made with policy" in told["matched"]


def test_check_names_the_line_of_a_file_that_is_absent(folder: Path) -> None:
    (folder / "policy.yaml").write_text(HEAD + "calibration: gone.npz\n")
    result = governor("check", "policy.yaml")
    assert result.exit_code == 2
    line = len(HEAD.splitlines()) + 1
    assert result.stdout.splitlines()[0] == (
        f"policy.yaml:{line}:14: calibration: gone.npz: can't be read (No such file or directory); "
        "make one with: governor fit"
    )


def test_check_tells_of_digests_that_do_not_agree(folder: Path) -> None:
    policy = folder / "policy.yaml"
    policy.write_text(HEAD)
    certify(folder, "policy.yaml")
    policy.write_text(LEARNED + "certificate: certificate.json\n")
    result = governor("check", "policy.yaml")
    assert result.exit_code == 0
    assert "certificate: not used: it was made without a calibration, and here runs calibration" in result.stdout
    assert "(certify again with this policy and calibration) [warning]" in result.stdout


@pytest.mark.parametrize("command", ["explain", "run"])
def test_a_broken_calibration_is_one_line_and_exit_code_2(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "policy.yaml").write_text(LEARNED)
    (folder / "calibration.npz").write_bytes(b"PK\x03\x04 nothing")
    (folder / "tasks.jsonl").write_text('{"id": "a", "prompt": "hi"}\n')
    rest = ["hi"] if command == "explain" else ["--input", "tasks.jsonl", "--out", "out.jsonl"]
    monkeypatch.setattr("sys.argv", ["governor", command, "policy.yaml", *rest])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "calibration: calibration.npz: not a calibration, or damaged" in line
    assert not (folder / "out.jsonl").exists()
