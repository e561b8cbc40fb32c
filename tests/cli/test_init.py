"""`governor init` and `governor schema`: files that are whole, valid, and never overwritten by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from governor.cli.init import app_name, init
from governor.cli.schema import schema
from governor.policy import load_policy, shipped_names
from governor.policy.json_schema import schema_text


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("init")(init)
    app.command("schema")(schema)
    return app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my agent!"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", shipped_names())
def test_every_starter_loads(name: str, app: typer.Typer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["init", "--from", name])
    assert result.exit_code == 0
    assert result.stdout == "wrote policy.yaml and policy.schema.json; check it with: governor check policy.yaml\n"
    policy = load_policy(folder / "policy.yaml")
    assert policy.app == "my-agent"
    assert policy.ladder == load_policy(name).ladder
    assert (folder / "policy.schema.json").read_text(encoding="utf-8") == schema_text()
    assert (folder / "policy.yaml").read_text(encoding="utf-8").count("#") >= 2


def test_what_is_there_stays_without_force(app: typer.Typer, folder: Path) -> None:
    (folder / "policy.yaml").write_text("mine")
    refused = CliRunner().invoke(app, ["init"])
    assert refused.exit_code == 2
    assert refused.stderr == "policy.yaml: exists already (overwrite it with --force)\n"
    assert (folder / "policy.yaml").read_text() == "mine"
    assert not (folder / "policy.schema.json").exists()
    assert CliRunner().invoke(app, ["init", "--force"]).exit_code == 0
    assert load_policy(folder / "policy.yaml").dial == 0.3


def test_an_unknown_base_writes_nothing(app: typer.Typer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["init", "--from", "frugl"])
    assert result.exit_code == 2
    assert result.stderr == "no shipped policy is called 'frugl' (did you mean 'frugal'?)\n"
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(app: typer.Typer, folder: Path) -> None:
    (folder / "policy.schema.json").mkdir()
    result = CliRunner().invoke(app, ["init"])
    assert (result.exit_code, result.stderr) == (2, "policy.schema.json: can't be written: Is a directory\n")
    assert not (folder / "policy.yaml").exists()


@pytest.mark.parametrize(
    ("folder_name", "name"), [("shop", "shop"), ("My App", "My-App"), ("--x--", "x"), ("...", "my-app"), ("ünï", "n")]
)
def test_names_of_applications(folder_name: str, name: str, tmp_path: Path) -> None:
    assert app_name(tmp_path / "x" / folder_name) == name


def test_schema_prints_or_writes(app: typer.Typer, folder: Path) -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert json.loads(printed.stdout)["title"] == "Policy"
    assert CliRunner().invoke(app, ["schema", "--out", "s.json"]).stdout == "wrote s.json\n"
    assert (folder / "s.json").read_text(encoding="utf-8") == printed.stdout
    failed = CliRunner().invoke(app, ["schema", "--out", "no/s.json"])
    assert (failed.exit_code, failed.stderr) == (2, "no/s.json: can't be written: No such file or directory\n")
