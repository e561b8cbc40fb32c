"""What every `--help` shows, what it must not cost, and how the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from governor.cli.app import app

HEAVY = ("pydantic", "numpy", "ruamel", "jsonschema", "opentelemetry", "rich", "asyncio", "governor_local")


def commands() -> list[tuple[str, ...]]:
    """Every command and group of the tree, by its words; () is `governor` itself."""
    found: list[tuple[str, ...]] = [()]
    for path in found:  # grows while it is read
        node = typer.main.get_command(app)
        for word in path:
            node = getattr(node, "commands")[word]  # noqa: B009 - groups alone have it
        found.extend((*path, name) for name in getattr(node, "commands", ()))
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_help_has_an_example_and_fits_80_columns(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert f"Example: governor {' '.join(path)}".strip() in " ".join(shown.stdout.split())
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "..." not in shown.stdout.partition("Commands:")[2], "a command's first sentence is cut short"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom governor.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    print('LOADED', *sys.modules)"
    )
    loaded = _python("-c", code).stdout.partition("LOADED")[2].split()
    assert loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, ""),
        (["check", "balanced"], 0, ""),
        (["check", "bad.yaml"], 2, ""),
        (["check"], 2, "governor check: Missing argument"),
        (["chekc"], 2, "governor: No such command 'chekc'"),
        (["run", "balanced", "--input", "none.jsonl", "--out", "o.jsonl"], 2, "none.jsonl: no such file"),
        (["explain", "bad.yaml", "What?"], 2, "bad.yaml:1:10: version"),
    ],
)
def test_the_process_ends_with_the_documented_code(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("version: 2\n")
    done = _python("-m", "governor", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The package under test, installed or not, whatever the current folder is.
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, env=paths
    )
