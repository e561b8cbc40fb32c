"""`governor check`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from governor.cli.check import check_policies, command, exit_code
from governor.policy import Finding, Policy

GOOD = "version: 1\napp: shop\nladder:\n  - {id: a, model: m, effort: high, thinking_tokens: 10}\n"


def unsure(policy: Policy) -> list[Finding]:
    """A cross-check with one doubt about the first rung."""
    return [Finding(("ladder", 0, "effort"), f"{policy.ladder[0].model} ignores it", "remove it", "warning")]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("check")(command(lambda: [unsure]))
    app.command("other")(command())
    return app


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "120")
    return CliRunner()


def test_a_good_policy_shows_its_ladder(app: typer.Typer, runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    result = runner.invoke(app, ["check", str(path)])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == f"{path}:4:31: ladder[0].effort: m ignores it (remove it) [warning]"
    assert lines[1].startswith(f"{path}: ok, app shop, mode on, dial 0.3 (default), 0 rules, digest ")
    assert lines[2].split() == ["rung", "model", "effort", "think", "answer", "samples", "seconds", "USD/M", "in/out"]
    assert lines[3].split() == ["a", "m", "high", "10", "1024", "1", "120", "0/0"]


def test_mistakes_are_lines_that_editors_can_follow(app: typer.Typer, runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / ("a-long-folder-name-" * 8)
    path.mkdir()
    path /= "policy.yaml"
    path.write_text(GOOD + "dail: [0.3]\nmode: '[red]on'\n")
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        f"{path}:5:1: dail: unknown key 'dail' (did you mean 'dial'?)",
        f"{path}:6:7: mode: must be on or shadow, not '[red]on'",
        f"{path}: 2 mistakes",
    ]


def test_several_policies_and_one_bad_one(app: typer.Typer, runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("")
    result = runner.invoke(app, ["other", "balanced", "thorough", str(path)])
    assert result.exit_code == 2
    assert "balanced: ok, app balanced, mode on, dial 0.3, 0 rules" in result.stdout
    assert "thorough: ok, app thorough, mode on, keep 0.99, 0 rules" in result.stdout
    assert f"{path}: 1 mistake\n" in result.stdout


def test_json_is_one_object(app: typer.Typer, runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    result = runner.invoke(app, ["check", "--json", str(path), "nosuch"])
    assert result.exit_code == 2
    data = json.loads(result.stdout)
    assert data["ok"] is False
    good, bad = data["policies"]
    assert (good["ok"], good["problems"], len(good["digest"])) == (True, [], 64)
    assert good["warnings"][0]["line"] == 4
    assert good["ladder"][0]["id"] == "a"
    assert (bad["ok"], bad["digest"], bad["ladder"]) == (False, None, [])
    assert bad["problems"][0]["message"] == "no file and no shipped policy is called 'nosuch'"


def test_every_shipped_policy_passes() -> None:
    names = ["balanced", "coding-agent", "frugal", "latency-first", "support-desk", "thorough"]
    report = check_policies(names)
    assert list(report) == names
    assert exit_code(report) == 0
